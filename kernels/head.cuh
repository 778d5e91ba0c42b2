// The last layer of a model with few outputs, the loss, and the gradient at the layer below, in one pass over a batch. The
// kernels of one precision are made by KILN_HEAD(Math).
//
//   z (B, C) = x (B, K) w (C, K)^T + b (C);  losses and hits of the rows, dz (B, C) of the mean of `mean` rows: losses.cuh
//   dx (B, K) = dz w where x > 0, else 0
//
//   head_softmax_cross_entropy, head_mse_labels, head_mse_values: their loss, as in softmax_loss.cu and mse.cu
//
// Three launches would do the same work in a fraction of the time that they take to begin. x are the outputs of the layer
// below, after its ReLU; z is written nowhere. Rows of the batch and places of losses and hits: as in softmax_loss.cu.
//
// One warp a row, grid ceil(B / 4) blocks of 128 threads, no barrier of a block. C is 1 to 32, one for each lane while the loss is made; C K
// fits 32 bits. A lane takes four neighbouring inputs at a time. Weights are read once where they fit a warp's
// registers, up to 128 inputs and 16 classes, else for z and, through the first-level cache, for dx.
// Operands are rounded as Math says; products and sums are float32, of z lane by lane and then over the lanes, in an order that depends
// on K alone. Runs are equal bit for bit.
#pragma once
#include "direct.cuh"
#include "losses.cuh"

constexpr u32 CLASSES_MAX = 32, ROWS = 4;
// Classes that are summed together.
constexpr u32 GROUP = 16;

// Of what all lanes hold of 2 HALF classes, each lane gives away one half for the other half of the rest, until it has the sum
// of one class, that of its number modulo GROUP, over the lanes that differ in those bits.
template <u32 HALF>
__device__ __forceinline__ float sum_of_class(float (&sums)[GROUP]) {
    const bool upper = threadIdx.x & HALF;
#pragma unroll
    for (u32 i = 0; i < HALF; i++) {
        const float given = upper ? sums[i] : sums[i + HALF], kept = upper ? sums[i + HALF] : sums[i];
        sums[i] = kept + __shfl_xor_sync(~0u, given, HALF);
    }
    if constexpr (HALF > 1) return sum_of_class<HALF / 2>(sums);
    return sums[0];
}

// Inputs of a warp at a time.
constexpr u32 CHUNK = 4 * 32;

// Weights of four inputs, of GROUP classes from `first` on; beyond C: the last class again, for nothing.
template <bool TOGETHER>
struct OfClasses {
    Held<float, 4, TOGETHER> of[GROUP];
    __device__ __forceinline__ void load(const float* w, u32 first, u32 k, u32 inside, u32 K, u32 C) {
#pragma unroll
        for (u32 i = 0; i < GROUP; i++) of[i].load(w + min(first + i, C - 1) * K + k, inside);
    }
    // In place, when they have arrived.
    template <class Math>
    __device__ __forceinline__ void round() {
#pragma unroll
        for (u32 i = 0; i < GROUP; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) of[i].of[e] = Math::rounded(of[i].of[e]);
    }
};

