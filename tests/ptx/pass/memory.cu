//@ arch: sm_80
// State spaces and access sizes.

__constant__ float coefficients[5] = {0.5f, -1.25f, 3.0f, 0.0f, 2.0f};
__constant__ int offset_by_host; // the host writes it before the launch
__device__ unsigned launches = 7; // initialised, lives as long as the module
__device__ double matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};
__device__ float* pointer_to_matrix = (float*)&matrix[1][1];

// y = polynomial of x with the coefficients, plus offset_by_host; counts its launches.
extern "C" __global__ void constants(const float* x, float* y, unsigned n) { // x, y (n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) ++launches;
    if (i >= n) return;
    float sum = 0.0f;
    for (int k = 4; k >= 0; --k) sum = fmaf(sum, x[i], coefficients[k]);
    y[i] = sum + (float)offset_by_host;
}

extern "C" __global__ void variables(double* out) { // out (2)
    out[0] = matrix[1][0] * matrix[0][2];
    out[1] = *(double*)pointer_to_matrix;
    matrix[0][0] += 1;
}

struct Arguments {
    char tag;
    short small[3];
    double scale;
    int values[5];
};

// A structure by value: read from the parameter space, at an index that is not known before.
extern "C" __global__ void structure(Arguments a, double* out, unsigned n) { // out (n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = a.scale * a.values[i % 5] + a.small[i % 3] + a.tag;
}

// Static and dynamic shared memory together; dynamic memory holds bytes, then shorts.
extern "C" __global__ void both_shared(const unsigned char* x, short* y) { // x, y (gridDim.x, blockDim.x)
    extern __shared__ __align__(8) unsigned char dynamic[]; // 3 blockDim.x, rounded up to even in between
    __shared__ short fixed[7];
    const unsigned t = threadIdx.x, width = blockDim.x, base = blockIdx.x * width;
    short* shorts = (short*)(dynamic + (width + 1) / 2 * 2);
    if (t < 7) fixed[t] = (short)(t * t);
    dynamic[t] = x[base + t];
    __syncthreads();
    shorts[width - 1 - t] = (short)(dynamic[t] * 3 - 100 + fixed[t % 7]);
    __syncthreads();
    y[base + t] = shorts[t];
}

// Signed and unsigned bytes and shorts from and to global memory.
extern "C" __global__ void narrow(const signed char* a, const unsigned short* b, signed char* c, unsigned short* d, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    c[i] = (signed char)(a[i] - b[i]);
    d[i] = (unsigned short)(a[i] * b[i]);
}

// Vectors of four: float4 and uchar4, and a generic pointer that is shared for some lanes and global for others.
extern "C" __global__ void vectors(const float4* x, uchar4* bytes, float4* y, unsigned n) { // all (n)
    __shared__ float4 kept[64];
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float4 v = __ldg(x + i);
        bytes[i] = make_uchar4((unsigned char)v.x, (unsigned char)v.y, (unsigned char)v.z, (unsigned char)v.w);
        kept[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
    }
    __syncthreads();
    if (i >= n) return;
    const float4* from = threadIdx.x % 2 ? kept + threadIdx.x : x + i;
    const float4 v = *from;
    y[i] = make_float4(v.x + 1, v.y + 2, v.z + 3, v.w + 4);
}
