//@ arch: sm_80
// What a training step needs beside cuBLASLt's products: rows of a batch, loss and its gradient, sums that an epilogue did not make,
// and the update. Plain kernels; T is float or bf16, the type of a product's operands.
//
// B rows of a batch; K, N columns as a matrix holds them, padded with zeros to a multiple of 16; C classes. Row r of a batch is
// sample order[*step * batch + r]. Nothing here adds floats atomically, so that a run can be repeated bit for bit.
#include <cuda_bf16.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef __nv_bfloat16 bf16;

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(bf16* to, float x) { *to = __float2bfloat16_rn(x); }

// x (B, K) = pixels / 255, zero from column `width` on. One block a row.
template <typename T>
__device__ void gather(const u8* pixels, const u32* order, const u32* step, u32 batch, u32 width, T* x, u32 K) {
    const u8* row = pixels + (size_t)order[(size_t)*step * batch + blockIdx.x] * width;
    for (u32 k = threadIdx.x; k < K; k += blockDim.x) store(&x[(size_t)blockIdx.x * K + k], k < width ? row[k] / 255.0f : 0.0f);
}

// dz (B, N) = (softmax(z) - onehot(label)) / B, zero from column C on. One thread a row; each block leaves the sum of its rows'
// losses / B in losses[*step * places + block].
template <typename T>
__device__ void loss(const float* z, const u8* labels, const u32* order, const u32* step, u32 batch, T* dz, float* losses, u32 places,
                     u32 B, u32 C, u32 N) {
    const u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    float mine = 0.0f;
    if (r < B) {
        const float* zr = z + (size_t)r * N; // (C)
        T* dzr = dz + (size_t)r * N;
        const u32 label = labels[order[(size_t)*step * batch + r]];
        float high = zr[0], sum = 0.0f;
        for (u32 c = 1; c < C; c++) high = fmaxf(high, zr[c]);
        for (u32 c = 0; c < C; c++) sum += expf(zr[c] - high);
        const float scale = 1.0f / ((float)B * sum), mean = 1.0f / (float)B;
        for (u32 c = 0; c < C; c++) store(&dzr[c], expf(zr[c] - high) * scale - (c == label ? mean : 0.0f));
        for (u32 c = C; c < N; c++) store(&dzr[c], 0.0f);
        mine = (logf(sum) + (high - zr[label])) * mean;
    }
    for (u32 far = 16; far > 0; far /= 2) mine += __shfl_xor_sync(~0u, mine, far);
    __shared__ float warps[32];
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0.0f;
        for (u32 w = 0; w < blockDim.x / 32; w++) all += warps[w];
        losses[(size_t)*step * places + blockIdx.x] = all;
    }
}

// d is zero where the activation h is. One thread an element; both have `count`.
template <typename T>
__device__ void relu_backward(T* d, const T* h, u32 count) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && !(number(h[i]) > 0.0f)) store(&d[i], 0.0f);
}

// sums (N) of the columns of d (B, N). Blocks of 16 columns x 64 rows, grid N / 16.
template <typename T>
__device__ void column_sums(const T* d, float* sums, u32 B, u32 N) {
    const u32 n = blockIdx.x * 16 + threadIdx.x;
    float mine = 0.0f;
#pragma unroll 8
    for (u32 r = threadIdx.y; r < B; r += 64) mine += number(d[(size_t)r * N + n]);
    __shared__ float rows[64][16];
    rows[threadIdx.y][threadIdx.x] = mine;
    for (u32 half = 32; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) rows[threadIdx.y][threadIdx.x] += rows[threadIdx.y + half][threadIdx.x];
    }
    if (threadIdx.y == 0) sums[n] = rows[0][threadIdx.x];
}

// SGD on all parameters p, first the weights, then the biases: p -= lr v. The velocities v of the weights are what the products
// have made of them; for the biases v = momentum v + g, where g lies in `low_gradients` for the first `low_count` biases and in
// `gradients` for the others. `low` gets p as T where that is not float. Moves the step on. One thread four values.
template <typename T>
__device__ void update(float4* p, float4* v, T* low, const T* low_gradients, const float* gradients, u32* step, u32 weights, u32 count,
                       u32 low_count, float lr, float momentum) {
    const u32 quad = blockIdx.x * blockDim.x + threadIdx.x, i = quad * 4;
    if (quad == 0) *step += 1;
    if (i >= count) return;
    float4 velocity = v[quad], parameter = p[quad];
    if (i >= weights) {
        const u32 at = i - weights;
        auto next = [&](float old, u32 j) { return momentum * old + (j < low_count ? number(low_gradients[j]) : gradients[j]); };
        velocity = {next(velocity.x, at), next(velocity.y, at + 1), next(velocity.z, at + 2), next(velocity.w, at + 3)};
        v[quad] = velocity;
    }
    parameter.x -= lr * velocity.x;
    parameter.y -= lr * velocity.y;
    parameter.z -= lr * velocity.z;
    parameter.w -= lr * velocity.w;
    p[quad] = parameter;
    if constexpr (sizeof(T) != sizeof(float)) {
        __nv_bfloat162* to = (__nv_bfloat162*)(low + i);
        to[0] = __floats2bfloat162_rn(parameter.x, parameter.y);
        to[1] = __floats2bfloat162_rn(parameter.z, parameter.w);
    }
}

// hits += rows of the batch, of samples below `total`, whose largest of C outputs, the first of equals, is the label's.
extern "C" __global__ void count_hits(const float* z, const u8* labels, const u32* step, u32 batch, u32 total, u32* hits, u32 C, u32 N) {
    const u32 r = blockIdx.x * blockDim.x + threadIdx.x, sample = *step * batch + r;
    bool hit = false;
    if (r < batch && sample < total) {
        const float* zr = z + (size_t)r * N;
        u32 best = 0;
        for (u32 c = 1; c < C; c++) best = zr[c] > zr[best] ? c : best;
        hit = best == labels[sample];
    }
    const int found = __syncthreads_count(hit);
    if (threadIdx.x == 0) atomicAdd(hits, (u32)found);
}

#define KERNELS(T)                                                                                                                     \
    extern "C" __global__ void gather_##T(const u8* pixels, const u32* order, const u32* step, u32 batch, u32 width, T* x, u32 K) {    \
        gather<T>(pixels, order, step, batch, width, x, K);                                                                            \
    }                                                                                                                                  \
    extern "C" __global__ void loss_##T(const float* z, const u8* labels, const u32* order, const u32* step, u32 batch, T* dz,         \
                                        float* losses, u32 places, u32 B, u32 C, u32 N) {                                              \
        loss<T>(z, labels, order, step, batch, dz, losses, places, B, C, N);                                                           \
    }                                                                                                                                  \
    extern "C" __global__ void relu_backward_##T(T* d, const T* h, u32 count) { relu_backward<T>(d, h, count); }                       \
    extern "C" __global__ void __launch_bounds__(1024) column_sums_##T(const T* d, float* sums, u32 B, u32 N) {                        \
        column_sums<T>(d, sums, B, N);                                                                                                 \
    }                                                                                                                                  \
    extern "C" __global__ void update_##T(float4* p, float4* v, T* low, const T* low_gradients, const float* gradients, u32* step,     \
                                          u32 weights, u32 count, u32 low_count, float lr, float momentum) {                           \
        update<T>(p, v, low, low_gradients, gradients, step, weights, count, low_count, lr, momentum);                                 \
    }

KERNELS(float)
KERNELS(bf16)
