//@ arch: sm_80
// Control flow in which the lanes of a warp part and meet again, and arrays that live in local memory.

// A switch of many cases, some of which fall through.
extern "C" __global__ void table(const int* x, int* out, unsigned n) { // x, out (n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i];
    switch (v % 11) {
    case 0: v = v * 3 + 1; break;
    case 1: v ^= 0x55; break;
    case 2: v -= 1000; // falls through
    case 3: v = -v; break;
    case 4: v = v / 7; break;
    case 5: v = __popc(v); break;
    case 6: v <<= 3; break;
    case 7: v = __brev(v); // falls through
    case 8: v = ~v; break;
    case 9: v = v * v; break;
    default: v = 42;
    }
    out[i] = v;
}

// Steps of Collatz's sequence: each lane leaves its loop at another time.
extern "C" __global__ void collatz(const unsigned* x, unsigned* steps, unsigned n) { // x, steps (n)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long v = x[i] + 1ull;
    unsigned count = 0;
    while (v != 1) {
        v = v % 2 ? 3 * v + 1 : v / 2;
        ++count;
    }
    steps[i] = count;
}

// Nested loops with breaks out of the middle: the first prime not below x.
extern "C" __global__ void next_prime(const unsigned* x, unsigned* out, unsigned n) { // x, out (n)
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        unsigned candidate = x[i] < 2 ? 2 : x[i];
        for (;; ++candidate) {
            bool prime = true;
            for (unsigned d = 2; d * d <= candidate; ++d)
                if (candidate % d == 0) {
                    prime = false;
                    break;
                }
            if (prime) break;
        }
        out[i] = candidate;
    }
}

// Each thread sorts eleven values in an array of its own, indexed at run time.
extern "C" __global__ void insertion_sort(const short* x, short* out, unsigned n) { // x, out (n, 11)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    short v[11];
    for (int k = 0; k < 11; ++k) v[k] = x[i * 11 + k];
    for (int k = 1; k < 11; ++k) {
        const short key = v[k];
        int at = k;
        for (; at > 0 && v[at - 1] > key; --at) v[at] = v[at - 1];
        v[at] = key;
    }
    for (int k = 0; k < 11; ++k) out[i * 11 + k] = v[k];
}

// Lanes that part at a warp-wide exchange: the two halves of a warp shuffle among themselves.
extern "C" __global__ void halves(const int* x, int* out) { // x, out (32)
    const unsigned lane = threadIdx.x;
    int v = x[lane];
    if (lane < 16) {
        for (int offset = 8; offset > 0; offset /= 2) v += __shfl_xor_sync(0x0000ffffu, v, offset);
    } else {
        for (int offset = 8; offset > 0; offset /= 2) v = max(v, __shfl_xor_sync(0xffff0000u, v, offset));
    }
    __syncwarp();
    out[lane] = v + __shfl_sync(~0u, v, (lane + 16) % 32);
}
