//@ arch: sm_90a
// d (64, N) = a (64, K) b (N, K)^T by one warpgroup (wgmma.mma_async), once or twice: what d held before is dropped by the first product,
// and the second is added where `twice` is not 0.
//
// A kernel for each way in which a matrix can lie in shared memory: swizzled by 128, 64, 32 bytes or not at all, terms along the lines
// or, of 16-bit types, across them; or a in registers. Elements are placed one by one, by the canonical layouts of the PTX ISA
// ("Asynchronous warpgroup-level matrix operation"), of which a chunk of 16 bytes is the unit.

typedef unsigned int u32;
typedef unsigned long long u64;

// Where the byte `at` of a line lies, for `line` and CHUNKS chunks a line of a pattern of eight lines, as if lines were next to each other;
// patterns are PATTERN bytes apart in the direction of the lines, and APART bytes where a line goes on in the next one.
template <int CHUNKS>
__device__ u32 place(u32 line, u32 at, u32 pattern, u32 apart) {
    const u32 width = 16 * CHUNKS;
    const u32 offset = at / width * apart + line / 8 * pattern + line % 8 * width + at % width;
    return offset ^ (offset >> 7 & (CHUNKS - 1)) << 4;
}

// Lays out `rows` x K elements of BYTES each, terms along the lines or across them, and makes the descriptor.
template <int BYTES, int K, int CHUNKS, bool ACROSS>
__device__ u64 laid(unsigned char* tile, const unsigned char* from, u32 rows) {
    // Lines of a pattern are rows, or terms; a line's bytes are terms, or rows.
    const u32 lines = ACROSS ? K : rows, bytes = BYTES * (ACROSS ? rows : K);
    // Patterns one below the other, and those that continue their lines after all of them.
    const u32 pattern = 128 * CHUNKS, apart = lines / 8 * pattern;
    for (u32 e = threadIdx.x; e < rows * K; e += 128) {
        const u32 row = e / K, term = e % K;
        const u32 at = place<CHUNKS>(ACROSS ? term : row, BYTES * (ACROSS ? row : term), pattern, apart);
        for (int byte = 0; byte < BYTES; byte++) tile[at + byte] = from[e * BYTES + byte];
    }
    const bool goes_on = bytes > 16 * CHUNKS;
    u32 leading = goes_on ? apart : 0, stride = pattern;
    if (ACROSS && CHUNKS == 1) { // without a swizzle the two change places
        const u32 other = leading;
        leading = stride;
        stride = other;
    }
    const u64 swizzle = CHUNKS == 8 ? 1 : CHUNKS == 4 ? 2 : CHUNKS == 2 ? 3 : 0;
    return ((u32)__cvta_generic_to_shared(tile) & 0x3ffff) >> 4 | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | swizzle << 62;
}

// The rows of a that this thread holds, in four registers: two rows, and two places of 4 bytes in each half of the terms.
template <int BYTES, int K>
__device__ void held(u32 (&r)[4], const unsigned char* from) {
    const u32 row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, at = threadIdx.x % 4 * 4;
    for (int i = 0; i < 4; i++) r[i] = *(const u32*)(from + (row + i % 2 * 8) * K * BYTES + at + i / 2 * 16);
}

// The compiler does not know that a fence is about registers: a value that it cannot make later than here.
__device__ u32 started(u32 value) {
    asm volatile("" : "+r"(value));
    return value;
}
__device__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void finish() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

template <int N>
__device__ void store(const u32 (&s)[N / 2], u32* d) {
    const u32 row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    for (int e = 0; e < N / 2; e++) d[(row + e / 2 % 2 * 8) * N + e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2] = s[e];
}

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) name(const unsigned char* a, const unsigned char* b, u32* d, u32 twice)

// Of COUNT sums: their operands, their places in the text, and those of what comes after them.
#define SUMS(i) "+r"(s[i]), "+r"(s[(i) + 1]), "+r"(s[(i) + 2]), "+r"(s[(i) + 3])
#define SUMS_4 SUMS(0)
#define SUMS_8 SUMS(0), SUMS(4)
#define SUMS_12 SUMS(0), SUMS(4), SUMS(8)
#define SUMS_16 SUMS(0), SUMS(4), SUMS(8), SUMS(12)
#define SUMS_32 SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24), SUMS(28)
#define SUMS_64 SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24), SUMS(28), SUMS(32), SUMS(36), SUMS(40), \
    SUMS(44), SUMS(48), SUMS(52), SUMS(56), SUMS(60)
