//@ arch: sm_80
// out (cols, rows) = in (rows, cols) transposed, by tiles of 32 x 32 in shared memory; block (32, 8).

extern "C" __global__ void transpose(const float* in, float* out, unsigned rows, unsigned cols) {
    __shared__ float tile[32][33]; // 33: rows start in different banks
    unsigned col = blockIdx.x * 32 + threadIdx.x;
    for (unsigned y = threadIdx.y; y < 32; y += 8) {
        const unsigned row = blockIdx.y * 32 + y;
        if (row < rows && col < cols) tile[y][threadIdx.x] = in[(size_t)row * cols + col];
    }
    __syncthreads();
    col = blockIdx.y * 32 + threadIdx.x; // of out
    for (unsigned y = threadIdx.y; y < 32; y += 8) {
        const unsigned row = blockIdx.x * 32 + y;
        if (row < cols && col < rows) out[(size_t)row * rows + col] = tile[threadIdx.x][y];
    }
}
