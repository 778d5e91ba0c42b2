// Products of copies whose values are bfloat16, by warpgroups, on sm_90: four warps multiply 64 rows at a time, straight from shared memory
// (wgmma.mma_async), where mma.sync has each warp load its fragments.
//
//   c (M, N) = sum over k of a (M, k) b (N, k)
//
// A block makes a tile of 128 rows and TN columns, 256 or 128: two warpgroups, one below the other. As in pipeline.cuh a tile arrives by
// 16-byte cp.async, a stage of 64 terms at a time, and values outside are zeros.
//
// Stages lie as wgmma reads them, swizzled by 128 bytes (PTX ISA, "Matrix Descriptor Format"): a line of 128 bytes has eight chunks of 16,
// and those of line l are permuted by l % 8, so that neither the copies nor the reads of eight lines meet in a bank. Where terms lie
// along the lines of a copy, a line holds the 64 terms of a row. Where they lie across, it holds 64 rows of a term.
//
// While a stage is multiplied the next AHEAD ones arrive, and one barrier a stage is enough. Whoever comes to the barrier of a stage has
// waited for the products of the stage before the last, so that its memory takes the copies that are issued next, while the products of
// the last one are still under way.
//
// Determinism: as in pipeline.cuh; terms are added in order, 16 at a time. Shared memory: dynamic, T::SHARED bytes.
#pragma once
#include "pipeline.cuh"

typedef unsigned long long u64;

// BLOCKS a multiprocessor: of the narrower tile two, so that one multiplies while the other stores.
template <int COLUMNS>
struct Warpgroups {
    static constexpr int TM = 128, TN = COLUMNS, DEPTH = 64, SLICES = 1, GROUPS = TM / 64, THREADS = 128 * GROUPS;
    static constexpr int STAGE = (TM + TN) * DEPTH, SUMS = TN / 2;
    static constexpr int BLOCKS = COLUMNS == 256 ? 1 : 2, STAGES = COLUMNS == 256 ? 4 : 3, AHEAD = STAGES - 2;
    // Dynamic shared memory begins at 16 bytes, the stages at a swizzle's 1024.
    static constexpr int SHARED = STAGES * STAGE * sizeof(bf16) + 1024;
};

// Values of a line, and bytes of eight of them: the pattern.
constexpr int LINE = 64, PATTERN = 8 * LINE * sizeof(bf16);

// Where chunk `chunk` of line `line` lies, of lines of 64 values.
__device__ __forceinline__ u32 swizzled(u32 line, u32 chunk) { return line * LINE + (chunk ^ line % 8) * CHUNK<bf16>; }

// What wgmma is told of a matrix at `tile`, swizzled by 128 bytes: how far, in bytes, from 64 of its rows to the next 64 where terms lie
// across (`leading`), and from eight lines to the next eight.
__device__ __forceinline__ u64 descriptor(const bf16* tile, u32 leading) {
    const u32 address = (u32)__cvta_generic_to_shared(tile);
    return (address & 0x3ffff) >> 4 | (u64)(leading >> 4) << 16 | (u64)(PATTERN >> 4) << 32 | 1ull << 62;
}

// ROWS of a stage whose terms lie along the lines: a line is a row.
template <int ROWS>
struct SwizzledAlong {
    static constexpr int SIZE = ROWS * LINE, TRANSPOSED = 0;
    static __device__ __forceinline__ u32 at(u32 row, u32 term) { return swizzled(row, term / CHUNK<bf16>); }
    // Of rows from `row` on, 16 terms from `term` on.
    static __device__ __forceinline__ u64 matrix(const bf16* tile, u32 row, u32 term) { return descriptor(tile + row * LINE + term, 0); }
};

// Terms lie across: a line is a term of 64 rows, and after all terms come those of the next 64.
template <class T, int ROWS>
struct SwizzledAcross {
    static constexpr int SIZE = ROWS * T::DEPTH, TRANSPOSED = 1, BELOW = T::DEPTH * LINE;
    static __device__ __forceinline__ u32 at(u32 row, u32 term) {
        return row / LINE * BELOW + swizzled(term, row % LINE / CHUNK<bf16>);
    }
    static __device__ __forceinline__ u64 matrix(const bf16* tile, u32 row, u32 term) {
        return descriptor(tile + row / LINE * BELOW + term * LINE, BELOW * sizeof(bf16));
    }
};

#define KILN_SUMS_4(i) "+f"(s[i]), "+f"(s[(i) + 1]), "+f"(s[(i) + 2]), "+f"(s[(i) + 3])
#define KILN_SUMS_16(i) KILN_SUMS_4(i), KILN_SUMS_4((i) + 4), KILN_SUMS_4((i) + 8), KILN_SUMS_4((i) + 12)

