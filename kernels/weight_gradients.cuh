// Gradients of the parameters of linear layers, and the update by them in the same pass, of several layers in one launch. The
// kernels of one precision are made by KILN_WEIGHT_GRADIENTS(Math).
//
//   dw (N, K) = dz (B, N)^T x (B, K),  db (N) = sum of dz over the batch
//
//   weight_gradients_<from>_store_<tile>      writes dw, db
//   weight_gradients_<from>_add_<tile>        adds to dw, db what this part of a batch comes to
//   weight_gradients_<from>_descent_<tile>    p -= lr g                                      g: gradient + decay p
//   weight_gradients_<from>_momentum_<tile>   v = keep v + fresh g,  p -= lr (gshare g + vshare v)
//
// The last two never write the gradient. PyTorch's SGD is keep = momentum, fresh = 1 - dampening, (gshare, vshare) = (0, 1),
// or (1, momentum) with Nesterov; at the first step keep = 0 and fresh = 1. lr, keep and fresh are row *step + slot of
// `scalars`, in device memory, so that a schedule needs no new capture.
//
// A layer whose x is null reads the rows of the batch, gathered by its order, `pixels` or `floats` as <from> says; the others
// read the outputs (B, K) of the layer below. The order of the batch and `slot` are as in linear.cuh.
//
// Tiles of dw: `small` 32 x 32 with 128 threads, `large` 64 x 64 with 256. Grid: the sum of all layers' `blocks`, each
// ceil(K / tile) ceil(N / tile), of a layer's first all along K. The blocks of a layer's first column also sum db, in float32
// whatever Math is. Float32 in and out; products as Math says. Runs are equal bit for bit, and so are layers in one launch or
// in several.
//
// The w that a gradient at inputs needs must have been read before: those come first.
#pragma once
#include "product.cuh"
#include "scalars.cuh"

using Small = Tile<32, 32, 2, 2, 1, 32, 2>;

// A layer, and where its gradient goes: 64 bytes, described a second time by the launch wrapper.
struct Layer {
    const float* x;  // (B, K), or null
    const float* dz; // (B, N)
    float *w, *b;    // parameters or gradients, (N, K) and (N)
    float *vw, *vb;  // velocities, for `momentum` alone
    u32 K, N, blocks, unused;
};

constexpr int LAYERS_MAX = 8;

struct Layers {
    Layer at[LAYERS_MAX];
};

struct Store {
    __device__ void operator()(float* p, float*, float g) const { *p = g; }
};

struct Add {
    __device__ void operator()(float* p, float*, float g) const { *p += g; }
};

struct Descent {
    float lr, decay;
    __device__ void operator()(float* p, float*, float g) const { *p = fmaf(-lr, fmaf(decay, *p, g), *p); }
};

struct Momentum {
    Scalars s;
    float decay, gshare, vshare;
    __device__ void operator()(float* p, float* v, float g) const {
        g = fmaf(decay, *p, g);
        const float moved = *v = fmaf(s.keep, *v, s.fresh * g);
        *p = fmaf(-s.lr, fmaf(vshare, moved, gshare * g), *p);
    }
};

template <class T, class Math, class E, class Sink>
__device__ __forceinline__ void weight_gradients(const E* data, const u32* order, float scale, const Layers& layers, const Sink& sink,
                                                 u32 B) {
    u32 block = blockIdx.x;
    const Layer* of = layers.at;
    for (; block >= of->blocks; of++) block -= of->blocks;
    const Layer& layer = *of;
    const u32 K = layer.K, N = layer.N, columns = (K + T::TN - 1) / T::TN;
    const u32 n0 = block / columns * T::TM, k0 = block % columns * T::TN;

    const bool gathered = layer.x == nullptr;
    if (!gathered) scale = 1.0f;
    const GatheredLines<E> rows{data, order, B, K};
    const Lines<float> hidden{layer.x, B, K};
    const Either<GatheredLines<E>, Lines<float>> x{rows, hidden, gathered, B, K};

    using SA = AcrossTerms<T, typename Math::Staged, T::TM>;
    __shared__ float shares[2 * T::THREADS];
    // Of db: every STEP-th row of the batch, for the two units that this thread stages.
    float share[2] = {};
    auto staging = [&](const float (&held)[SA::LOADS]) {
#pragma unroll
        for (int i = 0; i < SA::LOADS; i++) share[i % 2] += held[i];
    };
    product<T, Math, SA, AcrossTerms<T, typename Math::Staged, T::TN>>(
        Lines<float>{layer.dz, B, N}, x, n0, k0, B, staging, [&](int i, int j, float sum) {
            const u32 n = n0 + i, k = k0 + j;
            const size_t at = (size_t)n * K + k;
            if (n < N && k < K) sink(layer.w + at, layer.vw + at, sum * scale);
        });
    if (k0 != 0) return; // the whole block
    shares[2 * threadIdx.x] = share[0];
    shares[2 * threadIdx.x + 1] = share[1];
    __syncthreads();
    const u32 n = n0 + threadIdx.x;
    if (threadIdx.x >= T::TM || n >= N) return;
    float db = 0.0f;
#pragma unroll
    for (int i = 0; i < SA::STEP; i++) db += shares[threadIdx.x + i * T::TM];
    sink(layer.b + n, layer.vb + n, db);
}

// The sinks, where the rows of a batch are of type E and SCALE is what their products lack.
#define KILN_WEIGHT_GRADIENTS_FROM(Math, T, tile, from, E, SCALE)                                                            \
    KILN_KERNEL(T) weight_gradients_##from##_store_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers, u32 B) {     \
        weight_gradients<T, Math>(data, KILN_ORDER, SCALE, layers, Store(), B);                                              \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradients_##from##_add_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers, u32 B) {       \
        weight_gradients<T, Math>(data, KILN_ORDER, SCALE, layers, Add(), B);                                                \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradients_##from##_descent_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers,            \
                                                            const Scalars* scalars, float decay, u32 B) {                    \
        const Descent sink{scalars[*step + slot].lr, decay};                                                                 \
        weight_gradients<T, Math>(data, KILN_ORDER, SCALE, layers, sink, B);                                                 \
    }                                                                                                                        \
    KILN_KERNEL(T) weight_gradients_##from##_momentum_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers,           \
                                                             const Scalars* scalars, float decay, float gshare, float vshare, \
                                                             u32 B) {                                                        \
        const Momentum sink{scalars[*step + slot], decay, gshare, vshare};                                                   \
        weight_gradients<T, Math>(data, KILN_ORDER, SCALE, layers, sink, B);                                                 \
    }

#define KILN_WEIGHT_GRADIENTS_TILE(Math, T, tile)                        \
    KILN_WEIGHT_GRADIENTS_FROM(Math, T, tile, pixels, u8, PIXEL)         \
    KILN_WEIGHT_GRADIENTS_FROM(Math, T, tile, floats, float, 1.0f)

#define KILN_WEIGHT_GRADIENTS(Math)               \
    KILN_WEIGHT_GRADIENTS_TILE(Math, Small, small) \
    KILN_WEIGHT_GRADIENTS_TILE(Math, Large, large)
