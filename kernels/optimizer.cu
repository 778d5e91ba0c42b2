//@ arch: sm_80
// Updates of all parameters at once from gradients that are stored: of optimizers that are not fused with the gradient, and of SGD,
// which is in weight_gradients.cuh, where a batch is computed in parts.
//
//   sgd_descent    p -= lr g                                      g: gradient + decay p
//   sgd_momentum   v = keep v + fresh g,  p -= lr (gshare g + vshare v)
//   adamw    m = (m - fresh1 m) + fresh1 g,  v = (v - fresh2 v) + fresh2 g^2,  p -= lr (decay p + c1 m / (c2 sqrt(v) + eps))
//
// What PyTorch's SGD makes of its scalars: as in weight_gradients.cuh. PyTorch's AdamW is fresh1 = 1 - beta1, fresh2 = 1 - beta2,
// c1 = 1 / (1 - beta1^t), c2 = 1 / sqrt(1 - beta2^t). lr, c1 and c2 are row *step + slot of `scalars`, in device memory, so that a
// schedule needs no new capture.
//
// p, m, v, g: n values each, the arenas of all layers with the gaps between their tensors, which stay zero. Every value of p, m
// and v is read once and written once, of g read once; g stays. No value depends on another, so that runs are equal bit for
// bit on any grid.
//
// The share of a parameter that decays is taken from it with the step, in one rounding: 1 - lr decay would lose digits. The
// same holds for the moments: fresh2 = 0.001 is a float32 to eight digits, 0.999 leaves 1 - 0.999 four. Nor does g^2 meet v before its
// share is taken: in v + fresh2 (g^2 - v) a small gradient after a large one would be lost, and v be 0 where fresh2 is 1.
//
// Any grid of blocks of 256; each thread takes values a grid apart. No shared memory. Square root and quotient are rounded to
// nearest.

#include "scalars.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;

// AdamW's row of the table of scalars: 16 bytes.
struct alignas(16) AdamWScalars {
    float lr, c1, c2, unused;
};

// The values of a thread.
#define KILN_EACH(i, n) for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < n; i += (u64)gridDim.x * 256)

extern "C" __global__ void __launch_bounds__(256) sgd_descent(float* p, const float* g, const Scalars* scalars, const u32* step, u32 slot,
                                                             float decay, u64 n) {
    const float lr = scalars[*step + slot].lr;
    KILN_EACH(i, n) p[i] = fmaf(-lr, fmaf(decay, p[i], g[i]), p[i]);
}

extern "C" __global__ void __launch_bounds__(256) sgd_momentum(float* p, float* v, const float* g, const Scalars* scalars, const u32* step,
                                                              u32 slot, float decay, float gshare, float vshare, u64 n) {
    const Scalars s = scalars[*step + slot];
    KILN_EACH(i, n) {
        const float gradient = fmaf(decay, p[i], g[i]);
        const float moved = v[i] = fmaf(s.keep, v[i], s.fresh * gradient);
        p[i] = fmaf(-s.lr, fmaf(vshare, moved, gshare * gradient), p[i]);
    }
}

extern "C" __global__ void __launch_bounds__(256) adamw(float* p, float* m, float* v, const float* g, const AdamWScalars* scalars,
                                                       const u32* step, u32 slot, float fresh1, float fresh2, float eps, float decay,
                                                       u64 n) {
    const AdamWScalars s = scalars[*step + slot];
    KILN_EACH(i, n) {
        const float gradient = g[i], old = p[i];
        const float first = fmaf(fresh1, gradient, fmaf(-fresh1, m[i], m[i]));
        const float second = fmaf(fresh2, gradient * gradient, fmaf(-fresh2, v[i], v[i]));
        m[i] = first;
        v[i] = second;
        const float along = s.c1 * first / fmaf(s.c2, sqrtf(second), eps);
        p[i] = fmaf(-s.lr, fmaf(decay, old, along), old);
    }
}
