//@ arch: sm_80
// y = a x + y for n elements by blocks of 64: the last block goes on past the end.
//@ kernel: k
//@ grid: 2
//@ block: 64
//@ arg: f32 2
//@ arg: buffer f32 101 zero
//@ arg: buffer f32 101 zero

extern "C" __global__ void k(float a, const float* x, float* y) { // x, y (101)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = fmaf(a, x[i], y[i]); //~ out-of-bounds
}
