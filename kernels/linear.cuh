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
// <tile>: `large` makes 64 x 64 outputs with 256 threads (product.cuh); `small` 16 x 16, for small batches, and `tiny` 16 x 8, for those that
// would leave multiprocessors idle (direct.cuh), each with whole warps, 512 threads at most and one an output at least: as many as there
// are terms for, of which a warp takes 64 of pixels, 32 of others, and 16 where lines are not loaded by four values, at a time.
// Grid: (ceil(B / rows of the tile), ceil(N / its columns)); for the input gradient (ceil(B / rows), ceil(K / columns)). No dynamic
// shared memory. Float32 in and out; products as Math says, sums in float32 (NUMERICS.md). Every output is written, nothing
// else is. Runs are equal bit for bit.
#pragma once
#include "direct.cuh"

template <bool RELU>
struct Outputs {
    using Loaded = float;
    static constexpr bool OF_COLUMN = true;
    float scale;
    const float* bias;
    float* y;
    u32 N;
    __device__ __forceinline__ float load(u32, u32 n) const { return bias[n]; }
    __device__ __forceinline__ void store(u32 m, u32 n, float sum, float of_bias) const {
        const float z = fmaf(sum, scale, of_bias);
        // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
        y[(size_t)m * N + n] = RELU && z < 0.0f ? 0.0f : z;
    }
};

struct InputGradient {
    using Loaded = float;
    static constexpr bool OF_COLUMN = false;
    const float* x;
    float* dx;
    u32 K;
    __device__ __forceinline__ float load(u32 m, u32 k) const { return x[(size_t)m * K + k]; }
    __device__ __forceinline__ void store(u32 m, u32 k, float sum, float of_x) const { dx[(size_t)m * K + k] = of_x > 0.0f ? sum : 0.0f; }
};

template <class Math>
struct LargeTile {
    using T = Large;
    static constexpr int THREADS = T::THREADS, BLOCKS = 2;
    using A = AlongTerms<T, typename Math::Staged, T::TM>;

    template <class X, class Epilogue>
    static __device__ __forceinline__ void linear(const X& x, const Lines<float>& w, const Epilogue& epilogue) {
        __shared__ DoubleBuffer<T, Math, A, AlongTerms<T, typename Math::Staged, T::TN>> memory;
        product(memory, x, w, blockIdx.x * T::TM, blockIdx.y * T::TN, x.lines, w.lines, x.width, Nothing(), epilogue);
    }
    template <class Epilogue>
    static __device__ __forceinline__ void input_gradient(const Lines<float>& dz, const Lines<float>& w, const Epilogue& epilogue) {
        __shared__ DoubleBuffer<T, Math, A, AcrossTerms<T, typename Math::Staged, T::TN>> memory;
        product(memory, dz, w, blockIdx.x * T::TM, blockIdx.y * T::TN, dz.lines, w.width, dz.width, Nothing(), epilogue);
    }
};

// 16 rows and 8 COLUMNS units.
template <class Math, int COLUMNS>
struct DirectTile {
    static constexpr int WARPS = 16, THREADS = 32 * WARPS, BLOCKS = 1, WIDTH = 8 * COLUMNS; // warps and threads: at most
    using Memory = Gathered<WARPS, COLUMNS>;
    // Steps that a lane loads at once: as many as registers allow.
    template <class E>
    static constexpr int STEPS = sizeof(E) == 1 ? 4 : 2;

    // The tile at (m0, n0). What an output needs beside its sum is on its way while the sum is made.
    template <int STEPS, class A, class B, class Epilogue>
    static __device__ __forceinline__ void tile(Memory& memory, const A& a, const B& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms,
                                                const Epilogue& epilogue) {
        const u32 row = threadIdx.x / WIDTH, column = threadIdx.x % WIDTH, m = m0 + row, n = n0 + column;
        const bool is_mine = row < 16 && m < M && n < N;
        float loaded = 0.0f;
        float sums[COLUMNS][4];
        direct<typename Math::Terms, STEPS>(a, b, terms, blockDim.x / 32, sums, Nothing(), [&] {
            if (is_mine) loaded = epilogue.load(m, n);
        });
        memory.template put<A, B>(sums);
        __syncthreads();
        if (is_mine) epilogue.store(m, n, memory.sum(row, column, blockDim.x / 32), loaded);
    }

