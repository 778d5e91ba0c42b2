// Small matrix products, whose operands go from global memory straight into fragments of tensor cores.
//
//   c (M, N) = sum over k of a (M, k) b (N, k)
//
// A small product is all latency: its time is that of loads which wait for one another. So nothing is staged, and no warp waits for
// another before the sums are complete. The warps of a block, any number, make one tile of 16 x 8 B::ROWS. They share the sum, STEPS
// steps of 16 terms in turn, and each lane loads what it has of these at once. The operand that an order gathers is loaded after the
// other one, which waits for no order, and is the one that is waited for. In the end the warps' sums are added in shared memory, in
// order.
//
// A lane's part of a step, with g = lane / 4 and c = lane % 4, are the terms 4c .. 4c + 3 of some rows, where fragments.cuh has the
// terms 2c, 2c + 1, 2c + 8 and 2c + 9: the order of a sum's terms is free, as long as it is the same in both operands, and four
// neighbours are one load where they lie at a multiple of their size. Rows are chosen in the same way: see Along and Across.
//
// Operands are sums of bfloat16 values as Terms says (fragments.cuh); pixels, whole numbers, are one. Products of first values are
// added up apart from the others, which are small, so that these lose nothing to those; both sums are added in the end.
//
// Determinism: the order of every sum follows from the shapes, the tile, its warps, and whether neighbours are one load. Nothing is padded in
// global memory: what lies outside an operand is zero, and not loaded. Static shared memory: see Gathered.
#pragma once
#include "product.cuh"

// ---- What a lane holds -----------------------------------------------------------------------------------------------

// N neighbours as they were loaded. What they are worth is asked when they are needed: who asks waits for the load. TOGETHER: they are
// one load, and all inside of a matrix or all outside.
template <class E, int N, bool TOGETHER>
struct Held;

template <int N>
struct Held<float, N, true> {
    float of[N];
    __device__ __forceinline__ float value(int i) const { return of[i]; }
    // `inside` of them, the first; the others are zero.
    __device__ __forceinline__ void load(const float* from, u32 inside) {
#pragma unroll
        for (int i = 0; i < N; i++) of[i] = 0.0f;
        if (inside == 0) return;
        if constexpr (N == 4) {
            const float4 all = *reinterpret_cast<const float4*>(from);
            of[0] = all.x, of[1] = all.y, of[2] = all.z, of[3] = all.w;
        } else if constexpr (N == 2) {
            const float2 all = *reinterpret_cast<const float2*>(from);
            of[0] = all.x, of[1] = all.y;
        } else {
            of[0] = *from;
        }
    }
    __device__ __forceinline__ void store(float* to, u32 inside) const {
        if (inside == 0) return;
        static_assert(N == 4, "a vector store");
        *reinterpret_cast<float4*>(to) = make_float4(of[0], of[1], of[2], of[3]);
    }
};

template <int N>
struct Held<float, N, false> {
    float of[N];
    __device__ __forceinline__ float value(int i) const { return of[i]; }
    __device__ __forceinline__ void load(const float* from, u32 inside) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            of[i] = 0.0f;
            if (i < inside) of[i] = from[i];
        }
    }
    __device__ __forceinline__ void store(float* to, u32 inside) const {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i < inside) to[i] = of[i];
    }
};

template <>
struct Held<u8, 4, true> {
    u32 all;
    __device__ __forceinline__ float value(int i) const { return value_of_byte(all, i); }
    __device__ __forceinline__ void load(const u8* from, u32 inside) {
        all = 0;
        if (inside) all = *reinterpret_cast<const u32*>(from);
    }
};

template <>
struct Held<u8, 4, false> {
    u32 of[4];
    __device__ __forceinline__ float value(int i) const { return value_of_byte(of[i], 0); }
    __device__ __forceinline__ void load(const u8* from, u32 inside) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            of[i] = 0;
            if (i < inside) of[i] = from[i];
        }
    }
};

// ---- Parts of operands -----------------------------------------------------------------------------------------------

// Terms of a step.
constexpr u32 STEP = 16;

