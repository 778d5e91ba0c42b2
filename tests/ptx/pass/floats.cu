//@ arch: sm_80
// Float32 and float64 arithmetic and the functions of CUDA's math library, slow paths included (huge arguments of sinf go
// through Payne and Hanek's reduction in local memory). Results go to rows of out: out[k * n + i].

extern "C" __global__ void single_functions(const float* a, const float* b, float* out, unsigned n) { // out (24, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float x = a[i], y = b[i], positive = fabsf(x);
    int k = 0;
    auto put = [&](float value) { out[n * k++ + i] = value; };
    put(sinf(x));
    put(cosf(x));
    put(tanf(x));
    put(expf(x));
    put(exp2f(x));
    put(expm1f(x));
    put(logf(positive));
    put(log2f(positive));
    put(log1pf(positive));
    put(powf(positive, y));
    put(tanhf(x));
    put(atan2f(x, y));
    put(erff(x));
    put(cbrtf(x));
    put(hypotf(x, y));
    put(fmodf(x, y));
    put(floorf(x));
    put(rintf(x));
    put(truncf(x));
    put(copysignf(x, y));
    put(fdimf(x, y));
    put(fminf(x, y));
    put(fmaxf(x, y));
    put(ldexpf(x, (int)y % 16));
}

// Correctly rounded by the standard: compared bit for bit.
extern "C" __global__ void single_exact(const float* a, const float* b, const float* c, float* out, unsigned n) { // out (17, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float x = a[i], y = b[i], z = c[i];
    int k = 0;
    auto put = [&](float value) { out[n * k++ + i] = value; };
    put(__fadd_rn(x, y));
    put(__fadd_rz(x, y));
    put(__fadd_ru(x, y));
    put(__fadd_rd(x, y));
    put(__fmul_rn(x, y));
    put(__fmul_rz(x, y));
    put(__fmul_ru(x, y));
    put(__fmul_rd(x, y));
    put(__fmaf_rn(x, y, z));
    put(__fmaf_rz(x, y, z));
    put(__fdiv_rn(x, y));
    put(__fdiv_ru(x, y));
    put(__fsqrt_rn(fabsf(x)));
    put(__fsqrt_rd(fabsf(x)));
    put(__frcp_rn(x));
    put(__frcp_rz(x));
    put(__saturatef(x));
}

// The fast instructions, which are allowed some error (a few units in the last place).
extern "C" __global__ void single_fast(const float* a, const float* b, float* out, unsigned n) { // out (9, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float x = a[i], y = b[i], positive = fabsf(x);
    int k = 0;
    auto put = [&](float value) { out[n * k++ + i] = value; };
    put(__sinf(x));
    put(__cosf(x));
    put(__expf(x));
    put(__log2f(positive));
    put(__fdividef(x, y));
    put(rsqrtf(positive));
    put(__powf(positive, y));
    float approximate;
    asm("tanh.approx.f32 %0, %1;" : "=f"(approximate) : "f"(x));
    put(approximate);
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(approximate) : "f"(positive));
    put(approximate);
}

extern "C" __global__ void doubles(const double* a, const double* b, double* out, unsigned n) { // out (16, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const double x = a[i], y = b[i], positive = fabs(x);
    int k = 0;
    auto put = [&](double value) { out[n * k++ + i] = value; };
    put(x + y); // rows 0 to 7 are correctly rounded
    put(__dadd_rz(x, y));
    put(__dmul_ru(x, y));
    put(__fma_rn(x, y, -x));
    put(x / y);
    put(sqrt(positive));
    put(floor(x));
    put((double)(float)x);
    put(exp(x)); // from here on, to some units in the last place
    put(log(positive));
    put(sin(x));
    put(cos(x));
    put(pow(positive, y));
    put(tanh(x));
    put(atan(x));
    put(cbrt(x));
}