#define TEXT_4 "{%0, %1, %2, %3}"
#define TEXT_8 "{%0, %1, %2, %3, %4, %5, %6, %7}"
#define TEXT_12 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11}"
#define TEXT_16 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}"
#define TEXT_32 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31}"
#define TEXT_64 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define LAID_4 "%4, %5"
#define ADDS_LAID_4 "%6"
#define LAID_8 "%8, %9"
#define ADDS_LAID_8 "%10"
#define LAID_12 "%12, %13"
#define ADDS_LAID_12 "%14"
#define LAID_16 "%16, %17"
#define ADDS_LAID_16 "%18"
#define LAID_32 "%32, %33"
#define ADDS_LAID_32 "%34"
#define LAID_64 "%64, %65"
#define ADDS_LAID_64 "%66"
#define HELD_4 "{%4, %5, %6, %7}, %8"
#define ADDS_HELD_4 "%9"
#define HELD_12 "{%12, %13, %14, %15}, %16"
#define ADDS_HELD_12 "%17"
#define HELD_32 "{%32, %33, %34, %35}, %36"
#define ADDS_HELD_32 "%37"

// Both products: `shape` with its types, COUNT sums, whether a is LAID out or HELD, and the numbers at the end of the instruction.
#define PRODUCTS(shape, COUNT, WHERE, flags, ...)                                                                            \
    u32 s[COUNT];                                                                                                            \
    for (int e = 0; e < COUNT; e++) s[e] = started(0x7f800000); /* of which nothing may be left */                            \
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");                                                             \
    __syncthreads();                                                                                                         \
    fence();                                                                                                                 \
    for (u32 adds = 0; adds < 2; adds++)                                                                                     \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, " ADDS_##WHERE##_##COUNT ", 0; "                                        \
                     "wgmma.mma_async.sync.aligned." shape " " TEXT_##COUNT ", " WHERE##_##COUNT ", p" flags "; }"           \
                     : SUMS_##COUNT                                                                                          \
                     : __VA_ARGS__, "r"(adds * twice));                                                                      \
    finish();                                                                                                                \
    store<2 * COUNT>(s, d)

// a and b swizzled by so many CHUNKS, terms ACROSS the lines or along them.
#define LAID(name, shape, BYTES, K, COUNT, CHUNKS_A, ACROSS_A, CHUNKS_B, ACROSS_B, flags)                                    \
    KERNEL(name) {                                                                                                           \
        __shared__ alignas(1024) unsigned char tiles[2][8192];                                                               \
        const u64 da = laid<BYTES, K, CHUNKS_A, ACROSS_A>(tiles[0], a, 64);                                                  \
        const u64 db = laid<BYTES, K, CHUNKS_B, ACROSS_B>(tiles[1], b, 2 * COUNT);                                           \
        PRODUCTS(shape, COUNT, LAID, flags, "l"(da), "l"(db));                                                               \
    }