    template <class X, class Epilogue>
    static __device__ __forceinline__ void linear(const X& x, const Lines<float>& w, const Epilogue& epilogue) {
        __shared__ Memory memory;
        using W = Lines<float>;
        const u32 m0 = blockIdx.x * 16, n0 = blockIdx.y * WIDTH, M = x.lines, N = w.lines, K = x.width;
        if (x.template together<4>() && w.template together<4>())
            tile<STEPS<typename X::Element>>(memory, Along<X, 2, true>(x, m0), Along<W, COLUMNS, true>(w, n0), m0, n0, M, N, K, epilogue);
        else
            tile<1>(memory, Along<X, 2, false>(x, m0), Along<W, COLUMNS, false>(w, n0), m0, n0, M, N, K, epilogue);
    }
    template <class Epilogue>
    static __device__ __forceinline__ void input_gradient(const Lines<float>& dz, const Lines<float>& w, const Epilogue& epilogue) {
        __shared__ Memory memory;
        using L = Lines<float>;
        const u32 m0 = blockIdx.x * 16, k0 = blockIdx.y * WIDTH, M = dz.lines, N = dz.width, K = w.width;
        if (dz.template together<4>() && w.template together<COLUMNS>())
            tile<STEPS<float>>(memory, Along<L, 2, true>(dz, m0), Across<L, COLUMNS, true>(w, k0), m0, k0, M, K, N, epilogue);
        else
            tile<1>(memory, Along<L, 2, false>(dz, m0), Across<L, COLUMNS, false>(w, k0), m0, k0, M, K, N, epilogue);
    }
};

template <class Math>
using TinyTile = DirectTile<Math, 1>;
template <class Math>
using SmallTile = DirectTile<Math, 2>;

#define KILN_LAYER const float *w, const float *b, float *y, u32 B, u32 K, u32 N
#define KILN_LINEAR_OUTPUTS(Tile, tile, relu, RELU)                                                                          \
    KILN_KERNEL(Tile) linear_pixels##relu##_##tile(KILN_BATCH(u8), KILN_LAYER) {                                             \
        Tile::linear(KILN_BATCH_LINES(u8, K), Lines<float>{w, N, K}, Outputs<RELU>{PIXEL, b, y, N});                         \
    }                                                                                                                        \
    KILN_KERNEL(Tile) linear_floats##relu##_##tile(KILN_BATCH(float), KILN_LAYER) {                                          \
        Tile::linear(KILN_BATCH_LINES(float, K), Lines<float>{w, N, K}, Outputs<RELU>{1.0f, b, y, N});                       \
    }                                                                                                                        \
    KILN_KERNEL(Tile) linear_hidden##relu##_##tile(const float* x, KILN_LAYER) {                                             \
        Tile::linear(Lines<float>{x, B, K}, Lines<float>{w, N, K}, Outputs<RELU>{1.0f, b, y, N});                            \
    }

#define KILN_LINEAR_TILE(Tile, tile)                                                                                         \
    KILN_LINEAR_OUTPUTS(Tile, tile, , false)                                                                                 \
    KILN_LINEAR_OUTPUTS(Tile, tile, _relu, true)                                                                             \
    KILN_KERNEL(Tile) input_gradient_##tile(const float* dz, const float* w, const float* x, float* dx, u32 B, u32 K, u32 N) { \
        Tile::input_gradient(Lines<float>{dz, B, N}, Lines<float>{w, N, K}, InputGradient{x, dx, K});                        \
    }

#define KILN_LINEAR(Math)                    \
    KILN_LINEAR_TILE(TinyTile<Math>, tiny)   \
    KILN_LINEAR_TILE(SmallTile<Math>, small) \
    KILN_LINEAR_TILE(LargeTile<Math>, large)
