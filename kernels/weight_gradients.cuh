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
// Tiles of dw: `small` 16 x 32 with 128 threads (direct.cuh), `large` 64 x 64 with 256 (product.cuh). Grid: the sum of all layers'
// `blocks`, each ceil(K / columns of the tile) ceil(N / its rows), of a layer's first all along K. The blocks of a layer's first
// column also sum db, in float32 whatever Math is. Float32 in and out; products as Math says. Runs are equal bit for bit, and so are layers in one launch or
// in several.
//
// The w that a gradient at inputs needs must have been read before: those come first.
#pragma once
#include "direct.cuh"
#include "scalars.cuh"

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

// What becomes of a gradient: parameter and velocity from those before, of which the first READS are read. `ready` loads what all have in
// common.
struct Store {
    static constexpr int READS = 0;
    __device__ void ready() {}
    __device__ float2 operator()(float, float, float g) const { return make_float2(g, 0.0f); }
};

struct Add {
    static constexpr int READS = 1;
    __device__ void ready() {}
    __device__ float2 operator()(float p, float, float g) const { return make_float2(p + g, 0.0f); }
};

// The scalars of the step.
struct OfStep {
    const Scalars* scalars;
    const u32* step;
    u32 slot;
    Scalars s;
    __device__ void ready() { s = scalars[*step + slot]; }
};

struct Descent : OfStep {
    static constexpr int READS = 1;
    float decay;
    __device__ Descent(const OfStep& of_step, float decay) : OfStep(of_step), decay(decay) {}
    __device__ float2 operator()(float p, float, float g) const { return make_float2(fmaf(-s.lr, fmaf(decay, p, g), p), 0.0f); }
};

struct Momentum : OfStep {
    static constexpr int READS = 2;
    float decay, gshare, vshare;
    __device__ Momentum(const OfStep& of_step, float decay, float gshare, float vshare)
        : OfStep(of_step), decay(decay), gshare(gshare), vshare(vshare) {}
    __device__ float2 operator()(float p, float v, float g) const {
        g = fmaf(decay, p, g);
        const float moved = fmaf(s.keep, v, s.fresh * g);
        return make_float2(fmaf(-s.lr, fmaf(vshare, moved, gshare * g), p), moved);
    }
};

// Neighbouring parameters, and their velocities where the sink has any: they can be loaded before there is a gradient.
template <class Sink, int N, bool TOGETHER>
struct Parameters {
    float *p, *v;
    u32 inside;
    Held<float, N, TOGETHER> of_p, of_v;

    __device__ __forceinline__ Parameters(float* p, float* v, u32 inside) : p(p), v(v), inside(inside) {}
    __device__ __forceinline__ void load() {
        if constexpr (Sink::READS > 0) of_p.load(p, inside);
        if constexpr (Sink::READS > 1) of_v.load(v, inside);
    }
    __device__ __forceinline__ void update(const Sink& sink, const float (&g)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float2 moved = sink(of_p.of[i], of_v.of[i], g[i]);
            of_p.of[i] = moved.x;
            of_v.of[i] = moved.y;
        }
        of_p.store(p, inside);
        if constexpr (Sink::READS > 1) of_v.store(v, inside);
    }
};
template <class Sink>
using Parameter = Parameters<Sink, 1, false>;

// The layer of this block, and the place of its tile there, of ROWS x COLUMNS.
struct Place {
    const Layer* layer;
    u32 n, k;

    __device__ __forceinline__ Place(const Layers& layers, u32 rows, u32 columns) : layer(layers.at) {
        u32 block = blockIdx.x;
        for (; block >= layer->blocks; layer++) block -= layer->blocks;
        const u32 across = (layer->K + columns - 1) / columns;
        n = block / across * rows;
        k = block % across * columns;
    }
};

// A sink as the end of a product.
template <class Sink>
struct Weights {
    using Loaded = float2; // parameter, velocity
    static constexpr bool OF_COLUMN = false;
    const Layer& layer;
    const Sink& sink;
    float scale;
    __device__ __forceinline__ size_t at(u32 n, u32 k) const { return (size_t)n * layer.K + k; }
    __device__ __forceinline__ float2 load(u32 n, u32 k) const {
        return make_float2(Sink::READS > 0 ? layer.w[at(n, k)] : 0.0f, Sink::READS > 1 ? layer.vw[at(n, k)] : 0.0f);
    }
    __device__ __forceinline__ void store(u32 n, u32 k, float sum, float2 old) const {
        const float2 moved = sink(old.x, old.y, sum * scale);
        layer.w[at(n, k)] = moved.x;
        if (Sink::READS > 1) layer.vw[at(n, k)] = moved.y;
    }
};