// s += a b of 16 terms, for 64 rows and 128 or 256 columns. Not done before it has been waited for.
template <int ACROSS_A, int ACROSS_B>
__device__ __forceinline__ void multiply_16(float (&s)[64], u64 a, u64 b) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, add, 1, 1, %66, %67;\n"
        "}\n"
        : KILN_SUMS_16(0), KILN_SUMS_16(16), KILN_SUMS_16(32), KILN_SUMS_16(48)
        : "l"(a), "l"(b), "n"(ACROSS_A), "n"(ACROSS_B));
}
template <int ACROSS_A, int ACROSS_B>
__device__ __forceinline__ void multiply_16(float (&s)[128], u64 a, u64 b) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
            "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
            "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
            "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
            "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, add, 1, 1, %130, %131;\n"
        "}\n"
        : KILN_SUMS_16(0), KILN_SUMS_16(16), KILN_SUMS_16(32), KILN_SUMS_16(48), KILN_SUMS_16(64), KILN_SUMS_16(80), KILN_SUMS_16(96),
          KILN_SUMS_16(112)
        : "l"(a), "l"(b), "n"(ACROSS_A), "n"(ACROSS_B));
}

// The compiler does not know what products and their fences do to registers: it makes these no later, and reads them no earlier, than here.
template <int COUNT>
__device__ __forceinline__ void pin(float (&sums)[COUNT]) {
#pragma unroll
    for (int s = 0; s < COUNT; s++) asm volatile("" : "+f"(sums[s])::"memory");
}
// What other instructions have done to registers comes before the products that follow.
__device__ __forceinline__ void fence_registers() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// All products but those of the newest PENDING groups are done.
template <int PENDING>
__device__ __forceinline__ void await_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// What this thread has stored in shared memory, or copied and waited for, is there for products that come after a barrier.
__device__ __forceinline__ void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Makes the tile at (m0, n0), and gives its sums to the epilogue.
template <class T, class SA, class SB, class E, class Epilogue>
__device__ __forceinline__ void by_warpgroups(const Copy<E>& a, const Copy<E>& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms,
                                              Epilogue& epilogue) {
    constexpr int PITCH = T::TN + 8; // eight lines of pairs, and no two of a half warp meet in a bank
    static_assert(T::DEPTH == LINE, "a line has the terms of a stage");
    static_assert(SA::SIZE + SB::SIZE == T::STAGE && SA::SIZE * sizeof(bf16) % PATTERN == 0, "matrices begin with a pattern");
    static_assert(T::TM * PITCH * sizeof(float) <= T::STAGES * T::STAGE * sizeof(bf16), "the tile fits where the stages were");
    // At the same place in every block, and so for all threads.
    unsigned char* aligned = shared_memory + (1024 - (u32)__cvta_generic_to_shared(shared_memory) % 1024) % 1024;
    bf16* stages = reinterpret_cast<bf16*>(aligned);
    const u32 group = threadIdx.x / 128;

    float sums[T::SUMS] = {};
    Feed<T, SA, SB, E> feed(a, b, m0, n0, terms);
    const u32 count = feed.ahead.count();
#pragma unroll
    for (int s = 0; s < T::AHEAD; s++) feed.stage(stages + s * T::STAGE);
    int buffer = 0;
    pin(sums);
    for (u32 done = 0; done < count; done++) {
        await_stages<T::AHEAD - 1>();
        publish_to_products();
        __syncthreads();
        const bf16* tile = stages + buffer * T::STAGE;
        fence_registers();
#pragma unroll
        for (int k = 0; k < T::DEPTH; k += 16)
            multiply_16<SA::TRANSPOSED, SB::TRANSPOSED>(sums, SA::matrix(tile, group * 64, k), SB::matrix(tile + SA::SIZE, 0, k));
        end_products();
        feed.stage(stages + (buffer + T::AHEAD) % T::STAGES * T::STAGE);
        await_products<1>();
        buffer = (buffer + 1) % T::STAGES;
    }
    await_products<0>();
    pin(sums);

    __syncthreads(); // the stages are read; their memory now gathers the sums
    float* gathered = reinterpret_cast<float*>(aligned);
    const u32 row = threadIdx.x / 32 * 16 + lane() / 4;
#pragma unroll
    for (int s = 0; s < T::SUMS; s += 2) {
        const int column = s / 4 * 8 + lane() % 4 * 2;
        *reinterpret_cast<float2*>(&gathered[(row + s / 2 % 2 * 8) * PITCH + column]) = make_float2(sums[s], sums[s + 1]);
    }
    __syncthreads();
    store_tile<T, PITCH>(gathered, m0, n0, M, N, epilogue);
}

template <int COLUMNS, class E>
struct Product<Warpgroups<COLUMNS>, E> {
    using T = Warpgroups<COLUMNS>;
    template <int ROWS>
    using Along = CopyAlong<T, E, ROWS, SwizzledAlong<ROWS>>;
    template <int ROWS>
    using Across = CopyAcross<T, E, ROWS, SwizzledAcross<T, ROWS>>;
    template <class SA, class SB, class Epilogue>
    static __device__ __forceinline__ void tile(const Copy<E>& a, const Copy<E>& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms,
                                                Epilogue& epilogue) {
        by_warpgroups<T, SA, SB>(a, b, m0, n0, M, N, terms, epilogue);
    }
};
