//@ arch: sm_80
// c (M, N) float32 = a (M, K) * b in bfloat16 on tensor cores (mma.m16n8k16), float32 sums.
//
// by_rows: b is (N, K), by_cols: b is (K, N), read with ldmatrix.trans. Row strides lda, ldb are multiples of 8 elements,
// for 16-byte copies; M, N and K are anything: cp.async fills what lies beyond with zeros. Tiles of 64 x 64 x 32 are
// copied two stages ahead; 4 warps of 32 x 32 each.

#include <cuda_bf16.h>

constexpr int TM = 64, TN = 64, TK = 32;
constexpr int PAD = 8; // elements: rows of shared memory start 16 bytes apart in banks

__device__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// Copies 16 bytes, of which the first `bytes` come from global memory and the rest are zeros.
__device__ void copy16(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
}

// A tile of `rows` x `cols` elements from a matrix (height, width) with row stride ld, at (row0, col0).
template <int rows, int cols>
__device__ void copy_tile(__nv_bfloat16 (&tile)[rows][cols + PAD], const __nv_bfloat16* from, unsigned height, unsigned width,
                          unsigned ld, unsigned row0, unsigned col0) {
    for (unsigned e = threadIdx.x; e < rows * cols / 8; e += blockDim.x) {
        const unsigned row = e / (cols / 8), col = e % (cols / 8) * 8;
        const bool inside = row0 + row < height && col0 + col < width;
        const int left = inside ? min(8u, width - col0 - col) : 0;
        copy16(&tile[row][col], inside ? from + (size_t)(row0 + row) * ld + col0 + col : from, left * 2);
    }
}

__device__ void ldmatrix4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ void ldmatrix4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <bool rows_of_b>
__device__ void product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, unsigned M, unsigned N, unsigned K,
                        unsigned lda, unsigned ldb) {
    __shared__ alignas(16) __nv_bfloat16 as[2][TM][TK + PAD];
    __shared__ alignas(16) __nv_bfloat16 bs[2][rows_of_b ? TN : TK][(rows_of_b ? TK : TN) + PAD];
    const unsigned row0 = blockIdx.y * TM, col0 = blockIdx.x * TN;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned wm = warp / 2 * 32, wn = warp % 2 * 32;
    auto fetch = [&](unsigned stage, unsigned k0) {
        copy_tile<TM, TK>(as[stage], a, M, K, lda, row0, k0);
        if constexpr (rows_of_b) copy_tile<TN, TK>(bs[stage], b, N, K, ldb, col0, k0);
        else copy_tile<TK, TN>(bs[stage], b, K, N, ldb, k0, col0);
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float sums[2][4][4] = {};
    fetch(0, 0);
    for (unsigned k0 = 0; k0 < K; k0 += TK) {
        const unsigned stage = k0 / TK % 2;
        if (k0 + TK < K) {
            fetch(stage ^ 1, k0 + TK);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TK; k += 16) {
            unsigned af[2][4], bf[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) ldmatrix4(af[i], &as[stage][wm + i * 16 + lane % 16][k + lane / 16 * 8]);
#pragma unroll
            for (int j = 0; j < 2; ++j) { // 16 columns: {k 0-7, k 8-15} of the first 8, then of the second 8
                if constexpr (rows_of_b)
                    ldmatrix4(bf[j], &bs[stage][wn + j * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
                else
                    ldmatrix4_trans(bf[j], &bs[stage][k + lane % 16][wn + j * 16 + lane / 16 * 8]);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) mma(sums[i][j], af[i], bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const unsigned row = row0 + wm + i * 16 + lane / 4 + e / 2 * 8, col = col0 + wn + j * 8 + lane % 4 * 2 + e % 2;
                if (row < M && col < N) c[(size_t)row * N + col] = sums[i][j][e];
            }
}

extern "C" __global__ void __launch_bounds__(128) by_rows(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, unsigned M,
                                                          unsigned N, unsigned K, unsigned lda, unsigned ldb) {
    product<true>(a, b, c, M, N, K, lda, ldb);
}

extern "C" __global__ void __launch_bounds__(128) by_cols(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, unsigned M,
                                                          unsigned N, unsigned K, unsigned lda, unsigned ldb) {
    product<false>(a, b, c, M, N, K, lda, ldb);
}