template <class Math, bool TOGETHER, class Loss>
__device__ __forceinline__ void row_of_head(const Loss& loss, const Row& row, const float* x, const float* w, const float* b, float* dz,
                                            float* dx, float* losses, u32 mean, u32 K, u32 C) {
    __shared__ alignas(16) float rows[ROWS][CLASSES_MAX];
    const u32 lane = threadIdx.x % 32;
    const float* xr = x + (size_t)row.of_batch * K;
    // What the loss takes is loaded beside the product, a load each time that there is something to wait for.
    u32 of_epoch, sample;
    typename Loss::Target target;
    float of_bias;
    float z = 0.0f; // of the class that is this lane's number
    // Of a layer of one chunk and one group, held for both products.
    const bool is_held = K <= CHUNK && C <= GROUP;
    Held<float, 4, TOGETHER> of_x;
    OfClasses<TOGETHER> of_w;
#pragma unroll 1
    for (u32 first = 0; first < C; first += GROUP) {
        float sums[GROUP] = {};
#pragma unroll 1
        for (u32 k = 4 * lane; k < 4 * lane + K; k += CHUNK) {
            const u32 inside = k < K ? min(K - k, 4) : 0;
            of_x.load(xr + k, inside);
            of_w.load(w, first, k, inside, K, C);
            __syncwarp(); // so that no assembler lets what is at hand wait for the order
            if (first == 0 && k == 4 * lane) {
                of_epoch = row.of_epoch();
                sample = row.order[of_epoch];
                of_bias = b[min(lane, C - 1)];
            }
            of_w.template round<Math>();
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float of_input = Math::rounded(of_x.of[e]);
#pragma unroll
                for (u32 i = 0; i < GROUP; i++) sums[i] = fmaf(of_input, of_w.of[i].of[e], sums[i]);
            }
        }
        if (first == 0) target = loss.target(sample, C);
        float sum = sum_of_class<GROUP / 2>(sums);
        sum += __shfl_xor_sync(~0u, sum, GROUP);
        if (lane / GROUP == first / GROUP) z = sum;
    }
    z += of_bias;
    const float of_row = loss(of_epoch, target, z, C, mean); // z is dz now
    if (lane == 0) losses[of_epoch] = of_row;
    if (lane < C) dz[(size_t)row.of_batch * C + lane] = z;
    float* dzr = rows[threadIdx.x / 32]; // of this warp alone
    dzr[lane] = lane < C ? Math::rounded(z) : 0.0f;
    __syncwarp();
#pragma unroll 1
    for (u32 k = 4 * lane; k < K; k += CHUNK) {
        const u32 inside = min(K - k, 4);
        Held<float, 4, TOGETHER> sums;
        if (!is_held) of_x.load(xr + k, inside);
#pragma unroll
        for (int e = 0; e < 4; e++) sums.of[e] = 0.0f;
#pragma unroll 1
        for (u32 first = 0; first < C; first += GROUP) {
            if (!is_held) {
                of_w.load(w, first, k, inside, K, C);
                of_w.template round<Math>();
            }
#pragma unroll
            for (u32 i = 0; i < GROUP; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) sums.of[e] = fmaf(dzr[first + i], of_w.of[i].of[e], sums.of[e]);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) sums.of[e] = of_x.of[e] > 0.0f ? sums.of[e] : 0.0f;
        sums.store(dx + (size_t)row.of_batch * K + k, inside);
    }
}

template <class Math, class Loss>
__device__ __forceinline__ void head(const Loss& loss, const Row& row, const float* x, const float* w, const float* b, float* dz,
                                     float* dx, float* losses, u32 mean, u32 K, u32 C) {
    if (!row.exists) return; // a whole warp
    if (aligned<4>(x, K) && aligned<4>(w, K) && aligned<4>(dx, K))
        row_of_head<Math, true>(loss, row, x, w, b, dz, dx, losses, mean, K, C);
    else
        row_of_head<Math, false>(loss, row, x, w, b, dz, dx, losses, mean, K, C);
}

#define KILN_HEAD_KERNEL extern "C" __global__ void __launch_bounds__(32 * ROWS, 4)
#define KILN_PLACE const u32 *order, const u32 *step, u32 slot, u32 batch
#define KILN_LAYER const float *x, const float *w, const float *b, float *dz, float *dx

#define KILN_HEAD(Math)                                                                                                      \
    KILN_HEAD_KERNEL head_softmax_cross_entropy(const u8* labels, KILN_PLACE, KILN_LAYER, float* losses, u32* hits, u32 mean, \
                                                u32 B, u32 K, u32 C) {                                                       \
        head<Math>(CrossEntropy{labels, hits}, Row(order, step, slot, batch, B), x, w, b, dz, dx, losses, mean, K, C);       \
    }                                                                                                                        \
    KILN_HEAD_KERNEL head_mse_labels(const u8* labels, KILN_PLACE, KILN_LAYER, float* losses, u32* hits, u32 mean, u32 B, u32 K, \
                                     u32 C) {                                                                                \
        head<Math>(OneHot{labels, hits}, Row(order, step, slot, batch, B), x, w, b, dz, dx, losses, mean, K, C);             \
    }                                                                                                                        \
    KILN_HEAD_KERNEL head_mse_values(const float* values, KILN_PLACE, KILN_LAYER, float* losses, u32 mean, u32 B, u32 K, u32 C) { \
        head<Math>(Values{values}, Row(order, step, slot, batch, B), x, w, b, dz, dx, losses, mean, K, C);                   \
    }
