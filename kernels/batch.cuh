// What the kernels of the losses share: rows of a batch, one a warp, and sums over a warp in a fixed order.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;

#define INFINITE __int_as_float(0x7f800000)

// The row that a warp works on.
struct Row {
    u32 of_batch, of_epoch, sample;
    bool exists;

    __device__ Row(const u32* order, const u32* step, u32 slot, u32 batch, u32 B) {
        of_batch = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
        exists = of_batch < B;
        of_epoch = (*step + slot) * batch + of_batch;
        sample = exists ? order[of_epoch] : 0;
    }
};

__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
    return x;
}
