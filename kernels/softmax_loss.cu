//@ arch: sm_80
// Cross entropy of a batch: loss, hit and gradient of each row in one pass over its outputs.
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
// One warp a row, grid ceil(B / 8) blocks of 256 threads. C is anything from 1. Sums of a row: lane by lane in steps of 32, then
// a butterfly, so the order is fixed. Shifted by the largest output, so that no exponential overflows; a NaN stays one.
#include "batch.cuh"

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy(const u8* labels, const u32* order, const u32* step, u32 slot,
                                                                       u32 batch, float* z, float* losses, u32* hits, u32 mean, u32 B, u32 C) {
    const Row row(order, step, slot, batch, B);
    if (!row.exists) return; // a whole warp
    float* zr = z + (size_t)row.of_batch * C; // (C)
    const u32 label = labels[row.sample];
    const float of_label = zr[label];
    const u32 lane = threadIdx.x % 32;

    float high = -INFINITE;
    bool beaten = false; // by another output; comparisons with NaN are false, so that it is never the largest
    for (u32 c = lane; c < C; c += 32) {
        high = fmaxf(high, zr[c]);
        beaten |= c != label && !(c < label ? zr[c] < of_label : zr[c] <= of_label);
    }
    high = warp_max(high);
    float sum = 0.0f;
    for (u32 c = lane; c < C; c += 32) sum += expf(zr[c] - high);
    sum = warp_sum(sum);
    const float scale = 1.0f / ((float)mean * sum), share = 1.0f / (float)mean;
    __syncwarp(); // every lane has read z[label]
    for (u32 c = lane; c < C; c += 32) zr[c] = fmaf(expf(zr[c] - high), scale, c == label ? -share : 0.0f);
    beaten = __any_sync(~0u, beaten);
    if (lane == 0) {
        losses[row.of_epoch] = logf(sum) + (high - of_label);
        hits[row.of_epoch] = !beaten && of_label == of_label;
    }
}
