//@ arch: sm_80
// What the lanes of a warp can tell each other. x (warps * 32), results in rows of out: out[k * n + i], n = warps * 32.

extern "C" __global__ void exchanges(const int* x, int* out, unsigned n) { // out (16, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x; // n is a multiple of 32: no partial warp
    if (i >= n) return;
    const int v = x[i];
    const unsigned lane = threadIdx.x % 32;
    int k = 0;
    auto put = [&](int value) { out[n * k++ + i] = value; };
    put(__ballot_sync(~0u, v & 1));
    put(__all_sync(~0u, v > 0));
    put(__any_sync(~0u, v > 90));
    put(__match_any_sync(~0u, v & 3));
    int same;
    put(__match_all_sync(~0u, v & 1, &same));
    put(same);
    put(__reduce_add_sync(~0u, v));
    put(__reduce_min_sync(~0u, v));
    put(__reduce_max_sync(~0u, (unsigned)v));
    put(__reduce_xor_sync(~0u, (unsigned)v));
    put(__shfl_sync(~0u, v, v)); // any lane, modulo 32
    put(__shfl_up_sync(~0u, v, 3));
    put(__shfl_down_sync(~0u, v, 5, 8)); // in groups of eight
    put(__shfl_xor_sync(~0u, v, 7, 16));
    unsigned below, up_to;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(below));
    asm("mov.u32 %0, %%lanemask_le;" : "=r"(up_to));
    put(__popc(below & ~(1u << (v & 31))) + (int)(up_to >> lane));
    put((int)__match_any_sync(~0u, (unsigned long long)(v % 5) << 40));
}

// The lanes with an odd value form a group of their own. sums (n): the sum of the lane's group.
extern "C" __global__ void groups(const int* x, int* sums, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int v = x[i];
    const unsigned odd = __ballot_sync(~0u, v & 1);
    if (v & 1) sums[i] = __reduce_add_sync(odd, v);
    else sums[i] = -__reduce_add_sync(~odd, v);
}

// Neighbours exchange through shared memory, with a barrier of the warp between the writes and the reads.
extern "C" __global__ void neighbours(const int* x, int* out) { // x, out (gridDim.x, blockDim.x)
    __shared__ int kept[256];
    const unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    kept[t] = x[i];
    __syncwarp();
    const int sum = kept[t] + kept[t ^ 1];
    __syncwarp();
    kept[t] = sum;
    __syncwarp();
    out[i] = sum * kept[t ^ 2];
}
