//@ arch: sm_80
// Cross entropy of a batch: loss, hit and gradient of each row in one pass over its outputs, as losses.cuh defines them.
//
//   losses[row] = logsumexp(z) - z[label];  hits[row] = 1 where z[label] is the largest, the first of equals
//   z (B, C) becomes dz (B, C) = (softmax(z) - onehot(label)) / mean
//
// `mean` are the rows that the loss is the mean of: B, or more where B is a part of a batch.
//
// The probabilities are written nowhere. The row of a batch is order[(*step + slot) * batch ..][..B]; losses and hits have a
// place for each row of an epoch, (*step + slot) * batch + row, so that a step needs no sum across rows: `batch_sums` makes
// those of all steps at once.
//
// One warp a row, grid ceil(B / 8) blocks of 256 threads. C is anything from 1. Runs are equal bit for bit.
#include "losses.cuh"

extern "C" __global__ void __launch_bounds__(256)
    softmax_cross_entropy(const u8* labels, const u32* order, const u32* step, u32 slot, u32 batch, float* z, float* losses, u32* hits,
                          u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    const float loss = CrossEntropy{labels, hits}(row, z + (size_t)row.of_batch * C, C, mean);
    if (threadIdx.x % 32 == 0) losses[row.of_epoch()] = loss;
}
