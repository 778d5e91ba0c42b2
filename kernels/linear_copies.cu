//@ arch: sm_80
// Linear layers on bfloat16 copies (pipeline.cuh). Operands are bfloat16, sums float32.
//
//   linear_copies_hidden_<tile>     y (B, N) = bf16(relu(scale x (B, K) w (N, K)^T + b (N)))           a copy
//   linear_copies_outputs_<tile>    y (B, N) = scale x (B, K) w (N, K)^T + b (N)                       float32, without gaps
//   input_gradient_copies_<tile>    dx (B, K) = bf16(dz (B, N) w (N, K) where x (B, K) > 0, else 0)    a copy
//                                   parts (ceil(B / tile), K): sums of dx over the rows of each tile, before it is rounded
//
// x, w, dz, dx and the hidden y are copies; b and parts are float32. `scale` is 1/255 where x are pixels, which are whole
// numbers until the sum is complete. The parts are what the gradient of the layer's biases is made of: see
// weight_gradient_copies.cu.
//
// <tile>: 128, 64 or 32, its side. Grid: (ceil(B / tile), ceil(N / tile)); for the input gradient (ceil(B / tile), ceil(K / tile)).
// Threads: 128. Every output is written, nothing else is, gaps neither. Runs are equal bit for bit.
#include "pipeline.cuh"

struct Hidden {
    using Loaded = float;
    const float* bias;
    bf16* y;
    u32 N;
    float scale;
    __device__ __forceinline__ float load(u32, u32 n) const { return bias[n]; }
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const {
        const float z = fmaf(sum, scale, bias);
        // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
        y[m * pitch(N) + n] = __float2bfloat16_rn(z < 0.0f ? 0.0f : z);
    }
};

struct Outputs {
    using Loaded = float;
    const float* bias;
    float* y;
    u32 N;
    float scale;
    __device__ __forceinline__ float load(u32, u32 n) const { return bias[n]; }
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float bias) const { y[(size_t)m * N + n] = fmaf(sum, scale, bias); }
};

struct InputGradient {
    using Loaded = bf16;
    const bf16* x;
    bf16* dx;
    u32 K;
    float share; // of the sum of this thread's column
    __device__ __forceinline__ bf16 load(u32 m, u32 k) const { return x[m * pitch(K) + k]; }
    __device__ __forceinline__ void store(u32 m, u32 k, float sum, bf16 x) {
        const float gradient = __bfloat162float(x) > 0.0f ? sum : 0.0f;
        share += gradient;
        dx[m * pitch(K) + k] = __float2bfloat16_rn(gradient);
    }
};

template <class T, class Epilogue>
__device__ __forceinline__ void linear(const bf16* x, const bf16* w, u32 B, u32 K, u32 N, Epilogue epilogue) {
    const Place place;
    pipelined<T, CopyAlong<T, T::TM>, CopyAlong<T, T::TN>>(Copy{x, B, K}, Copy{w, N, K}, place.m * T::TM, place.n * T::TN, B, N, K,
                                                         epilogue);
}

template <class T>
__device__ __forceinline__ void input_gradient(const bf16* dz, const bf16* w, const bf16* x, bf16* dx, float* parts, u32 B, u32 K, u32 N) {
    const Place place;
    const u32 k0 = place.n * T::TN;
    InputGradient epilogue{x, dx, K, 0.0f};
    pipelined<T, CopyAlong<T, T::TM>, CopyAcross<T, T::TN>>(Copy{dz, B, N}, Copy{w, N, K}, place.m * T::TM, k0, B, K, N, epilogue);
    const float part = sum_of_column<T, T::TN>(epilogue.share);
    if (threadIdx.x < T::TN && k0 + threadIdx.x < K) parts[(size_t)place.m * K + k0 + threadIdx.x] = part;
}

#define KILN_LINEAR_COPIES(tile)                                                                                             \
    KILN_COPIES_KERNEL(Tile##tile)                                                                                           \
    linear_copies_hidden_##tile(const bf16* x, float scale, const bf16* w, const float* b, bf16* y, u32 B, u32 K, u32 N) {    \
        linear<Tile##tile>(x, w, B, K, N, Hidden{b, y, N, scale});                                                           \
    }                                                                                                                        \
    KILN_COPIES_KERNEL(Tile##tile)                                                                                           \
    linear_copies_outputs_##tile(const bf16* x, float scale, const bf16* w, const float* b, float* y, u32 B, u32 K, u32 N) {  \
        linear<Tile##tile>(x, w, B, K, N, Outputs{b, y, N, scale});                                                          \
    }                                                                                                                        \
    KILN_COPIES_KERNEL(Tile##tile)                                                                                           \
    input_gradient_copies_##tile(const bf16* dz, const bf16* w, const bf16* x, bf16* dx, float* parts, u32 B, u32 K, u32 N) { \
        input_gradient<Tile##tile>(dz, w, x, dx, parts, B, K, N);                                                            \
    }

KILN_LINEAR_COPIES(128)
KILN_LINEAR_COPIES(64)
KILN_LINEAR_COPIES(32)
