//@ arch: sm_80
// Integer arithmetic that PTX spells in many ways. Results go to rows of out: out[k * n + i].

extern "C" __global__ void words(const int* a, const int* b, int* out, unsigned n) { // a, b (n), out (24, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int x = a[i], y = b[i];
    const unsigned ux = x, uy = y;
    int k = 0;
    auto put = [&](int value) { out[n * k++ + i] = value; };
    put(y == 0 || (y == -1 && ux == 1u << 31) ? 0 : x / y);
    put(y == 0 || (y == -1 && ux == 1u << 31) ? 0 : x % y);
    put(uy == 0 ? 0 : ux / uy);
    put(uy == 0 ? 0 : ux % uy);
    put(__mulhi(x, y));
    put(__umulhi(ux, uy));
    put(__mul24(x, y));
    put(__umul24(ux, uy));
    put(__clz(x));
    put(__ffs(x));
    put(__popc(ux));
    put(__brev(ux));
    put(__byte_perm(ux, uy, 0x7531 ^ (ux & 0x7777)));
    put(__funnelshift_l(ux, uy, 11));
    put(__funnelshift_r(ux, uy, uy & 31));
    put(__funnelshift_lc(ux, uy, uy & 63));
    put(__sad(x, y, 5u));
    put(__usad(ux, uy, 5u));
    put(__hadd(x, y));
    put(__urhadd(ux, uy));
    put(abs(x));
    put(min(x, y) ^ max(x, y));
    put(__dp4a(x, y, 17));
    put(x >> (y & 31));
}

extern "C" __global__ void long_words(const long long* a, const long long* b, long long* out, unsigned n) { // out (14, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const long long x = a[i], y = b[i];
    const unsigned long long ux = x, uy = y;
    int k = 0;
    auto put = [&](long long value) { out[n * k++ + i] = value; };
    put(y == 0 || (y == -1 && ux == 1ull << 63) ? 0 : x / y);
    put(y == 0 || (y == -1 && ux == 1ull << 63) ? 0 : x % y);
    put(uy == 0 ? 0 : ux / uy);
    put(uy == 0 ? 0 : ux % uy);
    put(x * y);
    put(__mul64hi(x, y));
    put(__umul64hi(ux, uy));
    put(__clzll(x));
    put(__ffsll(x));
    put(__popcll(ux));
    put(__brevll(ux));
    put(x << (y & 63));
    put(x >> (y & 63));
    put((long long)(int)x * (int)y + min(x, y));
}

extern "C" __global__ void conversions(const float* x, const double* y, long long* out, unsigned n) { // out (12, n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int k = 0;
    auto put = [&](long long value) { out[n * k++ + i] = value; };
    put(__float2int_rn(x[i]));
    put(__float2int_rz(x[i]));
    put(__float2int_ru(x[i]));
    put(__float2int_rd(x[i]));
    put(__float2uint_rz(x[i]));
    put(__float2ll_rn(x[i]));
    put((long long)__float2ull_rz(x[i]));
    put(__double2int_rn(y[i]));
    put(__double2uint_rz(y[i]));
    put(__double2ll_rd(y[i]));
    put(__float_as_int(__ll2float_rn((long long)y[i])));
    put(__float_as_int(__double2float_rn(y[i])));
}
