// Losses of a row of outputs, for the kernels that take them: one warp a row, sums in a fixed order, lane by lane in steps of
// 32 and then a butterfly.
//
// Each turns the outputs zr (C) into dz, the gradient of the mean loss of `mean` rows, and gives the loss; `hits` is 1 where the
// label's output is the largest, the first of equals. zr lies in global or in shared memory. All 32 lanes take part, and
// have written and read what they had to of zr before; after it, a lane that reads what another has written waits for it.
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

// Whether no output beats the label's. Comparisons with NaN are false, so that NaN is never the largest, and beats.
__device__ __forceinline__ bool is_hit(const float* zr, u32 C, u32 label) {
    const float of_label = zr[label];
    bool beaten = of_label != of_label;
    for (u32 c = threadIdx.x % 32; c < C; c += 32)
        beaten |= c != label && !(c < label ? zr[c] < of_label : zr[c] <= of_label);
    return !__any_sync(~0u, beaten);
}

// logsumexp(z) - z[label];  dz = (softmax(z) - onehot(label)) / mean. Shifted by the largest output, so that no exponential
// overflows; a NaN stays one.
struct CrossEntropy {
    const u8* labels; // (samples)
    u32* hits;        // (rows of the epoch)

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const u32 lane = threadIdx.x % 32, label = labels[row.sample];
        const bool hit = is_hit(zr, C, label);
        const float of_label = zr[label];
        float high = -INFINITE;
        for (u32 c = lane; c < C; c += 32) high = fmaxf(high, zr[c]);
        high = warp_max(high);
        float sum = 0.0f;
        for (u32 c = lane; c < C; c += 32) sum += expf(zr[c] - high);
        sum = warp_sum(sum);
        const float scale = 1.0f / ((float)mean * sum), share = 1.0f / (float)mean;
        __syncwarp(); // every lane has read z[label]
        for (u32 c = lane; c < C; c += 32) zr[c] = fmaf(expf(zr[c] - high), scale, c == label ? -share : 0.0f);
        if (lane == 0) hits[row.of_epoch] = hit;
        return logf(sum) + (high - of_label);
    }
};

// 1/2 sum over c of (z[c] - y[c])^2;  dz = (z - y) / mean. The loss of a batch is the mean over its rows, not over B C.
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

// Against one-hot rows of labels.
struct OneHot {
    const u8* labels; // (samples)
    u32* hits;        // (rows of the epoch)

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const u32 label = labels[row.sample];
        const bool hit = is_hit(zr, C, label);
        __syncwarp(); // every lane has read z[label]
        if (threadIdx.x % 32 == 0) hits[row.of_epoch] = hit;
        return squared_error(zr, C, mean, [&](u32 c) { return c == label ? 1.0f : 0.0f; });
    }
};

// Against values; there are no hits.
struct Values {
    const float* values; // (samples, C)

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const float* y = values + (size_t)row.sample * C;
        return squared_error(zr, C, mean, [&](u32 c) { return y[c]; });
    }
};
