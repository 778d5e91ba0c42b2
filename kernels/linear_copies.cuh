// Linear layers on copies (pipeline.cuh). Operands are bf16 or tf32, sums float32. The kernels of one of them are made by
// KILN_LINEAR_COPIES(E).
//
//   linear_copies_hidden_<E>_<tile>     y (B, N) = E(relu(scale x (B, K) w (N, K)^T + b (N)))              a copy
//   linear_copies_outputs_<E>_<tile>    y (B, N) = scale x (B, K) w (N, K)^T + b (N)                       float32, without gaps
//   input_gradient_copies_<E>_<tile>    dx (B, K) = E(dz (B, N) w (N, K) where x (B, K) > 0, else 0)       a copy
//                                       parts (ceil(B / tile), K): sums of dx over the rows of each tile, before it is rounded
//
// x, w, dz, dx and the hidden y are copies; b and parts are float32. `scale` is 1/255 where x are pixels, which are whole
// numbers until the sum is complete. The parts are what the gradient of the layer's biases is made of: see
// weight_gradient_copies.cuh.
//
// <E>: bf16 or tf32. <tile>: 128, 64 or 32, its side (warpgroups.cuh has others). Grid: (ceil(B / tile), ceil(N / tile)); for the input gradient
// (ceil(B / tile), ceil(K / tile)). Threads: 128. Every output is written, nothing else is, gaps neither. Runs are equal bit for bit.
#pragma once
#include "pipeline.cuh"

// What outputs are made of, whoever stores them.
struct Affine {
    using Loaded = float;
    const float* bias;
    u32 N;
    float scale;
    __device__ __forceinline__ float load(u32, u32 n) const { return bias[n]; }
    __device__ __forceinline__ float output(float sum, float bias) const { return fmaf(sum, scale, bias); }
};

template <class E>
struct Hidden : Affine {
    E* y;
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const {
        const float z = output(sum, bias);
        // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
        y[m * pitch<E>(N) + n] = value_of<E>(z < 0.0f ? 0.0f : z);
    }
};

struct Outputs : Affine {
    float* y;
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const { y[(size_t)m * N + n] = output(sum, bias); }
};

template <class E>
struct InputGradient {
    using Loaded = E;
    const E* x;
    E* dx;
    u32 K;
    float share; // of the sum of this thread's column
    __device__ __forceinline__ E load(u32 m, u32 k) const { return x[m * pitch<E>(K) + k]; }
    __device__ __forceinline__ void store(u32 m, u32 k, float sum, E x) {
        const float gradient = (float)x > 0.0f ? sum : 0.0f;
        share += gradient;
        dx[m * pitch<E>(K) + k] = value_of<E>(gradient);
    }
};

template <class T, class E, class Epilogue>
__device__ __forceinline__ void linear(const E* x, const E* w, u32 B, u32 K, u32 N, Epilogue epilogue) {
    using P = Product<T, E>;
    const Place place;
    P::template tile<typename P::template Along<T::TM>, typename P::template Along<T::TN>>(
        Copy<E>{x, B, K}, Copy<E>{w, N, K}, place.m * T::TM, place.n * T::TN, B, N, K, epilogue);
}

template <class T, class E>
__device__ __forceinline__ void input_gradient(const E* dz, const E* w, const E* x, E* dx, float* parts, u32 B, u32 K, u32 N) {
    using P = Product<T, E>;
    const Place place;
    const u32 k0 = place.n * T::TN;
    InputGradient<E> epilogue{x, dx, K, 0.0f};
    P::template tile<typename P::template Along<T::TM>, typename P::template Across<T::TN>>(
        Copy<E>{dz, B, N}, Copy<E>{w, N, K}, place.m * T::TM, k0, B, K, N, epilogue);
    const float part = sum_of_column<T, T::TN>(epilogue.share);
    if (threadIdx.x < T::TN && k0 + threadIdx.x < K) parts[(size_t)place.m * K + k0 + threadIdx.x] = part;
}

#define KILN_LINEAR_COPIES_TILE(E, T, tile)                                                                                  \
    KILN_COPIES_KERNEL(T)                                                                                                    \
    linear_copies_hidden_##E##_##tile(const E* x, float scale, const E* w, const float* b, E* y, u32 B, u32 K, u32 N) {             \
        linear<T>(x, w, B, K, N, Hidden<E>{{b, N, scale}, y});                                                                 \
    }                                                                                                                        \
    KILN_COPIES_KERNEL(T)                                                                                                    \
    linear_copies_outputs_##E##_##tile(const E* x, float scale, const E* w, const float* b, float* y, u32 B, u32 K, u32 N) {        \
        linear<T>(x, w, B, K, N, Outputs{{b, N, scale}, y});                                                                   \
    }                                                                                                                        \
    KILN_COPIES_KERNEL(T)                                                                                                    \
    input_gradient_copies_##E##_##tile(const E* dz, const E* w, const E* x, E* dx, float* parts, u32 B, u32 K, u32 N) {             \
        input_gradient<T>(dz, w, x, dx, parts, B, K, N);                                                                     \
    }

#define KILN_LINEAR_COPIES(E)                 \
    KILN_LINEAR_COPIES_TILE(E, Tile128<E>, 128) \
    KILN_LINEAR_COPIES_TILE(E, Tile64<E>, 64)   \
    KILN_LINEAR_COPIES_TILE(E, Tile32<E>, 32)
