// Tiles of a matrix product, shared by the kernels of linear layers.
//
//   c (M, N) = sum over k of a (M, k) b (N, k)
//
// A block makes one tile of TM x TN. It stages DEPTH terms of both operands in shared memory while it multiplies those
// staged before (two buffers, one barrier a stage), and has loaded AHEAD stages more into registers: a small product is all
// latency, and what is on its way at once is waited for once. The terms of a stage are cut into SLICES, one for each group of
// warps, so that a small product with a long sum has enough warps to hide latency. At the end the slices' sums are added in
// shared memory, in order, and handed to the epilogue with consecutive threads along N.
//
// Determinism: the order of every sum follows from the shapes and the tile alone. Nothing is padded in global memory: what
// lies outside an operand counts as zero, whatever M, N and k are.
//
// Shared memory: an operand whose terms lie along its lines is staged as [rows][DEPTH + pad], the other as
// [DEPTH][rows + 8], in float32, or already rounded to bfloat16 where that is what will be multiplied. With a pad of 4
// floats or 8 bfloat16 neither the reads of `Fma` (128 bits) nor those of TF32's fragments (32 bits) nor ldmatrix meet a bank
// conflict.
#pragma once
#include <cuda_bf16.h>

typedef unsigned char u8;
typedef unsigned int u32;

// A tile and who makes it: WARPS_M x WARPS_N warps make it, SLICES times over parts of the sum.
template <int TM_, int TN_, int WARPS_M_, int WARPS_N_, int SLICES_, int SLICE_DEPTH_, int AHEAD_ = 1>
struct Tile {
    static constexpr int AHEAD = AHEAD_;
    static constexpr int TM = TM_, TN = TN_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, SLICES = SLICES_;
    static constexpr int SLICE_DEPTH = SLICE_DEPTH_, DEPTH = SLICES * SLICE_DEPTH;
    static constexpr int WM = TM / WARPS_M, WN = TN / WARPS_N; // of one warp
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N * SLICES;
    static constexpr int SUMS = WM * WN / 32; // of one lane
};

// ---- Operands in global memory -------------------------------------------------------------------------------------

// A matrix (lines, width), line after line.
template <class E>
struct Lines {
    using Element = E;
    const E* data;
    u32 lines, width;
    __device__ __forceinline__ const E* line(u32 at) const { return data + (size_t)at * width; }
};

// The lines of a matrix (samples, width) that an order names.
template <class E>
struct GatheredLines {
    using Element = E;
    const E* data;
    const u32* order; // (lines)
    u32 lines, width;
    __device__ __forceinline__ const E* line(u32 at) const { return data + (size_t)order[at] * width; }
};

// One of two operands, for a whole block.
template <class First, class Second>
struct Either {
    const First& first;
    const Second& second;
    bool is_first;
    u32 lines, width;
};

// ---- Operands in shared memory -------------------------------------------------------------------------------------
//
// Terms outside the operand must count as zero, in both operands, whatever lies there. Rows of the tile outside of it may
// hold anything finite or not: they are rows of the result that the epilogue drops. So a row is clamped to the last one, and
// a load needs no branch.

// Loads two neighbours at once, which lie at a multiple of their size.
__device__ __forceinline__ void load_pair(const float* from, float& first, float& second) {
    const float2 pair = *reinterpret_cast<const float2*>(from);
    first = pair.x;
    second = pair.y;
}
__device__ __forceinline__ void load_pair(const u8* from, float& first, float& second) {
    const uchar2 pair = *reinterpret_cast<const uchar2*>(from);
    first = pair.x;
    second = pair.y;
}
// Whether that is so wherever a pair begins at an even place of a line. Matrices begin at 16 bytes.
__device__ __forceinline__ bool in_pairs(u32 width) { return width % 2 == 0; }

// Stages two neighbours at once.
__device__ __forceinline__ void store_pair(float* to, float first, float second) {
    *reinterpret_cast<float2*>(to) = make_float2(first, second);
}
__device__ __forceinline__ void store_pair(__nv_bfloat16* to, float first, float second) {
    *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(first, second);
}

// The terms of the sum lie along the lines of the matrix: line = row of the tile, element = term.
template <class T, class E, int ROWS>
struct AlongTerms {
    static constexpr int STRIDE = T::DEPTH + 16 / sizeof(E), SIZE = ROWS * STRIDE;
    static constexpr bool VECTORS_OF_ROWS = false;
    static __device__ __forceinline__ int at(int row, int term) { return row * STRIDE + term; }

