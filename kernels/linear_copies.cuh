// Linear layers on copies (pipeline.cuh) in bf16, tf32 or bf16x3; sums are float32. The kernels of a format are made by
// KILN_LINEAR_COPIES(E).
//
//   linear_copies_hidden_<E>_<tile>     y (B, N) = E(relu(scale x (B, K) w (N, K)^T + b (N)))              a copy
//   linear_copies_outputs_<E>_<tile>    y (B, N) = scale x (B, K) w (N, K)^T + b (N)                       float32, without gaps
//   input_gradient_copies_<E>_<tile>    dx (B, K) = E(dz (B, N) w (N, K) where x (B, K) > 0, else 0)       a copy
//                                       parts (ceil(B / tile), K): sums of dx over the rows of each tile, before it is rounded
//
// x, w, dz, dx and the hidden y are copies; b and parts are float32. `scale` is 1/255 where x are pixels, which are whole
// numbers until the sum is complete, and `planes` is how many of x are not zero: all of its format, or one of pixels. The parts are
// what the gradient of the layer's biases is made of: see weight_gradient_copies.cuh.
//
// <E>: bf16, tf32 or bf16x3. <tile>: 128, 64 or 32, its side (warpgroups.cuh has others). Grid: (ceil(B / tile), ceil(N / tile)); for
// the input gradient (ceil(B / tile), ceil(K / tile)). Threads: 128. Every output is written, nothing else is, gaps neither. Runs are
// equal bit for bit.
#pragma once
#include "pipeline.cuh"

// What outputs are made of, whoever stores them.
struct Affine {
    using Loaded = float;
    static constexpr bool OF_COLUMN = true;
    const float* bias;
    float scale;
    __device__ __forceinline__ float load(u32, u32 n) const { return bias[n]; }
    __device__ __forceinline__ float output(float sum, float bias) const { return fmaf(sum, scale, bias); }
};

template <class E>
struct Hidden : Affine {
    NewCopy<E> y;
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const {
        const float z = output(sum, bias);
        // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
        y.put(m, n, z < 0.0f ? 0.0f : z);
    }
};

struct Outputs : Affine {
    float* y;
    u32 N;
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const { y[(size_t)m * N + n] = output(sum, bias); }
};

template <class E>
struct InputGradient {
    using Loaded = Value<E>; // the first plane of x: above zero where x is, but for what rounds to zero
    static constexpr bool OF_COLUMN = false;
    Copy<E> x;
    NewCopy<E> dx;
    float share; // of the sum of this thread's column
    __device__ __forceinline__ Loaded load(u32 m, u32 k) const { return x.line(m)[k]; }
    __device__ __forceinline__ void store(u32 m, u32 k, float sum, Loaded x) {
        const float gradient = (float)x > 0.0f ? sum : 0.0f;
        share += gradient;
        dx.put(m, k, gradient);
    }
};

template <class T, class E, class Epilogue>
__device__ __forceinline__ void linear(const Copy<E>& x, const Copy<E>& w, Epilogue epilogue) {
    using P = Product<T, E>;
    const Place place;
    P::template tile<typename P::template Along<T::TM>, typename P::template Along<T::TN>>(
        x, w, place.m * T::TM, place.n * T::TN, x.lines, w.lines, x.width, epilogue);
}

template <class T, class E>
__device__ __forceinline__ void input_gradient(const Copy<E>& dz, const Copy<E>& w, InputGradient<E> epilogue, float* parts) {
    using P = Product<T, E>;
    const Place place;
    const u32 k0 = place.n * T::TN, K = w.width;
    P::template tile<typename P::template Along<T::TM>, typename P::template Across<T::TN>>(
        dz, w, place.m * T::TM, k0, dz.lines, K, dz.width, epilogue);
    const float part = sum_of_column<T, T::TN>(epilogue.share);
    if (threadIdx.x < T::TN && k0 + threadIdx.x < K) parts[(size_t)place.m * K + k0 + threadIdx.x] = part;
}

#define KILN_INPUT(E) const Value<E> *x, u32 planes, float scale

#define KILN_LINEAR_COPIES_TILE(E, T, tile)                                                                                  \
    KILN_KERNEL(T)                                                                                                           \
    linear_copies_hidden_##E##_##tile(KILN_INPUT(E), const Value<E>* w, const float* b, Value<E>* y, u32 B, u32 K, u32 N) {  \
        linear<T>(Copy<E>{x, B, K, planes}, Copy<E>{w, N, K}, Hidden<E>{{b, scale}, {y, B, N}});                             \
    }                                                                                                                        \
    KILN_KERNEL(T)                                                                                                           \
    linear_copies_outputs_##E##_##tile(KILN_INPUT(E), const Value<E>* w, const float* b, float* y, u32 B, u32 K, u32 N) {    \
        linear<T>(Copy<E>{x, B, K, planes}, Copy<E>{w, N, K}, Outputs{{b, scale}, y, N});                                    \
    }                                                                                                                        \
    KILN_KERNEL(T)                                                                                                           \
    input_gradient_copies_##E##_##tile(const Value<E>* dz, const Value<E>* w, const Value<E>* x, Value<E>* dx, float* parts, \
                                       u32 B, u32 K, u32 N) {                                                                \
        input_gradient<T>(Copy<E>{dz, B, N}, Copy<E>{w, N, K}, InputGradient<E>{{x, B, K}, {dx, B, K}, 0.0f}, parts);        \
    }

#define KILN_LINEAR_COPIES(E)                 \
    KILN_LINEAR_COPIES_TILE(E, Tile128<E>, 128) \
    KILN_LINEAR_COPIES_TILE(E, Tile64<E>, 64)   \
    KILN_LINEAR_COPIES_TILE(E, Tile32<E>, 32)
