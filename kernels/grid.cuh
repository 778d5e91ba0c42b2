// What blocks of a grid tell each other with where there are no clusters (sm_80 and newer): pairs of a value and a tag in global
// memory, a meeting, and copies into shared memory that each block makes for itself.
//
// A value travels with its tag in one access of 64 bits, which is never torn: whoever finds the tag has the value. So no fence
// orders the exchange, and a reader asks again until the tag is there. A place may be written anew once all its readers are
// known to have read it, which here follows from what they have sent since (resident.cuh). The blocks must run at the same
// time: a cooperative launch.
#pragma once
#include "cluster.cuh"

// Writes two neighbouring values with their tag; `to` is a multiple of 16 bytes.
__device__ __forceinline__ void put(u64* to, float first, float second, u32 tag) {
    const u64 a = (u64)tag << 32 | __float_as_uint(first), b = (u64)tag << 32 | __float_as_uint(second);
    asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(a), "l"(b) : "memory");
}

// Reads two pairs, which may not be there yet.
__device__ __forceinline__ void look(const u64* from, u64& first, u64& second) {
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "l"(from) : "memory");
}

__device__ __forceinline__ bool has(u64 pair, u32 tag) { return (u32)(pair >> 32) == tag; }
__device__ __forceinline__ float value_of(u64 pair) { return __uint_as_float((u32)pair); }

// The first threads of `blocks` blocks meet; what each has written or heard of before, all see after. `count` has been 0 before
// the first meeting, and `meetings` counts this one too.
__device__ __forceinline__ void grid_meet(u64* count, u32 blocks, u32 meetings) {
    asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(count) : "memory");
    u64 arrived;
    do {
        asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(arrived) : "l"(count) : "memory");
    } while (arrived < (u64)blocks * meetings);
}

// Copies 16 bytes from global memory into this block's shared memory, some time before `arrive_when_copied` counts.
__device__ __forceinline__ void copy_16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Arrives at an mbarrier when all copies of this thread so far are done.
__device__ __forceinline__ void arrive_when_copied(u32 mbarrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(mbarrier) : "memory");
}

// Waits until the phase of this parity is complete; what its copies brought is there then.
__device__ __forceinline__ void wait_for_copies(u32 mbarrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n\t"
            ".reg .pred p;\n\t"
            "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\t"
            "selp.b32 %0, 1, 0, p;\n\t"
            "}"
            : "=r"(done)
            : "r"(mbarrier), "r"(parity)
            : "memory");
    } while (!done);
}
