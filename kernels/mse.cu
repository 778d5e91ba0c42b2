//@ arch: sm_80
// Mean squared error of a batch: loss, hit and gradient of each row in one pass over its outputs, as losses.cuh defines them.
//
//   losses[row] = 1/2 sum over c of (z[c] - y[c])^2;  z (B, C) becomes dz (B, C) = (z - y) / mean
//
// The loss of the batch is the mean over its rows, 1/(2B) sum (y - z)^2 over samples and outputs; not over B C.
// `mse_labels` takes y as one-hot rows of labels and counts hits as softmax_loss.cu does; `mse_values` takes y (samples, C).
//
// `mean`, rows, places of the results, grid: as in softmax_loss.cu.
#include "losses.cuh"

extern "C" __global__ void __launch_bounds__(256) mse_labels(const u8* labels, const u32* order, const u32* step, u32 slot, u32 batch,
                                                            float* z, float* losses, u32* hits, u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    const float loss = OneHot{labels, hits}(row, z + (size_t)row.of_batch * C, C, mean);
    if (threadIdx.x % 32 == 0) losses[row.of_epoch()] = loss;
}

extern "C" __global__ void __launch_bounds__(256) mse_values(const float* values, const u32* order, const u32* step, u32 slot, u32 batch,
                                                            float* z, float* losses, u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    const float loss = Values{values}(row, z + (size_t)row.of_batch * C, C, mean);
    if (threadIdx.x % 32 == 0) losses[row.of_epoch()] = loss;
}
