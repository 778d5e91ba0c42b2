//@ arch: sm_90
// A block reads the shared memory of its neighbour in the cluster with a barrier of its own block alone; that all have started
// was known before.
//@ kernel: k
//@ grid: 2
//@ block: 32
//@ arg: buffer u32 2 zero

#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void __cluster_dims__(2, 1, 1) k(int* out) { // out (2)
    __shared__ int mine;
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    if (threadIdx.x == 0) mine = (int)cluster.block_rank() + 5; //~ race
    __syncthreads();
    const int* theirs = cluster.map_shared_rank(&mine, cluster.block_rank() ^ 1);
    if (threadIdx.x == 0) out[blockIdx.x] = *theirs; //~ race, uninitialised
    cluster.sync();
}
