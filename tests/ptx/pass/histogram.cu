//@ arch: sm_80
// Counts of the 256 values of a byte. counts (256) starts as zeros.

extern "C" __global__ void in_global(const unsigned char* x, unsigned* counts, unsigned n) { // x (n)
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(counts + x[i], 1u);
}

// Counts of a block are gathered in shared memory first.
extern "C" __global__ void in_shared(const unsigned char* x, unsigned* counts, unsigned n) { // x (n)
    __shared__ unsigned own[256];
    for (unsigned bin = threadIdx.x; bin < 256; bin += blockDim.x) own[bin] = 0;
    __syncthreads();
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(own + x[i], 1u);
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < 256; bin += blockDim.x)
        if (own[bin]) atomicAdd(counts + bin, own[bin]);
}

// The atomics that return something, on a sum, extremes, bits, a ring counter and a float. all (9) starts as the host
// says.
extern "C" __global__ void every_atomic(const int* x, int* all, float* sum, unsigned long long* wide, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(all + 0, x[i]);
    atomicSub(all + 1, x[i]);
    atomicMin(all + 2, x[i]);
    atomicMax(all + 3, x[i]);
    atomicAnd(all + 4, x[i]);
    atomicOr(all + 5, x[i]);
    atomicXor(all + 6, x[i]);
    atomicInc((unsigned*)all + 7, 16u);
    atomicDec((unsigned*)all + 8, 12u);
    atomicAdd(sum, 1.0f); // exact up to 2^24
    atomicMax(wide, (unsigned long long)(unsigned)x[i] << 20);
    int seen = *(volatile int*)(all + 9); // a loop of compare and swap: the sum of squares
    for (int old; (old = atomicCAS(all + 9, seen, seen + x[i] * x[i])) != seen;) seen = old;
}
