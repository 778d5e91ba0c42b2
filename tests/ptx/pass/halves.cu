//@ arch: sm_80
// 16-bit floats, alone and in pairs. Results go to rows of out: out[k * n + i].

#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void pairs(const __half2* a, const __half2* b, const __half2* c, __half2* out, unsigned n) { // out (9, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __half2 x = a[i], y = b[i], z = c[i];
    int k = 0;
    auto put = [&](__half2 value) { out[n * k++ + i] = value; };
    put(__hadd2(x, y));
    put(__hsub2(x, y));
    put(__hmul2(x, y));
    put(__hfma2(x, y, z));
    put(__hmin2(x, y));
    put(__hmax2(x, y));
    put(__hneg2(x));
    put(__habs2(x));
    put(__hadd2_sat(x, y));
}

extern "C" __global__ void brain_pairs(const __nv_bfloat162* a, const __nv_bfloat162* b, const __nv_bfloat162* c, __nv_bfloat162* out,
                                       unsigned n) { // out (7, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __nv_bfloat162 x = a[i], y = b[i], z = c[i];
    int k = 0;
    auto put = [&](__nv_bfloat162 value) { out[n * k++ + i] = value; };
    put(__hadd2(x, y));
    put(__hsub2(x, y));
    put(__hmul2(x, y));
    put(__hfma2(x, y, z));
    put(__hmin2(x, y));
    put(__hmax2(x, y));
    put(__hfma2_relu(x, y, z));
}

// Roundings to 16 bits and comparisons. half_out (4, n), brain_out (3, n), flags (6, n).
extern "C" __global__ void conversions(const float* x, const float* y, __half* half_out, __nv_bfloat16* brain_out, int* flags, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    half_out[0 * n + i] = __float2half_rn(x[i]);
    half_out[1 * n + i] = __float2half_rz(x[i]);
    half_out[2 * n + i] = __float2half_ru(x[i]);
    half_out[3 * n + i] = __float2half_rd(x[i]);
    brain_out[0 * n + i] = __float2bfloat16_rn(x[i]);
    brain_out[1 * n + i] = __float2bfloat16_rz(x[i]);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(y[i], x[i]);
    brain_out[2 * n + i] = __high2bfloat16(pair);
    const __half a = __float2half(x[i]), b = __float2half(y[i]);
    flags[0 * n + i] = __hlt(a, b);
    flags[1 * n + i] = __heq(a, b);
    flags[2 * n + i] = __hgtu(a, b); // true if not ordered
    flags[3 * n + i] = __half2int_rn(a);
    flags[4 * n + i] = __half2int_rz(b);
    flags[5 * n + i] = __hisnan(a);
}
