// Gradients of a linear layer's parameters, and the update by them in the same pass. The kernels of one precision are made
// by KILN_WEIGHT_GRADIENT(Math).
//
//   dw (N, K) = dz (B, N)^T x (B, K),  db (N) = sum of dz over the batch
//
//   weight_gradient_<from>_store_<tile>      writes dw, db; parameters stay
//   weight_gradient_<from>_add_<tile>        adds to dw, db what this part of a batch comes to
//   weight_gradient_<from>_descent_<tile>    p -= lr g                                      g: gradient + decay p
//   weight_gradient_<from>_momentum_<tile>   v = keep v + fresh g,  p -= lr (gshare g + vshare v)
//
// The last two never write the gradient. PyTorch's SGD is keep = momentum, fresh = 1 - dampening, (gshare, vshare) = (0, 1),
// or (1, momentum) with Nesterov; at the first step keep = 0 and fresh = 1. lr, keep and fresh are row *step + slot of
// `scalars`, in device memory, so that a schedule needs no new capture.
//
// <from>, the order of the batch and `slot` are as in linear.cuh. Tiles of dw: `small` 32 x 32 with 128 threads, `large` 64 x 64
// with 256. Grid: (ceil(K / tile), ceil(N / tile)). The blocks of the first column also sum db, in float32 whatever
// Math is.
// Float32 in and out; products as Math says. Parameters of other layers are not touched; runs are equal bit for bit.
//
// x of this layer and w of the layer above must have been read before: the gradient at the inputs comes first.
#pragma once
#include "product.cuh"
#include "scalars.cuh"

using Small = Tile<32, 32, 2, 2, 1, 32>;

struct Store {
    float *dw, *db;
    __device__ void operator()(bool bias, size_t at, float g) const { (bias ? db : dw)[at] = g; }
};

struct Add {
    float *dw, *db;
    __device__ void operator()(bool bias, size_t at, float g) const { (bias ? db : dw)[at] += g; }
};

struct Descent {
    float *w, *b, lr, decay;
    __device__ void operator()(bool bias, size_t at, float g) const {
        float* p = (bias ? b : w) + at;
        *p -= lr * fmaf(decay, *p, g);
    }
};

struct Momentum {
    float *w, *b, *vw, *vb;
    Scalars s;
    float decay, gshare, vshare;
    __device__ void operator()(bool bias, size_t at, float g) const {
        float* p = (bias ? b : w) + at;
        float* v = (bias ? vb : vw) + at;
        g = fmaf(decay, *p, g);
        const float moved = *v = fmaf(s.keep, *v, s.fresh * g);
        *p -= s.lr * fmaf(vshare, moved, gshare * g);
    }
};

template <class T, class Math, class X, class Sink>
__device__ __forceinline__ void weight_gradient(const X& x, float scale, const float* dz, const Sink& sink, u32 B, u32 K, u32 N) {
    using E = typename Math::Staged;
    using SA = AcrossTerms<T, E, T::TM>;
    __shared__ float shares[2 * T::THREADS];
    const u32 n0 = blockIdx.y * T::TM, k0 = blockIdx.x * T::TN;
    // Of db: every STEP-th row of the batch, for the two units that this thread stages.
    float share[2] = {};
    auto staging = [&](const float (&held)[SA::LOADS]) {
#pragma unroll
        for (int i = 0; i < SA::LOADS; i++) share[i % 2] += held[i];
    };
    product<T, Math, SA, AcrossTerms<T, E, T::TN>>(Lines<float>{dz, B, N}, x, n0, k0, B, staging, [&](int i, int j, float sum) {
        const u32 n = n0 + i, k = k0 + j;
        if (n < N && k < K) sink(false, (size_t)n * K + k, sum * scale);
    });
    if (blockIdx.x != 0) return; // the whole block
    shares[2 * threadIdx.x] = share[0];
    shares[2 * threadIdx.x + 1] = share[1];
    __syncthreads();
    if (threadIdx.x >= T::TM || n0 + threadIdx.x >= N) return;
    float db = 0.0f;
#pragma unroll
    for (int i = 0; i < SA::STEP; i++) db += shares[threadIdx.x + i * T::TM];
    sink(true, n0 + threadIdx.x, db);
}

// The sinks of one source of x. INPUT are the parameters that name x, X makes it, SCALE is what its products lack.
#define KILN_WEIGHT_GRADIENT_FROM(Math, T, tile, from, X, SCALE, ...)                                                        \
    KILN_KERNEL(T) weight_gradient_##from##_store_##tile(__VA_ARGS__, const float* dz, float* dw, float* db, u32 B, u32 K, u32 N) { \
        weight_gradient<T, Math>(X, SCALE, dz, Store{dw, db}, B, K, N);                                                      \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradient_##from##_add_##tile(__VA_ARGS__, const float* dz, float* dw, float* db, u32 B, u32 K, u32 N) { \
        weight_gradient<T, Math>(X, SCALE, dz, Add{dw, db}, B, K, N);                                                        \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradient_##from##_descent_##tile(__VA_ARGS__, const float* dz, float* w, float* b, const Scalars* scalars, \
                                                           float decay, u32 B, u32 K, u32 N) {                               \
        weight_gradient<T, Math>(X, SCALE, dz, Descent{w, b, scalars[*step + slot].lr, decay}, B, K, N);                     \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradient_##from##_momentum_##tile(__VA_ARGS__, const float* dz, float* w, float* b, float* vw, float* vb, \
                                                            const Scalars* scalars, float decay, float gshare, float vshare, \
                                                            u32 B, u32 K, u32 N) {                                           \
        const Momentum sink{w, b, vw, vb, scalars[*step + slot], decay, gshare, vshare};                                     \
        weight_gradient<T, Math>(X, SCALE, dz, sink, B, K, N);                                                               \
    }

#define KILN_HIDDEN Lines<float>{x, B, K}

#define KILN_WEIGHT_GRADIENT_TILE(Math, T, tile)                                                                             \
    KILN_WEIGHT_GRADIENT_FROM(Math, T, tile, pixels, KILN_GATHERED(u8), PIXEL, KILN_BATCH(u8))                               \
    KILN_WEIGHT_GRADIENT_FROM(Math, T, tile, floats, KILN_GATHERED(float), 1.0f, KILN_BATCH(float))                          \
    KILN_WEIGHT_GRADIENT_FROM(Math, T, tile, hidden, KILN_HIDDEN, 1.0f, const float *x, const u32 *step, u32 slot)

#define KILN_WEIGHT_GRADIENT(Math)               \
    KILN_WEIGHT_GRADIENT_TILE(Math, Small, small) \
    KILN_WEIGHT_GRADIENT_TILE(Math, Large, large)
