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
// One warp a row, grid ceil(B / 4) blocks of 128 threads, no barrier of a block. C is 1 to 32; C K fits 32 bits. Weights come
// through the first-level cache, once for z and once for dx. Operands are rounded as Math says; products and sums are float32,
// of z lane by lane and then over the lanes, in an order that depends on K alone. Runs are equal bit for bit.
#pragma once
#include "losses.cuh"
#include "product.cuh"

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

// The outputs of a row into zr (C).
template <class Math>
__device__ __forceinline__ void outputs(const float* xr, const float* w, const float* b, float* zr, u32 K, u32 C) {
    const u32 lane = threadIdx.x % 32;
    for (u32 first = 0; first < C; first += GROUP) {
        float sums[GROUP] = {};
#pragma unroll 2
        for (u32 k = lane; k < K; k += 32) {
            const float x = Math::rounded(xr[k]);
#pragma unroll
            for (u32 i = 0; i < GROUP; i++) // beyond C: the last class again, for nothing
                sums[i] = fmaf(x, Math::rounded(w[min(first + i, C - 1) * K + k]), sums[i]);
        }
        float sum = sum_of_class<GROUP / 2>(sums);
        sum += __shfl_xor_sync(~0u, sum, GROUP);
        const u32 c = first + lane;
        if (lane < GROUP && c < C) zr[c] = sum + b[c];
    }
}

template <class Math, class Loss>
__device__ __forceinline__ void head(const Loss& loss, const Row& row, const float* x, const float* w, const float* b, float* dz,
                                     float* dx, float* losses, u32 mean, u32 K, u32 C) {
    if (!row.exists) return; // a whole warp
    __shared__ float rows[ROWS][CLASSES_MAX];
    float* zr = rows[threadIdx.x / 32]; // (C), of this warp alone
    const u32 lane = threadIdx.x % 32;
    const float* xr = x + (size_t)row.of_batch * K;

    outputs<Math>(xr, w, b, zr, K, C);
    __syncwarp();
    const float of_row = loss(row, zr, C, mean);
    if (lane == 0) losses[row.of_epoch] = of_row;
    if (lane < C) {
        dz[(size_t)row.of_batch * C + lane] = zr[lane];
        zr[lane] = Math::rounded(zr[lane]);
    }
    __syncwarp();
#pragma unroll 2
    for (u32 k = lane; k < K; k += 32) {
        float sum = 0.0f;
#pragma unroll 8
        for (u32 c = 0; c < C; c++) sum = fmaf(zr[c], Math::rounded(w[c * K + k]), sum);
        dx[(size_t)row.of_batch * K + k] = xr[k] > 0.0f ? sum : 0.0f;
    }
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
