//@ arch: sm_80
// Inputs as resident.cuh reads them: bfloat16 rows, padded with zeros to tiles of 16 values.
//
//   rows_of_pixels       x (samples, K) u8 -> rows (samples, 16 tiles), the same whole numbers
//   rows_of_floats_<m>   x (samples, K) f32 -> rows (samples, TERMS, 16 tiles), as many terms as <m> has (fragments.cuh)
//
// Any grid of blocks of 256; each thread makes places a grid apart. Every place is written, in one rounding.
#include "fragments.cuh"

typedef unsigned char u8;
typedef unsigned long long u64;

__device__ __forceinline__ void store(__nv_bfloat16* to, u32 pair) { *reinterpret_cast<unsigned short*>(to) = (unsigned short)pair; }

extern "C" __global__ void __launch_bounds__(256) rows_of_pixels(const u8* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    const u32 width = (K + 15) / 16 * 16;
    const u64 places = (u64)samples * width;
    for (u64 place = (u64)blockIdx.x * 256 + threadIdx.x; place < places; place += (u64)gridDim.x * 256) {
        const u64 sample = place / width;
        const u32 k = (u32)(place - sample * width);
        store(rows + place, bf16_pair(k < K ? (float)x[sample * K + k] : 0.0f, 0.0f));
    }
}

template <class Math>
__device__ __forceinline__ void rows_of_floats(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    const u32 width = (K + 15) / 16 * 16;
    const u64 places = (u64)samples * width;
    for (u64 place = (u64)blockIdx.x * 256 + threadIdx.x; place < places; place += (u64)gridDim.x * 256) {
        const u64 sample = place / width;
        const u32 k = (u32)(place - sample * width);
        u32 terms[Math::TERMS];
        split<Math>(k < K ? x[sample * K + k] : 0.0f, 0.0f, terms);
        for (int term = 0; term < Math::TERMS; term++) store(rows + (sample * Math::TERMS + term) * width + k, terms[term]);
    }
}

extern "C" __global__ void __launch_bounds__(256) rows_of_floats_f32(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of_floats<F32>(x, rows, samples, K);
}
extern "C" __global__ void __launch_bounds__(256) rows_of_floats_tf32(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of_floats<Tf32>(x, rows, samples, K);
}
extern "C" __global__ void __launch_bounds__(256) rows_of_floats_bf16(const float* x, __nv_bfloat16* rows, u32 samples, u32 K) {
    rows_of_floats<Bf16>(x, rows, samples, K);
}
