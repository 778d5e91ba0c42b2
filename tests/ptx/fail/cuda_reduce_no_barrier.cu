//@ arch: sm_80
// A block's sum by halving a shared array: the barrier between the halvings has been dropped.
//@ kernel: k
//@ block: 128
//@ arg: buffer u32 128 iota
//@ arg: buffer u32 1 zero

extern "C" __global__ void k(const int* x, int* out) { // x (128), out (1)
    __shared__ int sums[128];
    const unsigned t = threadIdx.x;
    sums[t] = x[t];
    __syncthreads();
    for (unsigned half = 64; half > 0; half /= 2) {
        if (t < half) sums[t] += sums[t + half]; //~ race*
    }
    __syncthreads();
    if (t == 0) out[0] = sums[0];
}
