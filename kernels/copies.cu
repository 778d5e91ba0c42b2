//@ arch: sm_80
// Makes the bfloat16 copies that pipeline.cuh multiplies: rounded to nearest, ties to even.
//
//   copy_pixels      x (B, K) = rows of the data set (samples, K) u8 that the order of the batch names: whole numbers 0..255, exact
//   copy_floats      the same from (samples, K) f32
//   copy_matrix      to (B, K) = from (B, K) f32
//   copy_gradient    the same, and parts (ceil(B / 32), K): sums over 32 rows each of what is copied, before it is rounded
//
// Copies have gaps (pipeline.cuh), which are filled with zeros, but for copy_gradient's, which stay. The batch: as in linear.cuh.
//
// The first three: any grid of blocks of 256; a thread makes 8 values, 16 bytes, a grid apart. copy_gradient: grid (ceil(B / 32),
// ceil(K / 32)), 256 threads, each with 4 rows of a column; its sums are in an order that depends on nothing. 1 KiB of shared memory.
#include "pipeline.cuh"

typedef unsigned long long u64;

template <class Matrix>
__device__ __forceinline__ void copy(const Matrix& from, bf16* to) {
    const u32 chunks = (u32)(pitch(from.width) / 8);
    const u64 places = (u64)from.lines * chunks;
    for (u64 place = (u64)blockIdx.x * 256 + threadIdx.x; place < places; place += (u64)gridDim.x * 256) {
        const u32 line = (u32)(place / chunks), first = (u32)(place % chunks) * 8;
        const typename Matrix::Element* values = from.line(line) + first;
        alignas(16) __nv_bfloat162 pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float low = first + 2 * i < from.width ? (float)values[2 * i] : 0.0f;
            const float high = first + 2 * i + 1 < from.width ? (float)values[2 * i + 1] : 0.0f;
            pairs[i] = __floats2bfloat162_rn(low, high);
        }
        reinterpret_cast<uint4*>(to)[place] = *reinterpret_cast<const uint4*>(pairs);
    }
}

extern "C" __global__ void __launch_bounds__(256) copy_pixels(KILN_BATCH(u8), bf16* x, u32 B, u32 K) { copy(KILN_GATHERED(u8), x); }
extern "C" __global__ void __launch_bounds__(256) copy_floats(KILN_BATCH(float), bf16* x, u32 B, u32 K) {
    copy(KILN_GATHERED(float), x);
}
extern "C" __global__ void __launch_bounds__(256) copy_matrix(const float* from, bf16* to, u32 B, u32 K) {
    copy(Lines<float>{from, B, K}, to);
}

extern "C" __global__ void __launch_bounds__(256) copy_gradient(const float* from, bf16* to, float* parts, u32 B, u32 K) {
    __shared__ float shares[8][32];
    const u32 column = threadIdx.x % 32, row = threadIdx.x / 32;
    const u32 k = blockIdx.y * 32 + column;
    float share = 0.0f;
    if (k < K)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 m = blockIdx.x * 32 + row + i * 8;
            if (m >= B) break;
            const float value = from[(size_t)m * K + k];
            share += value;
            to[m * pitch(K) + k] = __float2bfloat16_rn(value);
        }
    shares[row][column] = share;
    __syncthreads();
    if (row != 0 || k >= K) return;
    float part = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) part += shares[i][column];
    parts[(size_t)blockIdx.x * K + k] = part;
}
