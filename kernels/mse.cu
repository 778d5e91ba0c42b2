//@ arch: sm_80
// Mean squared error of a batch: loss, hit and gradient of each row in one pass over its outputs.
//
//   losses[row] = 1/2 sum over c of (z[c] - y[c])^2;  z (B, C) becomes dz (B, C) = (z - y) / mean
//
// The loss of the batch is the mean over its rows, 1/(2B) sum (y - z)^2 over samples and outputs; not over B C.
// `mse_labels` takes y as one-hot rows of labels and counts hits as softmax_loss.cu does; `mse_values` takes y (samples, C).
//
// `mean`, rows, places of the results, grid, order of sums: as in softmax_loss.cu.
#include "batch.cuh"

template <class Target>
__device__ __forceinline__ float squared_error(float* zr, u32 C, u32 mean, Target target) {
    float sum = 0.0f;
    for (u32 c = threadIdx.x % 32; c < C; c += 32) {
        const float difference = zr[c] - target(c);
        sum = fmaf(0.5f * difference, difference, sum);
        zr[c] = difference / (float)mean;
    }
    return warp_sum(sum);
}

extern "C" __global__ void __launch_bounds__(256) mse_labels(const u8* labels, const u32* order, const u32* step, u32 slot, u32 batch,
                                                            float* z, float* losses, u32* hits, u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    float* zr = z + (size_t)row.of_batch * C; // (C)
    const u32 label = labels[row.sample];
    const float of_label = zr[label];
    bool beaten = false;
    for (u32 c = threadIdx.x % 32; c < C; c += 32)
        beaten |= c != label && !(c < label ? zr[c] < of_label : zr[c] <= of_label);
    beaten = __any_sync(~0u, beaten);
    __syncwarp(); // every lane has read z[label]
    const float loss = squared_error(zr, C, mean, [&](u32 c) { return c == label ? 1.0f : 0.0f; });
    if (threadIdx.x % 32 == 0) {
        losses[row.of_epoch] = loss;
        hits[row.of_epoch] = !beaten && of_label == of_label;
    }
}

extern "C" __global__ void __launch_bounds__(256) mse_values(const float* values, const u32* order, const u32* step, u32 slot, u32 batch,
                                                            float* z, float* losses, u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    const float* y = values + (size_t)row.sample * C; // (C)
    const float loss = squared_error(z + (size_t)row.of_batch * C, C, mean, [&](u32 c) { return y[c]; });
    if (threadIdx.x % 32 == 0) losses[row.of_epoch] = loss;
}
