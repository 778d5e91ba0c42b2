//@ arch: sm_80
// c (M, N) = a (M, K) * b (K, N) in float32: tiles of 16 x 16 in shared memory, or 64 x 64 with 4 x 4 sums a thread.
// A sum over K is one chain of fused multiply-adds, in the order of k, so its error is within gamma_K |a| |b|.

constexpr int T = 16;

extern "C" __global__ void tiled(const float* a, const float* b, float* c, unsigned M, unsigned N, unsigned K) {
    __shared__ float as[T][T], bs[T][T];
    const unsigned row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
    float sum = 0.0f;
    for (unsigned k0 = 0; k0 < K; k0 += T) {
        const unsigned ka = k0 + threadIdx.x, kb = k0 + threadIdx.y;
        as[threadIdx.y][threadIdx.x] = row < M && ka < K ? a[row * K + ka] : 0.0f;
        bs[threadIdx.y][threadIdx.x] = col < N && kb < K ? b[kb * N + col] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < T; ++k) sum = fmaf(as[threadIdx.y][k], bs[k][threadIdx.x], sum);
        __syncthreads();
    }
    if (row < M && col < N) c[row * N + col] = sum;
}

constexpr int TM = 64, TN = 64, TK = 8;

// Block of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    registers(const float* a, const float* b, float* c, unsigned M, unsigned N, unsigned K) {
    __shared__ float as[TK][TM]; // transposed, so that a thread's four rows are one float4
    __shared__ float bs[TK][TN];
    const unsigned row0 = blockIdx.y * TM, col0 = blockIdx.x * TN;
    const unsigned ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (unsigned k0 = 0; k0 < K; k0 += TK) {
        for (unsigned e = threadIdx.x; e < TM * TK; e += 256) {
            const unsigned m = e / TK, k = e % TK;
            as[k][m] = row0 + m < M && k0 + k < K ? a[(row0 + m) * K + k0 + k] : 0.0f;
        }
        for (unsigned e = threadIdx.x; e < TK * TN; e += 256) {
            const unsigned k = e / TN, n = e % TN;
            bs[k][n] = k0 + k < K && col0 + n < N ? b[(k0 + k) * N + col0 + n] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TK; ++k) {
            const float4 av = *(const float4*)&as[k][ty], bv = *(const float4*)&bs[k][tx];
            const float ar[4] = {av.x, av.y, av.z, av.w}, br[4] = {bv.x, bv.y, bv.z, bv.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(ar[i], br[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (row0 + ty + i < M && col0 + tx + j < N) c[(row0 + ty + i) * N + col0 + tx + j] = sums[i][j];
}
