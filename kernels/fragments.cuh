// Operands of mma.m16n8k16 in bfloat16, and float32 values as sums of them.
//
// A lane's part of the operands, with g = lane / 4 and q = 2 (lane % 4), e = 0, 1:
//   a (16, 16)   a[0]: (g, q + e)  a[1]: (g + 8, q + e)  a[2]: (g, q + 8 + e)  a[3]: (g + 8, q + 8 + e)
//   b (16, 8)    b[0]: (q + e, g)  b[1]: (q + 8 + e, g)
//   d (16, 8)    d[e]: (g, q + e)  d[2 + e]: (g + 8, q + e)
// so that b transposed and the upper half of d are spread over the lanes in the same way: that is what lets a weight that is an
// operand of the one product be the result of the other, in one register.
#pragma once
#include <cuda_bf16.h>

typedef unsigned int u32;

// Two floats rounded to bfloat16, the first in the lower half. Volatile, so that no compiler computes the terms of all weights
// before the first is needed: there are no registers for that.
__device__ __forceinline__ u32 bf16_pair(float first, float second) {
    u32 pair;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

__device__ __forceinline__ float bf16_first(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_second(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounded to TF32, for tensor cores. The bits that they do not look at are nobody's promise.
__device__ __forceinline__ u32 tf32_bits(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
// The same as a number: those bits are zero.
__device__ __forceinline__ float to_tf32(float x) { return __uint_as_float(tf32_bits(x) & 0xffffe000u); }

// How operands are rounded: to a sum of TERMS bfloat16 values, each the rest's nearest. Of a product of two operands those pairs
// of terms count whose numbers add up to less than PAIRS. Three terms hold all 24 digits of a float32, and the pairs left out
// weigh less than its last one; two hold the 11 digits of TF32, and no pair is left out.
namespace terms {
struct F32 {
    static constexpr int TERMS = 3, PAIRS = 3;
    static __device__ __forceinline__ float rounded(float x) { return x; }
};
struct Tf32 {
    static constexpr int TERMS = 2, PAIRS = 3;
    static __device__ __forceinline__ float rounded(float x) { return to_tf32(x); }
};
struct Bf16 {
    static constexpr int TERMS = 1, PAIRS = 1;
    static __device__ __forceinline__ float rounded(float x) { return x; }
};
} // namespace terms

// The terms of two neighbours.
template <class Math>
__device__ __forceinline__ void split(float first, float second, u32 (&terms)[Math::TERMS]) {
    first = Math::rounded(first);
    second = Math::rounded(second);
#pragma unroll
    for (int term = 0; term < Math::TERMS; term++) {
        terms[term] = bf16_pair(first, second);
        first -= bf16_first(terms[term]);
        second -= bf16_second(terms[term]);
    }
}

// Four 8 x 8 blocks of shared memory; lane l gives the address of line l % 8 of block l / 8.
__device__ __forceinline__ void load_blocks(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// The same, each block transposed.
__device__ __forceinline__ void load_blocks_transposed(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void multiply(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
