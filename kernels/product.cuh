// Tiles of a matrix product, shared by the kernels of linear layers.
//
//   c (M, N) = sum over k of a (M, k) b (N, k)
//
// A block makes one tile of TM x TN. It stages DEPTH terms of both operands in shared memory, and while it multiplies them those of
// the next stage are on their way to registers (two buffers, one barrier a stage). In the end the sums go through shared memory to the
// epilogue, with consecutive threads along N. Small products: direct.cuh. Products of copies: pipeline.cuh.
//
// Determinism: the order of every sum follows from the shapes and the tile alone. Nothing is padded in global memory: what
// lies outside an operand counts as zero, whatever M, N and k are.
//
// Shared memory: an operand whose terms lie along its lines is staged as [rows][DEPTH + pad], the other as
// [DEPTH][rows + 8], in float32, or already rounded to bfloat16 where that is what will be multiplied. With a pad of 4
// floats or 8 bfloat16 neither the reads of `Fma` (128 bits) nor those of TF32's fragments (32 bits) nor ldmatrix meet a bank
// conflict.
#pragma once
#include "fragments.cuh"

typedef unsigned char u8;

// A tile and who makes it: WARPS_M x WARPS_N warps make it, SLICES times over parts of the sum (once, but for pipeline.cuh).
template <int TM_, int TN_, int WARPS_M_, int WARPS_N_, int SLICES_, int SLICE_DEPTH_>
struct Tile {
    static constexpr int TM = TM_, TN = TN_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, SLICES = SLICES_;
    static constexpr int SLICE_DEPTH = SLICE_DEPTH_, DEPTH = SLICES * SLICE_DEPTH;
    static constexpr int WM = TM / WARPS_M, WN = TN / WARPS_N; // of one warp
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N * SLICES;
    static constexpr int SUMS = WM * WN / 32; // of one lane
};

// ---- Operands in global memory -------------------------------------------------------------------------------------

// Four neighbours of a line, as they were loaded. What they are worth is asked when they are staged: who asks waits for the load. Loads
// are short, so that an assembler gives them predicates: in front of a branch it waits for all before.
template <class E>
struct Quad;

template <>
struct Quad<float> {
    float of[4];
    // As one load where they are `together`, else one by one: those beyond the last are the last again.
    __device__ __forceinline__ void load(const float* from, bool together, u32 last) {
        if (together) {
            const float4 all = *reinterpret_cast<const float4*>(from);
            of[0] = all.x, of[1] = all.y, of[2] = all.z, of[3] = all.w;
        } else
#pragma unroll
            for (int i = 0; i < 4; i++) of[i] = from[min(i, last)];
    }
    __device__ __forceinline__ float value(int i, bool) const { return of[i]; }
};

// A byte's value, as the last digits of 2^23 + it: to convert it would take several times as long.
__device__ __forceinline__ float value_of_byte(u32 bytes, int i) {
    return __uint_as_float(__byte_perm(bytes, 0x4b000000, 0x7650 + i)) - 8388608.0f;
}

template <>
struct Quad<u8> {
    u32 of[4]; // all in the first, or one in each
    __device__ __forceinline__ void load(const u8* from, bool together, u32 last) {
        if (together)
            of[0] = *reinterpret_cast<const u32*>(from);
        else
#pragma unroll
            for (int i = 0; i < 4; i++) of[i] = from[min(i, last)];
    }
    __device__ __forceinline__ float value(int i, bool together) const { return value_of_byte(together ? of[0] >> 8 * i : of[i], 0); }
};

// Whether N neighbours of a line are one load wherever they begin at a multiple of N.
template <int N, class E>
__device__ __forceinline__ bool aligned(const E* data, u32 width) {
    return width % N == 0 && reinterpret_cast<size_t>(data) % (N * sizeof(E)) == 0;
}

// A matrix (lines, width), line after line. A line is found in steps: the lines' indices, one of them, which may have to be loaded, and its
// place.
template <class E>
struct Lines {
    using Element = E;
    static constexpr bool GATHERED = false;
    const E* data;
    u32 lines, width;
    struct Same {
        __device__ __forceinline__ u32 operator[](u32 line) const { return line; }
    };
    __device__ __forceinline__ Same indices() const { return {}; }
    __device__ __forceinline__ const E* at(u32 index) const { return data + (size_t)index * width; }
    template <int N>
    __device__ __forceinline__ bool together() const { return aligned<N>(data, width); }
};