// ROWS rows of a lane, row0 + g + 8 i, whose terms lie along the lines. Rows outside are the last one again: nobody keeps their sums.
template <class Operand_, int ROWS_, bool TOGETHER>
struct Along {
    using Operand = Operand_;
    static constexpr int ROWS = ROWS_;
    const Operand from;
    const u32 row0;

    struct Share {
        Held<typename Operand::Element, 4, TOGETHER> of[ROWS];
        __device__ __forceinline__ float value(int row, int term) const { return of[row].value(term); }
    };

    __device__ __forceinline__ Along(const Operand& from, u32 row0) : from(from), row0(row0) {}
    // Begins to load the steps from the term `first` on.
    template <int STEPS>
    __device__ __forceinline__ void load(Share (&shares)[STEPS], u32 first) {
        const u32 term = first + lane() % 4 * 4;
        const typename Operand::Element* line[ROWS];
        const auto indices = from.indices();
#pragma unroll
        for (int i = 0; i < ROWS; i++) line[i] = from.at(indices[min(row0 + lane() / 4 + 8 * i, from.lines - 1)]) + term;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const u32 at = term + s * STEP, inside = at < from.width ? min(from.width - at, 4) : 0;
#pragma unroll
            for (int i = 0; i < ROWS; i++) shares[s].of[i].load(line[i] + s * STEP, inside);
        }
    }

    // Of the tile's, which its i-th row is.
    static __device__ __forceinline__ int row_in_tile(int i) { return lane() / 4 + 8 * i; }
    // As b: writes what the lane has of the sums of a's i-th row to that line of the tile.
    static __device__ __forceinline__ void put(float* line, const float (&sums)[ROWS][4], int i) {
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            *reinterpret_cast<float2*>(line + 8 * j + lane() % 4 * 2) = make_float2(sums[j][2 * i], sums[j][2 * i + 1]);
    }
};

// ROWS neighbouring rows of a lane, row0 + ROWS g + i, whose terms are the lines.
template <class Operand_, int ROWS_, bool TOGETHER>
struct Across {
    using Operand = Operand_;
    static constexpr int ROWS = ROWS_;
    const Operand from;
    const u32 row, inside;

    struct Share {
        Held<typename Operand::Element, ROWS, TOGETHER> of[4];
        __device__ __forceinline__ float value(int row, int term) const { return of[term].value(row); }
    };

    __device__ __forceinline__ Across(const Operand& from, u32 row0)
        : from(from), row(row0 + ROWS * (lane() / 4)), inside(row < from.width ? min(from.width - row, ROWS) : 0) {}
    template <int STEPS>
    __device__ __forceinline__ void load(Share (&shares)[STEPS], u32 first) {
        const auto indices = from.indices();
        u32 index[STEPS][4];
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int t = 0; t < 4; t++) index[s][t] = indices[min(first + s * STEP + lane() % 4 * 4 + t, from.lines - 1)];
        if constexpr (Operand::GATHERED) __syncwarp(); // so that no assembler waits for one index before the next is asked for
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int t = 0; t < 4; t++) {
                const u32 line = first + s * STEP + lane() % 4 * 4 + t;
                shares[s].of[t].load(from.at(index[s][t]) + row, line < from.lines ? inside : 0);
            }
    }

    static __device__ __forceinline__ int row_in_tile(int i) { return ROWS * (lane() / 4) + i; }
    static __device__ __forceinline__ void put(float* line, const float (&sums)[ROWS][4], int i) {
#pragma unroll
        for (int at = 0; at < 2 * ROWS; at += 2)
            *reinterpret_cast<float2*>(line + lane() % 4 * 2 * ROWS + at) =
                make_float2(sums[at % ROWS][2 * i + at / ROWS], sums[(at + 1) % ROWS][2 * i + (at + 1) / ROWS]);
    }
};

// ---- The product -----------------------------------------------------------------------------------------------------

// What an operand is the sum of. The first value of a pixel is all of it.
template <class Terms, class E>
struct OperandTerms {
    using Of = Terms;
};
template <class Terms>
struct OperandTerms<Terms, u8> {
    using Of = terms::Bf16;
};