// a in registers.
#define HELD(name, shape, BYTES, K, COUNT, CHUNKS_B, ACROSS_B, flags)                                                        \
    KERNEL(name) {                                                                                                           \
        __shared__ alignas(1024) unsigned char tile[8192];                                                                   \
        u32 r[4];                                                                                                            \
        held<BYTES, K>(r, a);                                                                                                \
        const u64 db = laid<BYTES, K, CHUNKS_B, ACROSS_B>(tile, b, 2 * COUNT);                                               \
        PRODUCTS(shape, COUNT, HELD, flags, "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "l"(db));                            \
    }

LAID(bf16_plain, "m64n8k16.f32.bf16.bf16", 2, 16, 4, 1, false, 1, false, ", 1, 1, 0, 0")
LAID(bf16_swizzled_32, "m64n16k16.f32.bf16.bf16", 2, 16, 8, 2, false, 2, false, ", 1, 1, 0, 0")
LAID(bf16_swizzled_64, "m64n24k16.f32.bf16.bf16", 2, 16, 12, 4, false, 4, false, ", 1, 1, 0, 0")
LAID(bf16_swizzled_128, "m64n32k16.f32.bf16.bf16", 2, 16, 16, 8, false, 8, false, ", 1, 1, 0, 0")
LAID(bf16_across_plain, "m64n24k16.f32.bf16.bf16", 2, 16, 12, 1, true, 1, true, ", 1, 1, 1, 1")
LAID(bf16_across_32, "m64n32k16.f32.bf16.bf16", 2, 16, 16, 2, true, 2, true, ", 1, 1, 1, 1")
LAID(bf16_across_64, "m64n64k16.f32.bf16.bf16", 2, 16, 32, 4, true, 4, true, ", 1, 1, 1, 1")
LAID(bf16_across_128, "m64n128k16.f32.bf16.bf16", 2, 16, 64, 8, true, 8, true, ", 1, 1, 1, 1") // b goes on in a second pattern
LAID(bf16_a_across, "m64n16k16.f32.bf16.bf16", 2, 16, 8, 8, true, 2, false, ", 1, 1, 1, 0")
HELD(bf16_held, "m64n64k16.f32.bf16.bf16", 2, 16, 32, 8, true, ", 1, -1, 1")
LAID(f16_negated, "m64n16k16.f32.f16.f16", 2, 16, 8, 4, false, 1, false, ", -1, 1, 0, 0")
LAID(f16_b_across, "m64n32k16.f32.f16.f16", 2, 16, 16, 1, false, 4, true, ", -1, -1, 0, 1")
LAID(tf32_swizzled_128, "m64n16k8.f32.tf32.tf32", 4, 8, 8, 8, false, 8, false, ", 1, 1")
HELD(tf32_held, "m64n8k8.f32.tf32.tf32", 4, 8, 4, 2, false, ", -1, 1")
LAID(s8_swizzled_64, "m64n16k32.s32.s8.s8", 1, 32, 8, 4, false, 4, false, "")
HELD(u8_s8_held, "m64n24k32.s32.u8.s8", 1, 32, 12, 1, false, "")
LAID(s8_u8_saturated, "m64n8k32.satfinite.s32.s8.u8", 1, 32, 4, 1, false, 8, false, "")

// 64 terms, 16 at a time: the next ones begin 32 bytes further on, inside the pattern.
KERNEL(bf16_advanced) {
    __shared__ alignas(1024) unsigned char tiles[2][8192];
    const u64 da = laid<2, 64, 8, false>(tiles[0], a, 64);
    const u64 db = laid<2, 64, 8, false>(tiles[1], b, 8);
    u32 s[4];
    for (int e = 0; e < 4; e++) s[e] = started(0x7f800000); // of which nothing may be left
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    fence();
    for (u32 step = 0; step < 8; step++) {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %6, 0; "
                     "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, "
                     "%4, %5, p, 1, 1, 0, 0; }"
                     : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3])
                     : "l"(da + step % 4 * 2), "l"(db + step % 4 * 2), "r"(step % 4 + step / 4 * twice));
    }
    finish();
    store<8>(s, d);
}

// One lane of each warp tells by an mbarrier that its warp has read the matrices; a fifth warp waits for that and overwrites them.
extern "C" __global__ void __launch_bounds__(160) bf16_released(const unsigned char* a, const unsigned char* b, u32* d, u32 twice) {
    __shared__ alignas(1024) unsigned char tiles[2][8192];
    __shared__ alignas(8) u64 released;
    const u32 mbarrier = (u32)__cvta_generic_to_shared(&released);
    u64 da = 0, db = 0;
    if (threadIdx.x < 128) {
        da = laid<2, 16, 8, false>(tiles[0], a, 64);
        db = laid<2, 16, 8, false>(tiles[1], b, 8);
    } else if (threadIdx.x == 128) {
        asm volatile("mbarrier.init.shared.b64 [%0], 4;" ::"r"(mbarrier) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (threadIdx.x >= 128) {
        asm volatile("{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared.b64 p, [%0], 0; @!p bra WAIT; }" ::"r"(mbarrier) : "memory");
        for (u32 at = threadIdx.x - 128; at < 4096; at += 32) ((u32*)tiles)[at] = at;
        return;
    }
    u32 s[4];
    for (int e = 0; e < 4; e++) s[e] = started(0x7f800000); // of which nothing may be left
    fence();
    for (u32 adds = 0; adds < 2; adds++) {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %6, 0; "
                     "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, "
                     "%4, %5, p, 1, 1, 0, 0; }"
                     : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3])
                     : "l"(da), "l"(db), "r"(adds * twice));
    }
    finish();
    if (threadIdx.x % 32 == 5) asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" ::"r"(mbarrier) : "memory");
    store<8>(s, d);
}
