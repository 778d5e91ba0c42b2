//@ arch: sm_80
// The sum of n floats by blocks of any size up to 1024: each block strides over the input and leaves one partial sum.
//
// shared_tree: halves a shared array, a barrier between the halvings.   shuffle: warps by __shfl_xor_sync, then one
// warp over the warps' sums. Both add at most ceil(n / threads) + log2(block) + 1 terms on any path.

extern "C" __global__ void shared_tree(const float* x, float* partial, unsigned n) { // x (n), partial (gridDim.x)
    extern __shared__ float sums[]; // (blockDim.x)
    float sum = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sums[threadIdx.x] = sum;
    unsigned live = blockDim.x;
    while (live > 1) {
        __syncthreads();
        const unsigned half = (live + 1) / 2;
        if (threadIdx.x + half < live) sums[threadIdx.x] += sums[threadIdx.x + half];
        live = half;
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

// blockDim.x is a multiple of 32.
extern "C" __global__ void shuffle(const float* x, float* partial, unsigned n) { // x (n), partial (gridDim.x)
    __shared__ float sums[32];
    float sum = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0f;
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