// A lane's rows of an operand as fragments: of each value, row, and half of the terms.
template <class Terms, class Part>
__device__ __forceinline__ void fragments(const typename Part::Share& share, u32 (&f)[Terms::TERMS][Part::ROWS][2]) {
#pragma unroll
    for (int i = 0; i < Part::ROWS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 of[Terms::TERMS];
            split<Terms>(share.value(i, 2 * half), share.value(i, 2 * half + 1), of);
#pragma unroll
            for (int t = 0; t < Terms::TERMS; t++) f[t][i][half] = of[t];
        }
}

// A warp's share of the product of a (16 rows) and b: each of `warps` takes STEPS steps, and further ones behind all of theirs. `seen` gets
// what the lane holds of a. `meanwhile` is called when loads are on their way, once at least: what it loads is waited for together with these.
template <class Terms, int STEPS, class A, class B, class Seen, class Meanwhile>
__device__ __forceinline__ void direct(A a, B b, u32 terms, u32 warps, float (&sums)[B::ROWS][4], Seen seen, Meanwhile meanwhile) {
    using TermsA = typename OperandTerms<Terms, typename A::Operand::Element>::Of;
    using TermsB = typename OperandTerms<Terms, typename B::Operand::Element>::Of;
    static_assert(A::ROWS == 2, "fragments of 16 rows");
    constexpr bool B_FIRST = A::Operand::GATHERED;

    float small[B::ROWS][4] = {}; // of all products but those of first values
#pragma unroll
    for (int j = 0; j < B::ROWS; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums[j][e] = 0.0f;
    u32 first = threadIdx.x / 32 * STEPS * STEP;
    if (first >= terms) meanwhile();
#pragma unroll 1
    for (; first < terms; first += warps * STEPS * STEP) {
        typename A::Share of_a[STEPS];
        typename B::Share of_b[STEPS];
        if constexpr (B_FIRST) b.load(of_b, first);
        if constexpr (!B_FIRST) a.load(of_a, first);
        __syncwarp(); // so that no assembler lets what is at hand wait for the order
        if constexpr (B_FIRST) a.load(of_a, first);
        if constexpr (!B_FIRST) b.load(of_b, first);
        meanwhile(); // with no condition: in front of a branch an assembler waits

        u32 fa[STEPS][TermsA::TERMS][2][2], fb[STEPS][TermsB::TERMS][B::ROWS][2];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            if constexpr (B_FIRST) fragments<TermsB, B>(of_b[s], fb[s]);
            if constexpr (!B_FIRST) fragments<TermsA, A>(of_a[s], fa[s]);
            seen(of_a[s]);
        }
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            if constexpr (B_FIRST) fragments<TermsA, A>(of_a[s], fa[s]);
            if constexpr (!B_FIRST) fragments<TermsB, B>(of_b[s], fb[s]);
#pragma unroll
            for (int x = 0; x < TermsA::TERMS; x++)
#pragma unroll
                for (int y = 0; y < TermsB::TERMS; y++) {
                    if (x + y >= Terms::PAIRS) continue;
                    const u32 of_x[4] = {fa[s][x][0][0], fa[s][x][1][0], fa[s][x][0][1], fa[s][x][1][1]};
#pragma unroll
                    for (int j = 0; j < B::ROWS; j++)
                        multiply(x + y == 0 ? sums[j] : small[j], of_x, fb[s][y][j][0], fb[s][y][j][1]);
                }
        }
    }
    if constexpr (TermsA::TERMS * TermsB::TERMS > 1)
#pragma unroll
        for (int j = 0; j < B::ROWS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[j][e] += small[j][e];
}

// The sums of a block's warps, WARPS at most, in shared memory, and what they add up to. Lines are PITCH apart, so that few lanes share a bank.
template <int WARPS, int COLUMNS>
struct Gathered {
    static constexpr int WIDTH = 8 * COLUMNS, PITCH = COLUMNS == 1 ? WIDTH : WIDTH + 8;
    alignas(16) float of[WARPS][16][PITCH];

    template <class A, class B>
    __device__ __forceinline__ void put(const float (&sums)[COLUMNS][4]) {
#pragma unroll
        for (int i = 0; i < 2; i++) B::put(of[threadIdx.x / 32][A::row_in_tile(i)], sums, i);
    }
    __device__ __forceinline__ float sum(int row, int column, int warps) const {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            if (w < warps) sum += of[w][row][column];
        return sum;
    }
};