    // A thread stages two neighbouring terms of PAIRS rows, STEP apart.
    static constexpr int PAIRS = ROWS * T::DEPTH / T::THREADS / 2, STEP = 2 * T::THREADS / T::DEPTH, LOADS = 2 * PAIRS;
    static_assert(2 * T::THREADS % T::DEPTH == 0 && ROWS % STEP == 0, "threads share a stage evenly");
    static __device__ __forceinline__ int row() { return threadIdx.x / (T::DEPTH / 2); }
    static __device__ __forceinline__ int term() { return threadIdx.x % (T::DEPTH / 2) * 2; }

    template <class Operand>
    struct Loader {
        const typename Operand::Element* line[PAIRS];
        u32 terms;

        __device__ __forceinline__ Loader(const Operand& from, u32 row0) : terms(from.width) {
#pragma unroll
            for (int i = 0; i < PAIRS; i++) line[i] = from.line(min(row0 + row() + i * STEP, from.lines - 1));
        }
        __device__ __forceinline__ void load(u32 term0, float (&held)[LOADS]) const {
            if (in_pairs(terms)) {
                const bool inside = term0 + term() < terms;
                const u32 safe = inside ? term0 + term() : 0;
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                    load_pair(line[i] + safe, held[2 * i], held[2 * i + 1]);
                    if (!inside) held[2 * i] = held[2 * i + 1] = 0.0f;
                }
                return;
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const u32 at = term0 + term() + e;
                const bool inside = at < terms;
                const u32 safe = inside ? at : 0;
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                    const float value = (float)line[i][safe];
                    held[2 * i + e] = inside ? value : 0.0f;
                }
            }
        }
    };

    static __device__ __forceinline__ void store(E* tile, const float (&held)[LOADS]) {
        E* to = tile + at(row(), term());
#pragma unroll
        for (int i = 0; i < PAIRS; i++) store_pair(to + at(i * STEP, 0), held[2 * i], held[2 * i + 1]);
    }
};

// The lines of the matrix are the terms of the sum: line = term, element = row of the tile.
template <class T, class E, int ROWS>
struct AcrossTerms {
    static constexpr int STRIDE = ROWS + 8, SIZE = T::DEPTH * STRIDE;
    static constexpr bool VECTORS_OF_ROWS = true;
    static __device__ __forceinline__ int at(int row, int term) { return term * STRIDE + row; }

    // A thread stages PAIRS terms, STEP apart, of two neighbouring rows.
    static constexpr int PAIRS = ROWS * T::DEPTH / T::THREADS / 2, STEP = 2 * T::THREADS / ROWS, LOADS = 2 * PAIRS;
    static_assert(2 * T::THREADS % ROWS == 0 && T::DEPTH % STEP == 0, "threads share a stage evenly");
    static __device__ __forceinline__ int row() { return threadIdx.x % (ROWS / 2) * 2; }
    static __device__ __forceinline__ int term() { return threadIdx.x / (ROWS / 2); }

    template <class Operand>
    struct Loader {
        const Operand& from;
        u32 rows[2];

        __device__ __forceinline__ Loader(const Operand& from, u32 row0)
            : from(from), rows{min(row0 + row(), (from.width - 1) & ~1u), min(row0 + row() + 1, from.width - 1)} {}
        __device__ __forceinline__ void load(u32 term0, float (&held)[LOADS]) const { fetch(from, rows, term0, held); }
    };

    template <class Operand>
    static __device__ __forceinline__ void fetch(const Operand& from, const u32 (&rows)[2], u32 term0, float (&held)[LOADS]) {
        if (in_pairs(from.width)) {
#pragma unroll
            for (int i = 0; i < PAIRS; i++) {
                const u32 at = term0 + term() + i * STEP;
                const bool inside = at < from.lines;
                load_pair(from.line(inside ? at : 0) + rows[0], held[2 * i], held[2 * i + 1]);
                if (!inside) held[2 * i] = held[2 * i + 1] = 0.0f;
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            const u32 at = term0 + term() + i * STEP;
            const bool inside = at < from.lines;
            const typename Operand::Element* line = from.line(inside ? at : 0);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const float value = (float)line[rows[e]];
                held[2 * i + e] = inside ? value : 0.0f;
            }
        }
    }
    // One branch a stage, so that the loads of a stage stay together.
    template <class First, class Second>
    static __device__ __forceinline__ void fetch(const Either<First, Second>& from, const u32 (&rows)[2], u32 term0,
                                                 float (&held)[LOADS]) {
        if (from.is_first)
            fetch(from.first, rows, term0, held);
        else
            fetch(from.second, rows, term0, held);
    }

