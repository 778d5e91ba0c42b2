//@ arch: sm_80
// Functions that are really called: with several results, recursively, and through pointers.

struct Pair {
    int low;
    long long high;
};

__device__ __noinline__ Pair divided(long long a, int b) { return {(int)(a % b), a / b}; }

__device__ __noinline__ unsigned fibonacci(unsigned n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

__device__ __noinline__ void sort_three(int* v) { // a pointer into the caller's frame
    if (v[0] > v[1]) { const int t = v[0]; v[0] = v[1]; v[1] = t; }
    if (v[1] > v[2]) { const int t = v[1]; v[1] = v[2]; v[2] = t; }
    if (v[0] > v[1]) { const int t = v[0]; v[0] = v[1]; v[1] = t; }
}

__device__ __noinline__ int add(int a, int b) { return a + b; }
__device__ __noinline__ int subtract(int a, int b) { return a - b; }
__device__ __noinline__ int multiply(int a, int b) { return a * b; }
__device__ __noinline__ int larger(int a, int b) { return a > b ? a : b; }

using Operation = int (*)(int, int);
__device__ Operation operations[4] = {add, subtract, multiply, larger};

extern "C" __global__ void divide(const long long* a, const int* b, int* low, long long* high, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const Pair pair = divided(a[i], b[i]);
    low[i] = pair.low;
    high[i] = pair.high;
}

extern "C" __global__ void recurse(const unsigned* x, unsigned* fib, unsigned* ack, unsigned n) { // lanes differ in depth
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    fib[i] = fibonacci(x[i] % 12);
    ack[i] = ackermann(x[i] % 3, x[i] % 5);
}

extern "C" __global__ void frames(const int* x, int* out, unsigned n) { // x, out (n, 3)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v[3] = {x[3 * i], x[3 * i + 1], x[3 * i + 2]};
    sort_three(v);
    for (int k = 0; k < 3; ++k) out[3 * i + k] = v[k];
}

extern "C" __global__ void pointers(const int* x, const int* y, int* out, unsigned n) { // lanes call different functions
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = operations[(unsigned)x[i] % 4](x[i], y[i]);
}
