//@ arch: sm_80
// Inputs as resident.cuh reads them: bfloat16 rows, padded with zeros to tiles of 16 values.
//
//   rows_of_pixels       x (samples, K) u8 -> rows (samples, 16 tiles), the same whole numbers
//   rows_of_floats_<m>   x (samples, K) f32 -> rows (samples, TERMS, 16 tiles), as many terms as <m> has (fragments.cuh)
//
// Any grid of blocks of 256; each thread makes pairs of values a grid apart. Every value is written, in one rounding.
// rows is 4-byte aligned.
#include "fragments.cuh"

typedef unsigned char u8;
typedef unsigned long long u64;

// The values k and k + 1 of a sample, zero past the last.
template <class T>
__device__ __forceinline__ float2 pair_of(const T* sample, u32 k, u32 K) {
    return make_float2(k < K ? (float)sample[k] : 0.0f, k + 1 < K ? (float)sample[k + 1] : 0.0f);
}

template <class Math, class T>
__device__ __forceinline__ void rows_of(const T* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    const u32 row_pairs = (K + 15) / 16 * 8;
    const u64 pairs = samples * (u64)row_pairs;
    for (u64 pair = (u64)blockIdx.x * 256 + threadIdx.x; pair < pairs; pair += (u64)gridDim.x * 256) {
        const u64 sample = pair / row_pairs;
        const u32 at = (u32)(pair - sample * row_pairs);
        const float2 values = pair_of(x + sample * K, at * 2, K);
        u32 terms[Math::TERMS];
        split<Math>(values.x, values.y, terms);
        u32* row = reinterpret_cast<u32*>(rows) + sample * Math::TERMS * row_pairs;
        for (int term = 0; term < Math::TERMS; term++) row[(u64)term * row_pairs + at] = terms[term];
    }
}

// Whole numbers up to 255 are exact in one term.
extern "C" __global__ void __launch_bounds__(256) rows_of_pixels(const u8* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of<terms::Bf16>(x, rows, samples, K);
}
extern "C" __global__ void __launch_bounds__(256) rows_of_floats_f32(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of<terms::F32>(x, rows, samples, K);
}
extern "C" __global__ void __launch_bounds__(256) rows_of_floats_tf32(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of<terms::Tf32>(x, rows, samples, K);
}
extern "C" __global__ void __launch_bounds__(256) rows_of_floats_bf16(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of<terms::Bf16>(x, rows, samples, K);
}
