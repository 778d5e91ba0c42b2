//@ arch: sm_90
// Bulk copies (cp.async.bulk) with mbarriers.
//
// pipeline: y = 3 x + 1 over n floats (n a multiple of 4) in tiles of 256, three stages ahead; results leave by bulk
// copies too. multicast: one copy fills the shared memory of every block of a cluster.

constexpr unsigned TILE = 256, STAGES = 3;

__device__ unsigned address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ void init(const void* barrier, unsigned count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(barrier)), "r"(count) : "memory");
}

__device__ void expect(const void* barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(barrier)), "r"(bytes) : "memory");
}

__device__ void arrive(const void* barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(address(barrier)) : "memory");
}

__device__ void wait(const void* barrier, unsigned parity) {
    asm volatile("{\n\t.reg .pred p;\nL_%=:\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n\t@!p bra L_%=;\n\t}" ::"r"(address(barrier)),
                 "r"(parity)
                 : "memory");
}

__device__ void fetch(float* to, const float* from, unsigned bytes, const void* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(address(barrier))
                 : "memory");
}

extern "C" __global__ void pipeline(const float* x, float* y, unsigned n) { // x, y (n)
    __shared__ alignas(16) float in[STAGES][TILE], out[2][TILE];
    __shared__ alignas(8) unsigned long long full[STAGES], empty[STAGES];
    const unsigned tiles = (n + TILE - 1) / TILE, first = blockIdx.x, step = gridDim.x;
    const bool leader = threadIdx.x == 0;
    if (leader) {
        for (unsigned s = 0; s < STAGES; ++s) {
            init(&full[s], 1);
            init(&empty[s], blockDim.x);
        }
        asm volatile("fence.proxy.async;" ::: "memory");
    }
    __syncthreads();
    auto count = [&](unsigned tile) { return min(TILE, n - tile * TILE); };
    auto produce = [&](unsigned k) { // the block's k-th tile
        const unsigned tile = first + k * step, s = k % STAGES;
        if (tile >= tiles) return;
        if (k >= STAGES) wait(&empty[s], (k / STAGES + 1) % 2);
        expect(&full[s], count(tile) * 4);
        fetch(in[s], x + tile * TILE, count(tile) * 4, &full[s]);
    };
    if (leader)
        for (unsigned k = 0; k < STAGES; ++k) produce(k);
    unsigned k = 0;
    for (unsigned tile = first; tile < tiles; tile += step, ++k) {
        const unsigned s = k % STAGES;
        wait(&full[s], k / STAGES % 2);
        // The store of two tiles ago has read its buffer before the buffer is written again.
        if (leader) asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory");
        __syncthreads();
        for (unsigned i = threadIdx.x; i < count(tile); i += blockDim.x) out[k % 2][i] = 3.0f * in[s][i] + 1.0f;
        arrive(&empty[s]);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); // ordinary writes before the copy's reads
        __syncthreads();
        if (leader) {
            asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(y + tile * TILE)),
                         "r"(address(out[k % 2])), "r"(count(tile) * 4)
                         : "memory");
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
            produce(k + STAGES);
        }
    }
    if (leader) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// y (gridDim.x, 256) = x (256) + block number: the first block of each cluster fetches x for all four.
extern "C" __global__ void __cluster_dims__(4, 1, 1) multicast(const float* x, float* y) {
    __shared__ alignas(16) float in[TILE];
    __shared__ alignas(8) unsigned long long full;
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) {
        init(&full, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        expect(&full, sizeof in);
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (rank == 0 && threadIdx.x == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(address(in)),
                     "l"(__cvta_generic_to_global(x)), "r"((unsigned)sizeof in), "r"(address(&full)), "h"((unsigned short)0xf)
                     : "memory");
    wait(&full, 0);
    for (unsigned i = threadIdx.x; i < TILE; i += blockDim.x) y[blockIdx.x * TILE + i] = in[i] + (float)blockIdx.x;
}
