// Linear layers: outputs, and gradients at the inputs. The kernels of one precision are made by KILN_LINEAR(Math).
//
//   linear_<from>[_relu]_<tile>    y (B, N) = x (B, K) w (N, K)^T + b (N), then max(y, 0) with relu
//   input_gradient_<tile>          dx (B, K) = dz (B, N) w (N, K) where x (B, K) > 0, else 0
//
// <from> says what x is: `pixels` (samples, K) u8, which stand for pixel / 255, or `floats` (samples, K), both gathered by
// the order of the batch; or `hidden` (B, K), the outputs of the layer below. Pixels are whole numbers and stay so until
// the sum is complete, which is then multiplied by 1/255.
//
// The batch: rows order[(*step + slot) * batch ..][..B]. B may be smaller than `batch`: a tail. `step` lies in device memory,
// so that a captured launch can be replayed for another batch.
//
// <tile>: `small` makes 16 x 16 outputs with eight warps that share the sum, for small batches; `tiny` 8 x 8, in float32 alone, for
// those that would leave multiprocessors idle: it is the number of instructions that takes time; `large` 64 x 64.
// Grid: (ceil(B / tile), ceil(N / tile)); for the input gradient (ceil(B / tile), ceil(K / tile)). Threads: 256. No dynamic
// shared memory. Float32 in and out; products as Math says, sums in float32 (NUMERICS.md). Every output is written, nothing
// else is. Runs are equal bit for bit.
#pragma once
#include "product.cuh"

using Tiny = Tile<8, 8, 1, 1, 8, 16, 2>;
using Small = Tile<16, 16, 1, 1, 8, 16, 2>;

template <class T, class Math, bool RELU, class X>
__device__ __forceinline__ void linear(const X& x, float scale, const float* w, const float* bias, float* y, u32 B, u32 K, u32 N) {
    const u32 m0 = blockIdx.x * T::TM, n0 = blockIdx.y * T::TN;
    using E = typename Math::Staged;
    product<T, Math, AlongTerms<T, E, T::TM>, AlongTerms<T, E, T::TN>>(
        x, Lines<float>{w, N, K}, m0, n0, K, Nothing(), [&](int i, int j, float sum) {
            const u32 m = m0 + i, n = n0 + j;
            if (m >= B || n >= N) return;
            const float z = fmaf(sum, scale, bias[n]);
            // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
            y[(size_t)m * N + n] = RELU && z < 0.0f ? 0.0f : z;
        });
}

template <class T, class Math>
__device__ __forceinline__ void input_gradient(const float* dz, const float* w, const float* x, float* dx, u32 B, u32 K, u32 N) {
    const u32 m0 = blockIdx.x * T::TM, k0 = blockIdx.y * T::TN;
    using E = typename Math::Staged;
    product<T, Math, AlongTerms<T, E, T::TM>, AcrossTerms<T, E, T::TN>>(
        Lines<float>{dz, B, N}, Lines<float>{w, N, K}, m0, k0, N, Nothing(), [&](int i, int j, float sum) {
            const u32 m = m0 + i, k = k0 + j;
            if (m >= B || k >= K) return;
            const size_t at = (size_t)m * K + k;
            dx[at] = x[at] > 0.0f ? sum : 0.0f;
        });
}

#define KILN_LINEAR_OUTPUTS(Math, T, tile, relu, RELU)                                                                       \
    KILN_KERNEL(T) linear_pixels##relu##_##tile(KILN_BATCH(u8), const float* w, const float* b, float* y, u32 B, u32 K, u32 N) { \
        linear<T, Math, RELU>(KILN_GATHERED(u8), PIXEL, w, b, y, B, K, N);                                                   \
    }                                                                                                                        \
    KILN_KERNEL(T) linear_floats##relu##_##tile(KILN_BATCH(float), const float* w, const float* b, float* y, u32 B, u32 K, u32 N) { \
        linear<T, Math, RELU>(KILN_GATHERED(float), 1.0f, w, b, y, B, K, N);                                                 \
    }                                                                                                                        \
    KILN_KERNEL(T) linear_hidden##relu##_##tile(const float* x, const float* w, const float* b, float* y, u32 B, u32 K, u32 N) { \
        linear<T, Math, RELU>(Lines<float>{x, B, K}, 1.0f, w, b, y, B, K, N);                                                \
    }

#define KILN_LINEAR_TILE(Math, T, tile)                                                                                      \
    KILN_LINEAR_OUTPUTS(Math, T, tile, , false)                                                                              \
    KILN_LINEAR_OUTPUTS(Math, T, tile, _relu, true)                                                                          \
    KILN_KERNEL(T) input_gradient_##tile(const float* dz, const float* w, const float* x, float* dx, u32 B, u32 K, u32 N) {   \
        input_gradient<T, Math>(dz, w, x, dx, B, K, N);                                                                      \
    }

#define KILN_LINEAR(Math)               \
    KILN_LINEAR_TILE(Math, Small, small) \
    KILN_LINEAR_TILE(Math, Large, large)
