// Gradients of a linear layer's parameters on copies (pipeline.cuh), and the update by them in the same pass. The kernels of a format
// are made by KILN_WEIGHT_GRADIENT_COPIES(E).
//
//   dw (N, K) = scale dz (B, N)^T x (B, K),  db (N) = sum of parts (count, N)
//
//   weight_gradient_copies_store_<E>_<tile>      writes dw, db; parameters stay
//   weight_gradient_copies_add_<E>_<tile>        adds to dw, db what this part of a batch comes to
//   weight_gradient_copies_descent_<E>_<tile>    p -= lr g                                      g: gradient + decay p
//   weight_gradient_copies_momentum_<E>_<tile>   v = keep v + fresh g,  p -= lr (gshare g + vshare v)
//
// x and dz are copies; `scale` and `planes` are those of x, as in linear_copies.cuh. `parts` are sums of dz over some rows each, in
// float32, from before it was rounded: what made dz left them. Parameters, velocities and gradients are float32 and without gaps; the
// last two kernels also write the copy of the new weights (N, K). lr, keep, fresh, and what PyTorch's SGD makes of them: as in
// weight_gradients.cuh.
//
// <E>: bf16, tf32 or bf16x3. <tile>: 128, 64 or 32, its side (warpgroups.cuh has others). Grid: (ceil(N / tile), ceil(K / tile)).
// Threads: 128. The blocks of the first column sum db. Parameters of other layers are not touched; runs are equal bit for bit.
//
// w of the layer must have been read before: the gradient at the inputs comes first.
#pragma once
#include "pipeline.cuh"
#include "scalars.cuh"

struct Store {
    using Loaded = struct {};
    static constexpr bool OF_COLUMN = false;
    float *dw, *db;
    u32 K;
    __device__ __forceinline__ Loaded load(u32, u32) const { return {}; }
    __device__ __forceinline__ void store(u32 n, u32 k, float g, Loaded) const { dw[(size_t)n * K + k] = g; }
    __device__ __forceinline__ void bias(u32 n, float g) const { db[n] = g; }
};

struct Add {
    using Loaded = float;
    static constexpr bool OF_COLUMN = false;
    float *dw, *db;
    u32 K;
    __device__ __forceinline__ float load(u32 n, u32 k) const { return dw[(size_t)n * K + k]; }
    __device__ __forceinline__ void store(u32 n, u32 k, float g, float old) const { dw[(size_t)n * K + k] = old + g; }
    __device__ __forceinline__ void bias(u32 n, float g) const { db[n] += g; }
};

template <class E>
struct Descent {
    using Loaded = float;
    static constexpr bool OF_COLUMN = false;
    float *w, *b;
    NewCopy<E> copy;
    float lr, decay;
    u32 K;
    __device__ __forceinline__ float moved(float p, float g) const { return fmaf(-lr, fmaf(decay, p, g), p); }
    __device__ __forceinline__ float load(u32 n, u32 k) const { return w[(size_t)n * K + k]; }
    __device__ __forceinline__ void store(u32 n, u32 k, float g, float old) const {
        const float p = w[(size_t)n * K + k] = moved(old, g);
        copy.put(n, k, p);
    }
    __device__ __forceinline__ void bias(u32 n, float g) const { b[n] = moved(b[n], g); }
};

template <class E>
struct Momentum {
    using Loaded = float2; // parameter, velocity
    static constexpr bool OF_COLUMN = false;
    float *w, *b, *vw, *vb;
    NewCopy<E> copy;
    Scalars s;
    float decay, gshare, vshare;
    u32 K;
    __device__ __forceinline__ float2 moved(float2 old, float g) const {
        g = fmaf(decay, old.x, g);
        const float v = fmaf(s.keep, old.y, s.fresh * g);
        return make_float2(fmaf(-s.lr, fmaf(vshare, v, gshare * g), old.x), v);
    }
    __device__ __forceinline__ float2 load(u32 n, u32 k) const {
        const size_t at = (size_t)n * K + k;
        return make_float2(w[at], vw[at]);
    }
    __device__ __forceinline__ void store(u32 n, u32 k, float g, float2 old) const {
        const size_t at = (size_t)n * K + k;
        const float2 now = moved(old, g);
        w[at] = now.x;
        vw[at] = now.y;
        copy.put(n, k, now.x);
    }
    __device__ __forceinline__ void bias(u32 n, float g) const {
        const float2 now = moved(make_float2(b[n], vb[n]), g);
        b[n] = now.x;
        vb[n] = now.y;
    }
};