    static __device__ __forceinline__ void store(E* tile, const float (&held)[LOADS]) {
        E* to = tile + at(row(), term());
#pragma unroll
        for (int i = 0; i < PAIRS; i++) store_pair(to + at(0, i * STEP), held[2 * i], held[2 * i + 1]);
    }
};

// ---- Arithmetic of one warp ----------------------------------------------------------------------------------------

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }

// Float32 fused multiply-adds. Lanes lie 8 x 4 over the warp's tile.
struct Fma {
    using Staged = float;
    // An operand as it is multiplied.
    static __device__ __forceinline__ float rounded(float x) { return x; }
    // The i-th row (of COUNT) of the lane's part of an operand, for lane `which` of `LANES`.
    template <class S, int LANES, int COUNT>
    static __device__ __forceinline__ int row(int which, int i) {
        return S::VECTORS_OF_ROWS ? which * COUNT + i : which + i * LANES;
    }

    // Four terms of COUNT rows.
    template <class S, int LANES, int COUNT>
    static __device__ __forceinline__ void fragment(const float* tile, int row0, int which, int term, float (&f)[COUNT][4]) {
        if constexpr (!S::VECTORS_OF_ROWS) {
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                *reinterpret_cast<float4*>(f[i]) =
                    *reinterpret_cast<const float4*>(&tile[S::at(row0 + row<S, LANES, COUNT>(which, i), term)]);
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float rows[COUNT];
                const float* from = &tile[S::at(row0 + which * COUNT, term + k)];
                static_assert(COUNT == 2 || COUNT == 4, "a vector load");
                if constexpr (COUNT == 4) *reinterpret_cast<float4*>(rows) = *reinterpret_cast<const float4*>(from);
                if constexpr (COUNT == 2) *reinterpret_cast<float2*>(rows) = *reinterpret_cast<const float2*>(from);
#pragma unroll
                for (int i = 0; i < COUNT; i++) f[i][k] = rows[i];
            }
        }
    }

    template <class T, class SA, class SB>
    static __device__ __forceinline__ void multiply(const float* a, const float* b, int m0, int n0, int term0, float (&sums)[T::SUMS]) {
        constexpr int LM = T::WM / 8, LN = T::WN / 4;
        constexpr int AT_ONCE = LM * LN < 8 ? 4 : 2; // the fewer sums, the more of it would be addresses
#pragma unroll AT_ONCE
        for (int k = 0; k < T::SLICE_DEPTH; k += 4) {
            float fa[LM][4], fb[LN][4];
            fragment<SA, 8, LM>(a, m0, lane() / 4, term0 + k, fa);
            fragment<SB, 4, LN>(b, n0, lane() % 4, term0 + k, fb);
#pragma unroll
            for (int t = 0; t < 4; t++)
#pragma unroll
                for (int i = 0; i < LM; i++)
#pragma unroll
                    for (int j = 0; j < LN; j++) sums[i * LN + j] = fmaf(fa[i][t], fb[j][t], sums[i * LN + j]);
        }
    }

    // Where in the warp's tile the lane's s-th sum lies.
    template <class T, class SA, class SB>
    static __device__ __forceinline__ int2 place(int s) {
        constexpr int LM = T::WM / 8, LN = T::WN / 4;
        return make_int2(row<SA, 8, LM>(lane() / 4, s / LN), row<SB, 4, LN>(lane() % 4, s % LN));
    }
};

// What both tensor-core formats share: m16n8 tiles of sums, and where they lie.
struct TensorCores {
    template <class T, class SA, class SB>
    static __device__ __forceinline__ int2 place(int s) {
        constexpr int COLUMNS = T::WN / 8;
        const int tile = s / 4, e = s % 4;
        return make_int2(tile / COLUMNS * 16 + lane() / 4 + e / 2 * 8, tile % COLUMNS * 8 + lane() % 4 * 2 + e % 2);
    }
};

// TF32: operands rounded to 11 significant bits (ties away from zero), float32 sums. mma.m16n8k8.
struct Tf32 : TensorCores {
    using Staged = float;

    static __device__ __forceinline__ u32 tf32(float x) {
        u32 bits;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
        return bits;
    }
    // The bits that tensor cores do not look at are nobody's promise.
    static __device__ __forceinline__ float rounded(float x) { return __uint_as_float(tf32(x) & 0xffffe000); }
    static __device__ __forceinline__ void mma(float* s, const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }

    template <class T, class SA, class SB>
    static __device__ __forceinline__ void multiply(const float* a, const float* b, int m0, int n0, int term0, float (&sums)[T::SUMS]) {
        const int g = lane() / 4, c = lane() % 4;
#pragma unroll 2
        for (int k = term0; k < term0 + T::SLICE_DEPTH; k += 8) {
            u32 fb[T::WN / 8][2];
#pragma unroll
            for (int j = 0; j < T::WN / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) fb[j][e] = tf32(b[SB::at(n0 + 8 * j + g, k + c + 4 * e)]);
#pragma unroll
            for (int i = 0; i < T::WM / 16; i++) {
                u32 fa[4];
#pragma unroll
                for (int e = 0; e < 4; e++) fa[e] = tf32(a[SA::at(m0 + 16 * i + g + e % 2 * 8, k + c + e / 2 * 4)]);
#pragma unroll
                for (int j = 0; j < T::WN / 8; j++) mma(&sums[4 * (i * (T::WN / 8) + j)], fa, fb[j][0], fb[j][1]);
            }
        }
    }
};

// Row and term at which a block begins, of four of 8 rows and TERMS terms each at row0 and term0: the bit ROWS_BIT of its number
// says which rows, the other one which terms.
template <int ROWS_BIT, int TERMS>
__device__ __forceinline__ int2 block_at(int block, int row0, int term0) {
    return make_int2(row0 + (block >> ROWS_BIT & 1) * 8, term0 + (block >> (1 - ROWS_BIT) & 1) * TERMS);
}

// Four 8 x 8 blocks of 16-bit values, or 8 x 4 of 32-bit ones, from shared memory; lane l gives the address of line l % 8 of block
// l / 8. TRANSPOSED, of 16-bit values alone.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_blocks(const void* line, u32 (&r)[4]) {
    const u32 address = (u32)__cvta_generic_to_shared(line);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
}

// bfloat16: operands rounded to 8 significant bits (ties to even) as they are staged, float32 sums. mma.m16n8k16, its fragments
// read by ldmatrix, transposed where the terms lie across the lines.
struct Bf16 : TensorCores {
    using Staged = __nv_bfloat16;
    static __device__ __forceinline__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

    // The address that this lane gives for the four blocks at row0 and term0.
    template <class S, int ROWS_BIT>
    static __device__ __forceinline__ const Staged* line(const Staged* tile, int row0, int term0) {
        const int within = lane() % 8;
        const int2 at = block_at<ROWS_BIT, 8>(lane() / 8, row0, term0);
        return tile + (S::VECTORS_OF_ROWS ? S::at(at.x, at.y + within) : S::at(at.x + within, at.y));
    }

    template <class T, class SA, class SB>
    static __device__ __forceinline__ void multiply(const Staged* a, const Staged* b, int m0, int n0, int term0, float (&sums)[T::SUMS]) {
        static_assert(T::WN % 16 == 0, "two columns of tiles a load");
#pragma unroll
        for (int k = term0; k < term0 + T::SLICE_DEPTH; k += 16) {
            u32 fb[T::WN / 16][4]; // 16 columns: {terms 0-7, 8-15} of the first 8, then of the second 8
#pragma unroll
            for (int j = 0; j < T::WN / 16; j++) load_blocks<SB::VECTORS_OF_ROWS>(line<SB, 1>(b, n0 + 16 * j, k), fb[j]);
#pragma unroll
            for (int i = 0; i < T::WM / 16; i++) {
                u32 fa[4]; // rows 0-7 and 8-15 of terms 0-7, then of terms 8-15
                load_blocks<SA::VECTORS_OF_ROWS>(line<SA, 0>(a, m0 + 16 * i, k), fa);
#pragma unroll
                for (int j = 0; j < T::WN / 8; j++) {
                    float* s = &sums[4 * (i * (T::WN / 8) + j)];
                    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                        : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[j / 2][j % 2 * 2]), "r"(fb[j / 2][j % 2 * 2 + 1]));
                }
            }
        }
    }
};

// ---- The product ---------------------------------------------------------------------------------------------------

