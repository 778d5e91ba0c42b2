// Makes the copies that pipeline.cuh multiplies, in the formats that it names: bf16, tf32 or bf16x3. The kernels of a format are made by
// KILN_COPIES(E).
//
//   copy_pixels_<E>      x (B, K) = rows of the data set (samples, K) u8 that the order of the batch names: whole numbers 0..255,
//                        exact; the first plane of the format alone is written
//   copy_floats_<E>      the same from (samples, K) f32
//   copy_matrix_<E>      to (B, K) = from (B, K) f32
//   copy_gradient_<E>    the same, and parts (ceil(B / 32), K): sums over 32 rows each of what is copied, before it is rounded
//
// Copies have gaps (pipeline.cuh), which are filled with zeros, but for copy_gradient's, which stay. The batch: as in linear.cuh.
//
// The first three: any grid of blocks of 256; a thread makes 16 bytes, a grid apart. copy_gradient: grid (ceil(B / 32),
// ceil(K / 32)), 256 threads, each with 4 rows of a column; its sums are in an order that depends on nothing. 1 KiB of shared memory.
#pragma once
#include "pipeline.cuh"

typedef unsigned long long u64;

template <class V, u32 PLANES, class Matrix>
__device__ __forceinline__ void copy(const Matrix& from, V* to) {
    const u32 chunks = (u32)(pitch<V>(from.width) / CHUNK<V>);
    const u64 places = (u64)from.lines * chunks;
    const auto indices = from.indices();
    for (u64 place = (u64)blockIdx.x * 256 + threadIdx.x; place < places; place += (u64)gridDim.x * 256) {
        const u32 line = (u32)(place / chunks), first = (u32)(place % chunks) * CHUNK<V>;
        const typename Matrix::Element* values = from.at(indices[line]) + first;
        float rest[CHUNK<V>];
#pragma unroll
        for (u32 i = 0; i < CHUNK<V>; i++) rest[i] = first + i < from.width ? (float)values[i] : 0.0f;
#pragma unroll
        for (u32 plane = 0; plane < PLANES; plane++) {
            alignas(16) V chunk[CHUNK<V>];
#pragma unroll
            for (u32 i = 0; i < CHUNK<V>; i++) chunk[i] = taken_from<V>(rest[i]);
            reinterpret_cast<uint4*>(to)[plane * places + place] = *reinterpret_cast<const uint4*>(chunk);
        }
    }
}

template <class E>
__device__ __forceinline__ void copy_gradient(const float* from, const NewCopy<E>& to, float* parts, u32 B, u32 K) {
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
            to.put(m, k, value);
        }
    shares[row][column] = share;
    __syncthreads();
    if (row != 0 || k >= K) return;
    float part = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) part += shares[i][column];
    parts[(size_t)blockIdx.x * K + k] = part;
}

#define KILN_COPY_KERNEL extern "C" __global__ void __launch_bounds__(256)

#define KILN_COPIES(E)                                                                                                       \
    KILN_COPY_KERNEL copy_pixels_##E(KILN_BATCH(u8), Value<E>* x, u32 B, u32 K) {                                            \
        copy<Value<E>, 1>(KILN_BATCH_LINES(u8, K), x);                                                                       \
    }                                                                                                                        \
    KILN_COPY_KERNEL copy_floats_##E(KILN_BATCH(float), Value<E>* x, u32 B, u32 K) {                                         \
        copy<Value<E>, Format<E>::PLANES>(KILN_BATCH_LINES(float, K), x);                                                    \
    }                                                                                                                        \
    KILN_COPY_KERNEL copy_matrix_##E(const float* from, Value<E>* to, u32 B, u32 K) {                                        \
        copy<Value<E>, Format<E>::PLANES>(Lines<float>{from, B, K}, to);                                                     \
    }                                                                                                                        \
    KILN_COPY_KERNEL copy_gradient_##E(const float* from, Value<E>* to, float* parts, u32 B, u32 K) {                        \
        copy_gradient<E>(from, {to, B, K}, parts, B, K);                                                                     \
    }
