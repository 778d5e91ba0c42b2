//@ arch: sm_80
// A tiled product whose tile of b starts a row too far down: the last row lies behind the matrix.
//@ kernel: k
//@ grid: 2, 2
//@ block: 16, 16
//@ arg: buffer f32 483 zero
//@ arg: buffer f32 399 zero
//@ arg: buffer f32 437 uninit
//@ arg: u32 23
//@ arg: u32 19
//@ arg: u32 21

constexpr int T = 16;

// c (M, N) = a (M, K) * b (K, N)
extern "C" __global__ void k(const float* a, const float* b, float* c, unsigned M, unsigned N, unsigned K) {
    __shared__ float as[T][T], bs[T][T];
    const unsigned row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
    float sum = 0.0f;
    for (unsigned k0 = 0; k0 < K; k0 += T) {
        const unsigned ka = k0 + threadIdx.x, kb = k0 + threadIdx.y;
        as[threadIdx.y][threadIdx.x] = row < M && ka < K ? a[row * K + ka] : 0.0f;
        bs[threadIdx.y][threadIdx.x] = col < N && kb < K ? b[(kb + 1) * N + col] : 0.0f; //~ out-of-bounds
        __syncthreads();
        for (int k = 0; k < T; ++k) sum = fmaf(as[threadIdx.y][k], bs[k][threadIdx.x], sum);
        __syncthreads();
    }
    if (row < M && col < N) c[row * N + col] = sum;
}
