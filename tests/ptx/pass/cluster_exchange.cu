//@ arch: sm_90
// Blocks of a cluster pass a vector around a ring with st.async: the data and its arrival are one operation.
//
// Each block holds v (128). In each round it pushes v to the next block and adds what it gets to half of its own:
// v = 0.5 v + v_prev. Two buffers; a `full` mbarrier counts the bytes that come in, an `empty` one the threads of the
// next block that have read what this one pushed. Cluster of 4 blocks, 128 threads each.

constexpr unsigned RANKS = 4, WIDTH = 128;

__device__ unsigned address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// The address of the same variable in another block of the cluster.
__device__ unsigned remote(unsigned address, unsigned rank) {
    unsigned mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}

__device__ void init(unsigned barrier, unsigned count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ void wait(unsigned barrier, unsigned parity) {
    unsigned done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}

__device__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// x, out (gridDim.x, 128): row b is the vector of block b.
extern "C" __global__ void __cluster_dims__(RANKS, 1, 1) ring(const float* x, float* out, unsigned rounds) {
    __shared__ float in[2][WIDTH];
    __shared__ alignas(8) unsigned long long full[2], empty[2];
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    const unsigned next = (rank + 1) % RANKS, previous = (rank + RANKS - 1) % RANKS, t = threadIdx.x;
    if (t == 0) {
        for (int b = 0; b < 2; ++b) {
            init(address(&full[b]), 1);
            init(address(&empty[b]), WIDTH);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_barrier();
    float v = x[blockIdx.x * WIDTH + t];
    for (unsigned round = 0; round < rounds; ++round) {
        const unsigned b = round % 2, parity = round / 2 % 2;
        if (round >= 2) wait(address(&empty[b]), parity ^ 1);
        if (t == 0)
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(&full[b])), "r"((unsigned)sizeof in[b])
                         : "memory");
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(remote(address(&in[b][t]), next)),
                     "f"(v), "r"(remote(address(&full[b]), next))
                     : "memory");
        wait(address(&full[b]), parity);
        v = 0.5f * v + in[b][t];
        asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(remote(address(&empty[b]), previous)) : "memory");
    }
    out[blockIdx.x * WIDTH + t] = v;
    cluster_barrier(); // shared memory must not go while another block may still arrive in it
}
