//@ arch: sm_80
// Counts in shared memory that nobody has set to zero.
//@ kernel: k
//@ block: 64
//@ arg: buffer u8 64 iota
//@ arg: buffer u32 256 zero

extern "C" __global__ void k(const unsigned char* x, unsigned* counts) { // x (64), counts (256)
    __shared__ unsigned own[256];
    atomicAdd(own + x[threadIdx.x], 1u); //~ uninitialised
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < 64; bin += blockDim.x) atomicAdd(counts + bin, own[bin]);
}
