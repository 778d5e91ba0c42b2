//@ arch: sm_80
// Inclusive prefix sums of n integers.
//
// tile_scan + add_totals: Hillis and Steele inside tiles of blockDim.x, then each tile adds the totals before it (two
// launches). lookback: one launch; a tile publishes its sum and then its prefix in one 64-bit word, and looks back over
// the words of earlier tiles (Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back", 2016).

constexpr int TILE = 256;

// The inclusive sum over the block's values; two buffers, so that one barrier a step is enough.
__device__ int block_scan(int value, int (&sums)[2][TILE]) {
    int now = 0;
    sums[0][threadIdx.x] = value;
    for (unsigned offset = 1; offset < blockDim.x; offset *= 2) {
        __syncthreads();
        if (threadIdx.x >= offset) value += sums[now][threadIdx.x - offset];
        now ^= 1;
        sums[now][threadIdx.x] = value;
    }
    return value;
}

extern "C" __global__ void tile_scan(const int* x, int* out, int* totals, unsigned n) { // x, out (n), totals (gridDim.x)
    __shared__ int sums[2][TILE];
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const int sum = block_scan(i < n ? x[i] : 0, sums);
    if (i < n) out[i] = sum;
    if (threadIdx.x == blockDim.x - 1) totals[blockIdx.x] = sum;
}

extern "C" __global__ void add_totals(int* out, const int* totals, unsigned n) { // out (n), totals (gridDim.x)
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int before = 0;
    for (unsigned tile = 0; tile < blockIdx.x; ++tile) before += totals[tile];
    out[i] += before;
}

// What a tile has published: nothing, its own sum, or the sum of all up to it.
enum State : unsigned { EMPTY = 0, SUM = 1, PREFIX = 2 };

__device__ void publish(unsigned long long* word, State state, int value) {
    const unsigned long long packed = (unsigned long long)state << 32 | (unsigned)value;
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(__cvta_generic_to_global(word)), "l"(packed) : "memory");
}

__device__ unsigned long long peek(const unsigned long long* word) {
    unsigned long long packed;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(packed) : "l"(__cvta_generic_to_global(word)) : "memory");
    return packed;
}

// x, out (n); words (gridDim.x) and ticket (1) start as zeros. Tiles are taken in the order in which blocks start, so
// that no block waits for one that is not running.
extern "C" __global__ void lookback(const int* x, int* out, unsigned long long* words, unsigned* ticket, unsigned n) {
    __shared__ int sums[2][TILE];
    __shared__ unsigned tile_of_block;
    __shared__ int before_tile;
    if (threadIdx.x == 0) tile_of_block = atomicAdd(ticket, 1u);
    __syncthreads();
    const unsigned tile = tile_of_block;
    const unsigned i = tile * blockDim.x + threadIdx.x;
    const int sum = block_scan(i < n ? x[i] : 0, sums);
    if (threadIdx.x == blockDim.x - 1) {
        if (tile > 0) publish(words + tile, SUM, sum);
        int before = 0;
        for (unsigned earlier = tile; earlier > 0;) {
            const unsigned long long word = peek(words + earlier - 1);
            const unsigned state = word >> 32;
            if (state == EMPTY) continue;
            before += (int)(unsigned)word;
            if (state == PREFIX) break;
            --earlier;
        }
        publish(words + tile, PREFIX, before + sum);
        before_tile = before;
    }
    __syncthreads();
    if (i < n) out[i] = before_tile + sum;
}