template <class Math>
struct LargeTile {
    using T = Large;
    static constexpr int THREADS = T::THREADS, BLOCKS = 2;
    using A = AcrossTerms<T, typename Math::Staged, T::TM>;
    struct Memory {
        DoubleBuffer<T, Math, A, AcrossTerms<T, typename Math::Staged, T::TN>> stages;
        float shares[4 * THREADS]; // of db
    };

    template <class X, class Sink>
    static __device__ __forceinline__ void tile(Memory& memory, const X& x, float scale, const Layer& layer, u32 n0, u32 k0, Sink& sink) {
        const u32 K = layer.K, N = layer.N, B = x.lines;
        // Of db: every STEP-th row of the batch, for the four units that this thread stages.
        float share[4] = {};
        const auto seen = [&](const float(&v)[4]) {
#pragma unroll
            for (int i = 0; i < 4; i++) share[i] += v[i];
        };
        product(memory.stages, Lines<float>{layer.dz, B, N}, x, n0, k0, N, K, B, seen, Weights<Sink>{layer, sink, scale});
        if (k0 != 0) return; // the whole block
#pragma unroll
        for (int i = 0; i < 4; i++) memory.shares[4 * threadIdx.x + i] = share[i];
        __syncthreads();
        const u32 n = n0 + threadIdx.x;
        if (threadIdx.x >= T::TM || n >= N) return;
        float db = 0.0f;
#pragma unroll
        for (int i = 0; i < A::STEP; i++) db += memory.shares[threadIdx.x + i * T::TM];
        Parameter<Sink> bias(layer.b + n, layer.vb + n, 1);
        bias.load();
        bias.update(sink, {db});
    }

    template <class E, class Sink>
    static __device__ __forceinline__ void gradients(const BatchLines<E>& rows, float scale, const Layers& layers, Sink sink) {
        __shared__ Memory memory;
        sink.ready();
        const Place place(layers, T::TM, T::TN);
        const Layer& layer = *place.layer;
        if (layer.x == nullptr)
            tile(memory, rows.of_width(layer.K), scale, layer, place.n, place.k, sink);
        else
            tile(memory, Lines<float>{layer.x, rows.lines, layer.K}, 1.0f, layer, place.n, place.k, sink);
    }
};

template <class Math>
struct SmallTile {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS, BLOCKS = 2;
    static constexpr u32 ROWS = 16, COLUMNS = 32, TOGETHER = 4;
    static_assert(ROWS * COLUMNS == TOGETHER * THREADS, "a thread has four neighbours of the tile");

    struct Memory {
        Gathered<WARPS, COLUMNS / 8> sums;
        float shares[WARPS][ROWS]; // of db
    };

