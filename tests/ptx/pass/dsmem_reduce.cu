//@ arch: sm_90
// The sum of n integers by clusters, through distributed shared memory and cooperative groups: each block leaves its sum
// in its own shared memory, the first block of the cluster reads them all.

#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void __cluster_dims__(4, 1, 1) pull(const int* x, int* out, unsigned n) { // x (n), out (clusters)
    __shared__ int sum;
    cg::cluster_group cluster = cg::this_cluster();
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int own = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) own += x[i];
    atomicAdd(&sum, own);
    cluster.sync();
    if (cluster.block_rank() == 0 && threadIdx.x == 0) {
        int total = 0;
        for (unsigned rank = 0; rank < cluster.num_blocks(); ++rank) total += *cluster.map_shared_rank(&sum, rank);
        out[blockIdx.x / 4] = total;
    }
    cluster.sync();
}

// The other way: every block adds to the shared memory of block 0 with remote atomics. The cluster size is the launch's.
extern "C" __global__ void push(const int* x, int* out, unsigned n) { // x (n), out (clusters)
    __shared__ int sum;
    cg::cluster_group cluster = cg::this_cluster();
    if (threadIdx.x == 0) sum = 0;
    cluster.sync();
    int own = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) own += x[i];
    atomicAdd(cluster.map_shared_rank(&sum, 0), own);
    cluster.sync();
    if (cluster.block_rank() == 0 && threadIdx.x == 0) out[blockIdx.x / cluster.num_blocks()] = sum;
}
