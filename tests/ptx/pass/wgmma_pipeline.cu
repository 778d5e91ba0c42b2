//@ arch: sm_90a
// d (64, 8) = a (64, 16 steps) b (8, 16 steps)^T in bfloat16, by two warpgroups: a thread of the first one copies, the second multiplies.
//
// a and b come as tiles of 16 terms each, laid out as wgmma reads them, so that a bulk copy each brings a stage. Two stages go round:
// `full` is complete when a stage's bytes have come, `empty` when every thread that multiplies has waited for its product. The other
// threads of the first warpgroup leave at once, and registers change hands. No proxy fence is needed: bulk copies and products are of one
// proxy.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 A = 64 * 16 * 2, B = 8 * 16 * 2, STAGES = 2;

__device__ u32 address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ void init(u64* mbarrier, u32 count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address(mbarrier)), "r"(count) : "memory");
}
__device__ void await(u64* mbarrier, u32 parity) {
    asm volatile("{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared.b64 p, [%0], %1; @!p bra WAIT; }" ::"r"(address(mbarrier)),
                 "r"(parity)
                 : "memory");
}
__device__ void copy(void* to, const void* from, u32 bytes, u64* mbarrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(address(mbarrier))
                 : "memory");
}
// Without a swizzle: from the first eight terms to the next (`leading`), and from eight lines to the next eight.
__device__ u64 descriptor(const void* tile, u32 leading) {
    return (address(tile) & 0x3ffff) >> 4 | (u64)(leading >> 4) << 16 | (u64)(128 >> 4) << 32;
}

extern "C" __global__ void __launch_bounds__(256) wgmma_pipeline(const unsigned char* a, const unsigned char* b, float* d, u32 steps) {
    __shared__ alignas(128) unsigned char stages[STAGES][A + B];
    __shared__ alignas(8) u64 full[STAGES], empty[STAGES];
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            init(&full[s], 1);
            init(&empty[s], 128);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x != 0) return;
        for (u32 step = 0; step < steps; step++) {
            const u32 s = step % STAGES, round = step / STAGES;
            if (round > 0) await(&empty[s], (round - 1) % 2);
            asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared.b64 t, [%0], %1; }" ::"r"(address(&full[s])), "r"(A + B)
                         : "memory");
            copy(stages[s], a + step * A, A, &full[s]);
            copy(stages[s] + A, b + step * B, B, &full[s]);
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 168;");
    float sums[4] = {};
    for (u32 step = 0; step < steps; step++) {
        const u32 s = step % STAGES;
        await(&full[s], step / STAGES % 2);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; "
                     "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0; }"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "l"(descriptor(stages[s], A / 2)), "l"(descriptor(stages[s] + A, B / 2)));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" ::"r"(address(&empty[s])) : "memory");
    }
    const u32 row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    for (int e = 0; e < 4; e++) d[(row + e / 2 * 8) * 8 + column + e % 2] = sums[e];
}
