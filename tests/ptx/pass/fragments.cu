//@ arch: sm_90
// Moving fragments of matrices between lanes, one warp: 8 x 8 tiles of 16-bit elements.

// out (8, 8) = in (8, 8) transposed, by movmatrix; in comes through ldmatrix, out leaves through stmatrix.
extern "C" __global__ void transpose_tile(const unsigned short* in, unsigned short* out) {
    __shared__ alignas(16) unsigned short a[8][8], b[8][8];
    for (unsigned e = threadIdx.x; e < 64; e += 32) a[e / 8][e % 8] = in[e];
    __syncwarp();
    const unsigned row = threadIdx.x % 8;
    unsigned r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"((unsigned)__cvta_generic_to_shared(a[row])) : "memory");
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(r));
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"((unsigned)__cvta_generic_to_shared(b[row])), "r"(r) : "memory");
    __syncwarp();
    for (unsigned e = threadIdx.x; e < 64; e += 32) out[e] = b[e / 8][e % 8];
}

// c (16, 8) = a (16, 8) * b (8, 8), float16 with float32 sums: mma.m16n8k8; fragments straight from global memory.
extern "C" __global__ void half_product(const unsigned short* a, const unsigned short* b, float* c) {
    const unsigned group = threadIdx.x / 4, quad = threadIdx.x % 4;
    const unsigned a0 = *(const unsigned*)(a + group * 8 + quad * 2), a1 = *(const unsigned*)(a + (group + 8) * 8 + quad * 2);
    const unsigned b0 = b[quad * 2 * 8 + group] | (unsigned)b[(quad * 2 + 1) * 8 + group] << 16;
    float r[4];
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
                 : "=f"(r[0]), "=f"(r[1]), "=f"(r[2]), "=f"(r[3])
                 : "r"(a0), "r"(a1), "r"(b0), "f"(0.0f));
    for (int e = 0; e < 4; ++e) c[(group + e / 2 * 8) * 8 + quad * 2 + e % 2] = r[e];
}

// Two products in a row without shared memory: d (16, 8) = (a (16, 16) * b (16, 16)) * w (16, 8). The sums of the first,
// rounded to bfloat16, are an operand of the second: the accumulator's layout is the operand's.
extern "C" __global__ void chained(const unsigned short* a, const unsigned short* b, const unsigned short* w, float* d) {
    const unsigned group = threadIdx.x / 4, quad = threadIdx.x % 4;
    unsigned af[4];
    for (int e = 0; e < 4; ++e) af[e] = *(const unsigned*)(a + (group + e % 2 * 8) * 16 + quad * 2 + e / 2 * 8);
    auto column = [&](const unsigned short* m, unsigned ld, unsigned k, unsigned n) {
        return m[k * ld + n] | (unsigned)m[(k + 1) * ld + n] << 16;
    };
    unsigned hidden[4];
    for (int half = 0; half < 2; ++half) {
        const unsigned n = half * 8 + group;
        float r[4] = {};
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                     : "r"(af[0]), "r"(af[1]), "r"(af[2]), "r"(af[3]), "r"(column(b, 16, quad * 2, n)), "r"(column(b, 16, quad * 2 + 8, n)));
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(hidden[half * 2]) : "f"(r[1]), "f"(r[0]));
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(hidden[half * 2 + 1]) : "f"(r[3]), "f"(r[2]));
    }
    float r[4] = {};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                 : "r"(hidden[0]), "r"(hidden[1]), "r"(hidden[2]), "r"(hidden[3]), "r"(column(w, 8, quad * 2, group)),
                   "r"(column(w, 8, quad * 2 + 8, group)));
    for (int e = 0; e < 4; ++e) d[(group + e / 2 * 8) * 8 + quad * 2 + e % 2] = r[e];
}