// Makes the tile at (m0, n0). `SA` and `SB` say how the operands are staged. `staging(values of a)` sees what this thread
// stages of a, before it is rounded; `epilogue(m, n, sum)` gets each sum of the tile once, with m and n inside the tile.
template <class T, class Math, class SA, class SB, class A, class B, class Staging, class Epilogue>
__device__ __forceinline__ void product(const A& a, const B& b, u32 m0, u32 n0, u32 terms, Staging staging, Epilogue epilogue) {
    using E = typename Math::Staged;
    constexpr int STAGE = SA::SIZE + SB::SIZE;
    constexpr int STAGES = 2 * STAGE * sizeof(E), SUMS = T::SLICES * T::TM * (T::TN + 1) * sizeof(float);
    constexpr int BYTES = STAGES > SUMS ? STAGES : SUMS;
    static_assert(BYTES <= 48 << 10, "fits static shared memory");
    static_assert(SA::SIZE * sizeof(E) % 16 == 0 && SB::SIZE * sizeof(E) % 16 == 0, "tiles begin at 16 bytes");
    __shared__ alignas(16) unsigned char memory[BYTES];
    E* stages = reinterpret_cast<E*>(memory);
    float* gathered = reinterpret_cast<float*>(memory);

    const int warp = threadIdx.x / 32;
    const int slice = warp / (T::WARPS_M * T::WARPS_N);
    const int wm = warp / T::WARPS_N % T::WARPS_M * T::WM, wn = warp % T::WARPS_N * T::WN;

    float sums[T::SUMS] = {};
    float held_a[T::AHEAD][SA::LOADS], held_b[T::AHEAD][SB::LOADS];
    const typename SA::template Loader<A> from_a(a, m0);
    const typename SB::template Loader<B> from_b(b, n0);
#pragma unroll
    for (int s = 0; s < T::AHEAD; s++)
        if (s * T::DEPTH < terms) {
            from_a.load(s * T::DEPTH, held_a[s]);
            from_b.load(s * T::DEPTH, held_b[s]);
        }
    int buffer = 0;
    for (u32 first = 0; first < terms; first += T::AHEAD * T::DEPTH) {
#pragma unroll
        for (int s = 0; s < T::AHEAD; s++) { // unrolled, so that what is held stays in registers
            const u32 term = first + s * T::DEPTH;
            if (term >= terms) break;
            E* tile_a = stages + buffer * STAGE;
            E* tile_b = tile_a + SA::SIZE;
            staging(held_a[s]);
            SA::store(tile_a, held_a[s]);
            SB::store(tile_b, held_b[s]);
            // One barrier a stage is enough: a buffer is written again two stages later, and between the reads of the first
            // and that write every warp has passed the barrier of the stage in between.
            __syncthreads();
            const u32 next = term + T::AHEAD * T::DEPTH;
            if (next < terms) {
                from_a.load(next, held_a[s]);
                from_b.load(next, held_b[s]);
            }
            Math::template multiply<T, SA, SB>(tile_a, tile_b, wm, wn, slice * T::SLICE_DEPTH, sums);
            buffer ^= 1;
        }
    }

    __syncthreads(); // the stages are read; their memory now gathers the slices' sums
    float* gather = gathered + slice * T::TM * (T::TN + 1);
#pragma unroll
    for (int s = 0; s < T::SUMS; s++) {
        const int2 at = Math::template place<T, SA, SB>(s);
        gather[(wm + at.x) * (T::TN + 1) + wn + at.y] = sums[s];
    }
    __syncthreads();
#pragma unroll 2
    for (int e = threadIdx.x; e < T::TM * T::TN; e += T::THREADS) {
        const int m = e / T::TN, n = e % T::TN;
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < T::SLICES; s++) sum += gathered[(s * T::TM + m) * (T::TN + 1) + n];
        epilogue(m, n, sum);
    }
}

// Nothing to do with what is staged.
struct Nothing {
    template <int LOADS>
    __device__ void operator()(const float (&)[LOADS]) const {}
};

// ---- What the entry points share -----------------------------------------------------------------------------------

using Large = Tile<64, 64, 2, 4, 1, 32>;

// What a pixel's unit is worth.
constexpr float PIXEL = 1.0f / 255.0f;

#define KILN_KERNEL(T) extern "C" __global__ void __launch_bounds__(T::THREADS, 2)
// What a kernel that gathers takes: the data, and where the batch stands in the order.
#define KILN_BATCH(TYPE) const TYPE *data, const u32 *order, const u32 *step, u32 slot, u32 batch
#define KILN_ORDER order + (size_t)(*step + slot) * batch
#define KILN_GATHERED(TYPE) GatheredLines<TYPE>{data, KILN_ORDER, B, K}