    template <bool ALIGNED, class X, class Sink>
    static __device__ __forceinline__ void tile(Memory& memory, const X& x, float scale, const Layer& layer, u32 n0, u32 k0, Sink& sink) {
        const u32 K = layer.K, N = layer.N;
        const u32 row = threadIdx.x / (COLUMNS / TOGETHER), column = threadIdx.x % (COLUMNS / TOGETHER) * TOGETHER;
        const u32 n = n0 + row, k = k0 + column, inside = n < N && k < K ? min(K - k, TOGETHER) : 0;
        const size_t at = (size_t)n * K + k;
        Parameters<Sink, TOGETHER, ALIGNED> weights(layer.w + at, layer.vw + at, inside);
        const bool has_bias = k0 == 0 && threadIdx.x < ROWS && n0 + threadIdx.x < N;
        Parameter<Sink> bias(layer.b + n0 + threadIdx.x, layer.vb + n0 + threadIdx.x, has_bias);

        using A = Across<Lines<float>, 2, ALIGNED>;
        using B = Across<X, 4, ALIGNED>;
        float sums[B::ROWS][4];
        // Of db: the terms that this lane has of two units.
        float share[2] = {};
        direct<typename Math::Terms, ALIGNED ? 2 : 1>(
            A(Lines<float>{layer.dz, x.lines, N}, n0), B(x, k0), x.lines, WARPS, sums,
            [&](const typename A::Share& seen) {
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int t = 0; t < 4; t++) share[i] += seen.value(i, t);
            },
            [&] {
                sink.ready();
                weights.load();
                bias.load();
            });
        memory.sums.template put<A, B>(sums);
        if (k0 == 0) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int apart = 1; apart < 4; apart *= 2) share[i] += __shfl_xor_sync(~0u, share[i], apart);
                if (lane() % 4 == 0) memory.shares[threadIdx.x / 32][A::row_in_tile(i)] = share[i];
            }
        }
        __syncthreads();
        float g[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) g[i] = memory.sums.sum(row, column + i, WARPS) * scale;
        weights.update(sink, g);
        if (!has_bias) return;
        float db = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) db += memory.shares[w][threadIdx.x];
        bias.update(sink, {db});
    }

    template <class X, class Sink>
    static __device__ __forceinline__ void of_inputs(Memory& memory, const X& x, float scale, const Layer& layer, u32 n0, u32 k0, Sink& sink) {
        if (x.template together<4>() && aligned<4>(layer.w, layer.K) && aligned<4>(layer.vw, layer.K) && aligned<2>(layer.dz, layer.N))
            tile<true>(memory, x, scale, layer, n0, k0, sink);
        else
            tile<false>(memory, x, scale, layer, n0, k0, sink);
    }

    template <class E, class Sink>
    static __device__ __forceinline__ void gradients(const BatchLines<E>& rows, float scale, const Layers& layers, Sink sink) {
        __shared__ Memory memory;
        const Place place(layers, ROWS, COLUMNS);
        const Layer& layer = *place.layer;
        if (layer.x == nullptr)
            of_inputs(memory, rows.of_width(layer.K), scale, layer, place.n, place.k, sink);
        else
            of_inputs(memory, Lines<float>{layer.x, rows.lines, layer.K}, 1.0f, layer, place.n, place.k, sink);
    }
};

// The sinks, where the rows of a batch are of type E, as wide as a layer says, and SCALE is what their products lack.
#define KILN_WEIGHT_GRADIENTS_FROM(Tile, tile, from, E, SCALE)                                                               \
    KILN_KERNEL(Tile) weight_gradients_##from##_store_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers, u32 B) { \
        Tile::gradients(KILN_BATCH_LINES(E, 0), SCALE, layers, Store());                                                     \
    }                                                                                                                        \
    KILN_KERNEL(Tile) weight_gradients_##from##_add_##tile(KILN_BATCH(E), const __grid_constant__ Layers layers, u32 B) { \
        Tile::gradients(KILN_BATCH_LINES(E, 0), SCALE, layers, Add());                                                       \
    }                                                                                                                        \
    KILN_KERNEL(Tile) weight_gradients_##from##_descent_##tile(                                                              \
        KILN_BATCH(E), const __grid_constant__ Layers layers, const Scalars* scalars, float decay, u32 B) {                  \
        const Descent sink({scalars, step, slot}, decay);                                                                    \
        Tile::gradients(KILN_BATCH_LINES(E, 0), SCALE, layers, sink);                                                        \
    }                                                                                                                        \
    KILN_KERNEL(Tile) weight_gradients_##from##_momentum_##tile(                                                             \
        KILN_BATCH(E), const __grid_constant__ Layers layers, const Scalars* scalars, float decay, float gshare, float vshare, u32 B) { \
        const Momentum sink({scalars, step, slot}, decay, gshare, vshare);                                                   \
        Tile::gradients(KILN_BATCH_LINES(E, 0), SCALE, layers, sink);                                                        \
    }

#define KILN_WEIGHT_GRADIENTS_TILE(Tile, tile)                     \
    KILN_WEIGHT_GRADIENTS_FROM(Tile, tile, pixels, u8, PIXEL)      \
    KILN_WEIGHT_GRADIENTS_FROM(Tile, tile, floats, float, 1.0f)

#define KILN_WEIGHT_GRADIENTS(Math)                       \
    KILN_WEIGHT_GRADIENTS_TILE(SmallTile<Math>, small)    \
    KILN_WEIGHT_GRADIENTS_TILE(LargeTile<Math>, large)
