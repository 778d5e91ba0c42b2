//@ arch: sm_80
// c (M, N) = a (M, K) * b (K, N), float32 rounded to tf32 on the way in, on tensor cores (mma.m16n8k8), float32 sums.
// M, N, K are anything: elements are copied four bytes at a time, zeros beyond the edges. Block of 64 threads: 2 warps,
// one above the other, tile of 32 x 16 x 16, double buffered.

constexpr int TM = 32, TN = 16, TK = 16;

__device__ void copy4(float* to, const float* from, bool inside) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(inside ? 4 : 0)
                 : "memory");
}

__device__ unsigned tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

extern "C" __global__ void __launch_bounds__(64)
    tf32_product(const float* a, const float* b, float* c, unsigned M, unsigned N, unsigned K) {
    __shared__ float as[2][TM][TK + 4], bs[2][TK][TN + 8];
    const unsigned row0 = blockIdx.y * TM, col0 = blockIdx.x * TN;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned group = lane / 4, quad = lane % 4;
    auto fetch = [&](unsigned stage, unsigned k0) {
        for (unsigned e = threadIdx.x; e < TM * TK; e += 64) {
            const unsigned m = e / TK, k = e % TK;
            const bool inside = row0 + m < M && k0 + k < K;
            copy4(&as[stage][m][k], inside ? a + (row0 + m) * K + k0 + k : a, inside);
        }
        for (unsigned e = threadIdx.x; e < TK * TN; e += 64) {
            const unsigned k = e / TN, n = e % TN;
            const bool inside = k0 + k < K && col0 + n < N;
            copy4(&bs[stage][k][n], inside ? b + (k0 + k) * N + col0 + n : b, inside);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float sums[2][4] = {};
    fetch(0, 0);
    for (unsigned k0 = 0; k0 < K; k0 += TK) {
        const unsigned stage = k0 / TK % 2;
        if (k0 + TK < K) {
            fetch(stage ^ 1, k0 + TK);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_all;" ::: "memory");
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TK; k += 8) {
            const float(&at)[TM][TK + 4] = as[stage];
            const unsigned m = warp * 16 + group;
            const unsigned a0 = tf32(at[m][k + quad]), a1 = tf32(at[m + 8][k + quad]);
            const unsigned a2 = tf32(at[m][k + quad + 4]), a3 = tf32(at[m + 8][k + quad + 4]);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const unsigned b0 = tf32(bs[stage][k + quad][j * 8 + group]), b1 = tf32(bs[stage][k + quad + 4][j * 8 + group]);
                asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                             : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
                             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const unsigned row = row0 + warp * 16 + group + e / 2 * 8, col = col0 + j * 8 + quad * 2 + e % 2;
            if (row < M && col < N) c[row * N + col] = sums[j][e];
        }
}