// The lines of a matrix (samples, width) that a batch takes: those that order[(*step + slot) * batch ..] names.
template <class E>
struct BatchLines : Lines<E> {
    static constexpr bool GATHERED = true;
    const u32 *order, *step;
    u32 slot, batch;
    __device__ __forceinline__ BatchLines(const E* data, const u32* order, const u32* step, u32 slot, u32 batch, u32 lines, u32 width)
        : Lines<E>{data, lines, width}, order(order), step(step), slot(slot), batch(batch) {}
    __device__ __forceinline__ BatchLines of_width(u32 width) const { return {this->data, order, step, slot, batch, this->lines, width}; }
    __device__ __forceinline__ const u32* indices() const { return order + (size_t)(*step + slot) * batch; }
};

// ---- Operands in shared memory -------------------------------------------------------------------------------------
//
// Terms outside the operand must count as zero, in both operands, whatever lies there. Rows of the tile outside of it may
// hold anything finite or not: they are rows of the result that the epilogue drops. So a row is clamped to the last one, and
// a load needs no branch.

// Stages four neighbours at once.
__device__ __forceinline__ void store_quad(float* to, const float (&v)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store_quad(__nv_bfloat16* to, const float (&v)[4]) {
    *reinterpret_cast<uint2*>(to) = make_uint2(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]));
}

// The terms of the sum lie along the lines of the matrix: line = row of the tile, element = term.
template <class T, class E, int ROWS>
struct AlongTerms {
    static constexpr int STRIDE = T::DEPTH + 16 / sizeof(E), SIZE = ROWS * STRIDE;
    static constexpr bool VECTORS_OF_ROWS = false;
    static __device__ __forceinline__ int at(int row, int term) { return row * STRIDE + term; }

    // A thread stages four neighbouring terms of QUADS rows, STEP apart.
    static constexpr int QUADS = ROWS * T::DEPTH / T::THREADS / 4, STEP = 4 * T::THREADS / T::DEPTH;
    static __device__ __forceinline__ int row() { return threadIdx.x / (T::DEPTH / 4); }
    static __device__ __forceinline__ int term() { return threadIdx.x % (T::DEPTH / 4) * 4; }

    template <class Operand>
    struct Loader {
        static_assert(4 * T::THREADS % T::DEPTH == 0 && ROWS % STEP == 0, "threads share a stage evenly");
        const Operand& from;
        const bool together;
        u32 index[QUADS], term0; // of what is held
        Quad<typename Operand::Element> held[QUADS];

        __device__ __forceinline__ Loader(const Operand& from, u32 row0) : from(from), together(from.template together<4>()) {
            const auto indices = from.indices();
#pragma unroll
            for (int i = 0; i < QUADS; i++) index[i] = indices[min(row0 + row() + i * STEP, from.lines - 1)];
        }
        // Begins to load the stage of the terms from `first` on.
        __device__ __forceinline__ void load(u32 first) {
            term0 = first;
            const u32 at = first + term(), safe = at < from.width ? at : 0;
#pragma unroll
            for (int i = 0; i < QUADS; i++) held[i].load(from.at(index[i]) + safe, together, from.width - 1 - safe);
        }
        template <class Seen>
        __device__ __forceinline__ void store(E* tile, Seen seen) const {
#pragma unroll
            for (int i = 0; i < QUADS; i++) {
                float v[4];
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = term0 + term() + e < from.width ? held[i].value(e, together) : 0.0f;
                seen(v);
                store_quad(tile + at(row() + i * STEP, term()), v);
            }
        }
    };
};

// The lines of the matrix are the terms of the sum: line = term, element = row of the tile.
template <class T, class E, int ROWS>
struct AcrossTerms {
    static constexpr int STRIDE = ROWS + 8, SIZE = T::DEPTH * STRIDE;
    static constexpr bool VECTORS_OF_ROWS = true;
    static __device__ __forceinline__ int at(int row, int term) { return term * STRIDE + row; }

    // A thread stages QUADS terms, STEP apart, of four neighbouring rows.
    static constexpr int QUADS = ROWS * T::DEPTH / T::THREADS / 4, STEP = 4 * T::THREADS / ROWS;
    static __device__ __forceinline__ int row() { return threadIdx.x % (ROWS / 4) * 4; }
    static __device__ __forceinline__ int term() { return threadIdx.x / (ROWS / 4); }

