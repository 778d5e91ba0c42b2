//@ arch: sm_80
// Two warps fill a ring of two buffers, two others empty it. Named barriers carry the hand-over: one side arrives and goes
// on, the other waits (bar.arrive, bar.sync with a number of threads). Block of 128 threads.

constexpr int WIDTH = 64; // threads a side, and values of a buffer

__device__ void sync(int barrier) { asm volatile("barrier.sync %0, 128;" ::"r"(barrier) : "memory"); }
__device__ void arrive(int barrier) { asm volatile("barrier.arrive %0, 128;" ::"r"(barrier) : "memory"); }

// x, y (rounds, 64): y = x + 1, reversed in each row.
extern "C" __global__ void relay(const int* x, int* y, int rounds) {
    __shared__ int ring[2][WIDTH];
    const int t = threadIdx.x % WIDTH;
    const bool producer = threadIdx.x < WIDTH;
    const int full = 1, empty = 3; // barriers 1, 2 and 3, 4: one a buffer
    for (int round = 0; round < rounds; ++round) {
        const int b = round % 2;
        if (producer) {
            if (round >= 2) sync(empty + b);
            ring[b][t] = x[round * WIDTH + t] + 1;
            arrive(full + b);
        } else {
            sync(full + b);
            y[round * WIDTH + t] = ring[b][WIDTH - 1 - t];
            if (round + 2 < rounds) arrive(empty + b);
        }
    }
}

// Barriers that count or vote over the block. out (3, gridDim.x): how many x are odd, whether all are, whether any is.
extern "C" __global__ void votes(const int* x, int* out) { // x (gridDim.x, blockDim.x)
    const int odd = x[blockIdx.x * blockDim.x + threadIdx.x] & 1;
    const int count = __syncthreads_count(odd), all = __syncthreads_and(odd), any = __syncthreads_or(odd);
    if (threadIdx.x != 0) return;
    out[blockIdx.x] = count;
    out[gridDim.x + blockIdx.x] = all != 0;
    out[2 * gridDim.x + blockIdx.x] = any != 0;
}
