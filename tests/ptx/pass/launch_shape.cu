//@ arch: sm_90
// What a thread can ask about the launch: three-dimensional grids and blocks, clusters, sizes of shared memory.
// out (blocks, threads, 3): the global linear number of the thread, its warp's lane, the rank of its block in the cluster.

extern "C" __global__ void shape(unsigned* out, unsigned* sizes) {
    extern __shared__ int dynamic[];
    __shared__ int fixed[10];
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    unsigned lane, rank, ranks, dynamic_bytes, cluster[3], in_cluster[3], clusters[3];
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(ranks));
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(dynamic_bytes));
    asm("mov.u32 %0, %%clusterid.x; mov.u32 %1, %%clusterid.y; mov.u32 %2, %%clusterid.z;" : "=r"(cluster[0]), "=r"(cluster[1]), "=r"(cluster[2]));
    asm("mov.u32 %0, %%cluster_ctaid.x; mov.u32 %1, %%cluster_ctaid.y; mov.u32 %2, %%cluster_ctaid.z;" : "=r"(in_cluster[0]), "=r"(in_cluster[1]), "=r"(in_cluster[2]));
    asm("mov.u32 %0, %%nclusterid.x; mov.u32 %1, %%nclusterid.y; mov.u32 %2, %%nclusterid.z;" : "=r"(clusters[0]), "=r"(clusters[1]), "=r"(clusters[2]));
    unsigned* row = out + 3 * (block * threads + thread);
    row[0] = block * threads + thread;
    row[1] = lane;
    row[2] = rank;
    if (thread != 0) return;
    fixed[block % 10] = dynamic[0] = (int)block;
    unsigned* mine = sizes + 12 * block; // sizes (blocks, 12)
    mine[0] = ranks;
    mine[1] = dynamic_bytes;
    for (int d = 0; d < 3; ++d) {
        mine[2 + d] = cluster[d];
        mine[5 + d] = in_cluster[d];
        mine[8 + d] = clusters[d];
    }
    mine[11] = fixed[block % 10] + dynamic[0];
}