    template <class Operand>
    struct Loader {
        static_assert(4 * T::THREADS % ROWS == 0 && T::DEPTH % STEP == 0, "threads share a stage evenly");
        const Operand& from;
        const bool together;
        const u32 row0;
        u32 index[QUADS], term0; // of what is held; lines that are loaded next
        Quad<typename Operand::Element> held[QUADS];

        __device__ __forceinline__ Loader(const Operand& from, u32 row0)
            : from(from), together(from.template together<4>()), row0(min(row0 + row(), from.width - (together ? 4 : 1))) {
            find(0);
        }
        __device__ __forceinline__ void find(u32 first) {
            const auto indices = from.indices();
#pragma unroll
            for (int i = 0; i < QUADS; i++) {
                const u32 line = first + term() + i * STEP;
                index[i] = indices[line < from.lines ? line : 0];
            }
        }
        __device__ __forceinline__ void load(u32 first) {
            term0 = first;
#pragma unroll
            for (int i = 0; i < QUADS; i++) held[i].load(from.at(index[i]) + row0, together, from.width - 1 - row0);
            find(first + T::DEPTH);
        }
        template <class Seen>
        __device__ __forceinline__ void store(E* tile, Seen seen) const {
#pragma unroll
            for (int i = 0; i < QUADS; i++) {
                float v[4];
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = term0 + term() + i * STEP < from.lines ? held[i].value(e, together) : 0.0f;
                seen(v);
                store_quad(tile + at(row(), term() + i * STEP), v);
            }
        }
    };
};

// ---- Arithmetic of one warp ----------------------------------------------------------------------------------------

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }

// Float32 fused multiply-adds. Lanes lie 8 x 4 over the warp's tile.
struct Fma {
    using Staged = float;
    using Terms = terms::F32; // as tensor cores multiply them, in small tiles
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
                static_assert(COUNT == 4, "a vector load");
                *reinterpret_cast<float4*>(rows) = *reinterpret_cast<const float4*>(from);
#pragma unroll
                for (int i = 0; i < COUNT; i++) f[i][k] = rows[i];
            }
        }
    }

    template <class T, class SA, class SB>
    static __device__ __forceinline__ void multiply(const float* a, const float* b, int m0, int n0, int term0, float (&sums)[T::SUMS]) {
        constexpr int LM = T::WM / 8, LN = T::WN / 4;
#pragma unroll 2
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
    using Terms = terms::Tf32;

    static __device__ __forceinline__ float rounded(float x) { return to_tf32(x); }
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
                for (int e = 0; e < 2; e++) fb[j][e] = tf32_bits(b[SB::at(n0 + 8 * j + g, k + c + 4 * e)]);
#pragma unroll
            for (int i = 0; i < T::WM / 16; i++) {
                u32 fa[4];
#pragma unroll
                for (int e = 0; e < 4; e++) fa[e] = tf32_bits(a[SA::at(m0 + 16 * i + g + e % 2 * 8, k + c + e / 2 * 4)]);
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
        load_blocks_transposed(r, address);
    else
        load_blocks(r, address);
}

// bfloat16: operands rounded to 8 significant bits (ties to even) as they are staged, float32 sums. mma.m16n8k16, its fragments
// read by ldmatrix, transposed where the terms lie across the lines.
struct Bf16 : TensorCores {
    using Staged = __nv_bfloat16;
    using Terms = terms::Bf16;
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
                for (int j = 0; j < T::WN / 8; j++)
                    ::multiply(&sums[4 * (i * (T::WN / 8) + j)], fa, fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
};

// ---- The product ---------------------------------------------------------------------------------------------------

// Nothing to do with what is seen.
struct Nothing {
    template <class Seen>
    __device__ void operator()(const Seen&) const {}
};

// Gives an epilogue each sum of the tile at (m0, n0) that lies in (M, N), once: what `load(m, n)` gave for its place goes into
// `store(m, n, sum, loaded)`. OF_COLUMN: what is loaded depends on the column alone. A thread's places are in one column, and it loads for
// several before it stores. The tile is added up from its slices, which are gathered in shared memory, lines PITCH apart.
template <class T, int PITCH, class Epilogue>
__device__ __forceinline__ void store_tile(const float* gathered, u32 m0, u32 n0, u32 M, u32 N, Epilogue& epilogue) {
    constexpr int STEP = T::THREADS / T::TN, TOGETHER = 8;
    static_assert(T::THREADS % T::TN == 0, "a thread has one column");
    static_assert(T::TM % (STEP * TOGETHER) == 0, "");
    const int column = threadIdx.x % T::TN;
    if (n0 + column >= N) return;
#pragma unroll 1
    for (int row = threadIdx.x / T::TN; row < T::TM; row += STEP * TOGETHER) {
        typename Epilogue::Loaded loaded[TOGETHER];
        float sums[TOGETHER] = {};
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const u32 m = m0 + row + i * STEP;
            if (Epilogue::OF_COLUMN || m < M) loaded[i] = epilogue.load(m, n0 + column);
#pragma unroll
            for (int s = 0; s < T::SLICES; s++) sums[i] += gathered[(s * T::TM + row + i * STEP) * PITCH + column];
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const u32 m = m0 + row + i * STEP;
            if (m < M) epilogue.store(m, n0 + column, sums[i], loaded[i]);
        }
    }
}

// Two stages of both operands, which `SA` and `SB` say how to stage, and in the end the sums.
template <class T, class Math, class SA, class SB>
struct DoubleBuffer {
    using E = typename Math::Staged;
    static constexpr int STAGE = SA::SIZE + SB::SIZE, PITCH = T::TN + 1;
    static constexpr int STAGES = 2 * STAGE * sizeof(E), SUMS = T::TM * PITCH * sizeof(float);
    static_assert(SA::SIZE * sizeof(E) % 16 == 0 && SB::SIZE * sizeof(E) % 16 == 0, "tiles begin at 16 bytes");
    alignas(16) unsigned char bytes[STAGES > SUMS ? STAGES : SUMS];
};

// Makes the tile at (m0, n0), and gives its sums to the epilogue. `seen(four values of a)` sees what this thread stages of a, before it
// is rounded.
template <class T, class Math, class SA, class SB, class A, class B, class Seen, class Epilogue>
__device__ __forceinline__ void product(DoubleBuffer<T, Math, SA, SB>& memory, const A& a, const B& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms,
                                        Seen seen, Epilogue&& epilogue) {
    using E = typename Math::Staged;
    using Memory = DoubleBuffer<T, Math, SA, SB>;
    constexpr int STAGE = Memory::STAGE, PITCH = Memory::PITCH;
    static_assert(T::SLICES == 1, "all warps have all terms");
    E* stages = reinterpret_cast<E*>(memory.bytes);

    const int warp = threadIdx.x / 32;
    const int wm = warp / T::WARPS_N * T::WM, wn = warp % T::WARPS_N * T::WN;

    float sums[T::SUMS] = {};
    typename SA::template Loader<A> from_a(a, m0);
    typename SB::template Loader<B> from_b(b, n0);
    from_a.load(0);
    from_b.load(0);
    int buffer = 0;
    for (u32 term = 0; term < terms; term += T::DEPTH) {
        E* tile_a = stages + buffer * STAGE;
        E* tile_b = tile_a + SA::SIZE;
        from_a.store(tile_a, seen);
        from_b.store(tile_b, Nothing());
        // One barrier a stage is enough: a buffer is written again two stages later, and between the reads of the first
        // and that write every warp has passed the barrier of the stage in between.
        __syncthreads();
        if (term + T::DEPTH < terms) {
            from_a.load(term + T::DEPTH);
            from_b.load(term + T::DEPTH);
        }
        Math::template multiply<T, SA, SB>(tile_a, tile_b, wm, wn, 0, sums);
        buffer ^= 1;
    }

    __syncthreads(); // the stages are read; their memory now gathers the sums
    float* gathered = reinterpret_cast<float*>(memory.bytes);
#pragma unroll
    for (int s = 0; s < T::SUMS; s++) {
        const int2 at = Math::template place<T, SA, SB>(s);
        gathered[(wm + at.x) * PITCH + wn + at.y] = sums[s];
    }
    __syncthreads();
    store_tile<T, PITCH>(gathered, m0, n0, M, N, epilogue);
}

// ---- What the entry points share -----------------------------------------------------------------------------------

using Large = Tile<64, 64, 2, 4, 1, 32>;

// What a pixel's unit is worth.
constexpr float PIXEL = 1.0f / 255.0f;

// Of a tile that says how many threads make it, and how many blocks a multiprocessor has room for.
#define KILN_KERNEL(T) extern "C" __global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
// What a kernel that gathers takes: the data, and where the batch stands in the order.
#define KILN_BATCH(TYPE) const TYPE *data, const u32 *order, const u32 *step, u32 slot, u32 batch
#define KILN_BATCH_LINES(TYPE, width) BatchLines<TYPE>(data, order, step, slot, batch, B, width)
