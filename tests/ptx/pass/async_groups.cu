//@ arch: sm_80
// cp.async with an mbarrier in place of groups: the copies of a thread arrive on it when they are done.
// out (gridDim.x, 128): each tile of x (gridDim.x, 128) reversed. Block of 32 threads.

extern "C" __global__ void reversed(const int4* x, int* out) {
    __shared__ alignas(16) int tile[128];
    __shared__ alignas(8) unsigned long long ready;
    const unsigned barrier = (unsigned)__cvta_generic_to_shared(&ready), t = threadIdx.x;
    if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], 32;" ::"r"(barrier) : "memory");
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(tile + 4 * t)),
                 "l"(__cvta_generic_to_global(x + blockIdx.x * 32 + t))
                 : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
    unsigned done;
    do asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(barrier) : "memory");
    while (!done);
    for (unsigned e = t; e < 128; e += 32) out[blockIdx.x * 128 + e] = tile[127 - e];
}

// The arrive and wait of an mbarrier with a token: half the block adds, then all read. out (gridDim.x). Block of 64.
extern "C" __global__ void tokens(const int* x, int* out) { // x (gridDim.x, 64)
    __shared__ int sum;
    __shared__ alignas(8) unsigned long long ready;
    const unsigned barrier = (unsigned)__cvta_generic_to_shared(&ready), t = threadIdx.x;
    if (t == 0) {
        sum = 0;
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(blockDim.x) : "memory");
    }
    __syncthreads();
    atomicAdd(&sum, x[blockIdx.x * 64 + t]);
    unsigned long long token;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(token) : "r"(barrier) : "memory");
    unsigned done;
    do asm volatile("{ .reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(barrier), "l"(token) : "memory");
    while (!done);
    if (t == 63) out[blockIdx.x] = sum;
    __syncthreads();
    if (t == 0) asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(barrier) : "memory");
}