// Multiplies what it passes on.
template <class Sink>
struct Scaled {
    using Loaded = typename Sink::Loaded;
    static constexpr bool OF_COLUMN = false;
    const Sink& sink;
    float scale;
    __device__ __forceinline__ Loaded load(u32 n, u32 k) const { return sink.load(n, k); }
    __device__ __forceinline__ void store(u32 n, u32 k, float sum, Loaded loaded) const { sink.store(n, k, sum * scale, loaded); }
};

template <class T, class E, class Sink>
__device__ __forceinline__ void weight_gradient(const Copy<E>& x, float scale, const Copy<E>& dz, const float* parts, u32 count,
                                                const Sink& sink) {
    using P = Product<T, E>;
    const Place place;
    const u32 n0 = place.m * T::TM, k0 = place.n * T::TN, N = dz.width;
    Scaled<Sink> epilogue{sink, scale};
    P::template tile<typename P::template Across<T::TM>, typename P::template Across<T::TN>>(
        dz, x, n0, k0, N, x.width, dz.lines, epilogue);
    if (k0 != 0) return; // the whole block
    const u32 unit = n0 + threadIdx.x % T::TM;
    float share = 0.0f;
    if (unit < N)
#pragma unroll 8
        for (u32 part = threadIdx.x / T::TM; part < count; part += T::THREADS / T::TM) share += parts[(size_t)part * N + unit];
    const float db = sum_of_column<T, T::TM>(share);
    if (threadIdx.x < T::TM && unit < N) sink.bias(unit, db);
}

#define KILN_GRADIENT(E) const Value<E> *x, u32 planes, float scale, const Value<E> *dz, const float *parts, u32 count
#define KILN_WEIGHT_GRADIENT(E, T, sink)                                                                                     \
    weight_gradient<T>(Copy<E>{x, B, K, planes}, scale, Copy<E>{dz, B, N}, parts, count, sink)

#define KILN_WEIGHT_GRADIENT_COPIES_TILE(E, T, tile)                                                                               \
    KILN_KERNEL(T) weight_gradient_copies_store_##E##_##tile(KILN_GRADIENT(E), float* dw, float* db, u32 B, u32 K, u32 N) {        \
        const Store sink{dw, db, K};                                                                                               \
        KILN_WEIGHT_GRADIENT(E, T, sink);                                                                                          \
    }                                                                                                                              \
    KILN_KERNEL(T) weight_gradient_copies_add_##E##_##tile(KILN_GRADIENT(E), float* dw, float* db, u32 B, u32 K, u32 N) {          \
        const Add sink{dw, db, K};                                                                                                 \
        KILN_WEIGHT_GRADIENT(E, T, sink);                                                                                          \
    }                                                                                                                              \
    KILN_KERNEL(T)                                                                                                                 \
    weight_gradient_copies_descent_##E##_##tile(KILN_GRADIENT(E), Value<E>* copy, const u32* step, u32 slot, float* w, float* b,   \
                                                const Scalars* scalars, float decay, u32 B, u32 K, u32 N) {                        \
        const Descent<E> sink{w, b, {copy, N, K}, scalars[*step + slot].lr, decay, K};                                             \
        KILN_WEIGHT_GRADIENT(E, T, sink);                                                                                          \
    }                                                                                                                              \
    KILN_KERNEL(T)                                                                                                                 \
    weight_gradient_copies_momentum_##E##_##tile(KILN_GRADIENT(E), Value<E>* copy, const u32* step, u32 slot, float* w, float* b,  \
                                                 float* vw, float* vb, const Scalars* scalars, float decay, float gshare,          \
                                                 float vshare, u32 B, u32 K, u32 N) {                                              \
        const Momentum<E> sink{w, b, vw, vb, {copy, N, K}, scalars[*step + slot], decay, gshare, vshare, K};                       \
        KILN_WEIGHT_GRADIENT(E, T, sink);                                                                                          \
    }

#define KILN_WEIGHT_GRADIENT_COPIES(E)                 \
    KILN_WEIGHT_GRADIENT_COPIES_TILE(E, Tile128<E>, 128) \
    KILN_WEIGHT_GRADIENT_COPIES_TILE(E, Tile64<E>, 64)   \
    KILN_WEIGHT_GRADIENT_COPIES_TILE(E, Tile32<E>, 32)
