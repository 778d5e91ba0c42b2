// Losses of a row of outputs, for the kernels that take them: one warp a row, sums in a fixed order, lane by lane in steps of
// 32 and then a butterfly.
//
// Each turns the outputs zr (C) into dz, the gradient of the mean loss of `mean` rows, and gives the loss; `hits` is 1 where the
// label's output is the largest, the first of equals. zr lies in global or in shared memory. All 32 lanes take part, and
// have written and read what they had to of zr before; after it, a lane that reads what another has written waits for it.
//
// Each has a second form for up to 32 outputs, with output c in lane c, and the row's target loaded before. The results are the same, bit
// for bit.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;

#define INFINITE __int_as_float(0x7f800000)

// The row that a warp works on. Which sample it is takes two loads, one after the other.
struct Row {
    const u32 *order, *step;
    u32 slot, batch, of_batch;
    bool exists;

    __device__ Row(const u32* order, const u32* step, u32 slot, u32 batch, u32 B)
        : order(order), step(step), slot(slot), batch(batch), of_batch(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32),
          exists(of_batch < B) {}
    __device__ u32 of_epoch() const { return (*step + slot) * batch + of_batch; }
    __device__ u32 sample() const { return order[of_epoch()]; }
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

// The same of lanes that have an output each.
__device__ __forceinline__ bool is_hit(float z, float of_label, u32 C, u32 label) {
    const u32 c = threadIdx.x % 32;
    return !__any_sync(~0u, of_label != of_label || (c < C && c != label && !(c < label ? z < of_label : z <= of_label)));
}

// What losses against labels have in common.
struct Labels {
    using Target = u32;
    const u8* labels; // (samples)
    u32* hits;        // (rows of the epoch)

    __device__ __forceinline__ u32 target(u32 sample, u32) const { return labels[sample]; }
};

// logsumexp(z) - z[label];  dz = (softmax(z) - onehot(label)) / mean. Shifted by the largest output, so that no exponential
// overflows; a NaN stays one.
struct CrossEntropy : Labels {
    __device__ __forceinline__ float operator()(u32 of_epoch, u32 label, float& z, u32 C, u32 mean) const {
        const u32 lane = threadIdx.x % 32;
        const float of_label = __shfl_sync(~0u, z, label);
        const bool hit = is_hit(z, of_label, C, label);
        const float high = warp_max(lane < C ? z : -INFINITE);
        const float exponential = lane < C ? expf(z - high) : 0.0f;
        const float sum = warp_sum(exponential);
        const float scale = 1.0f / ((float)mean * sum), share = 1.0f / (float)mean;
        z = fmaf(exponential, scale, lane == label ? -share : 0.0f);
        if (lane == 0) hits[of_epoch] = hit;
        return logf(sum) + (high - of_label);
    }

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const u32 lane = threadIdx.x % 32, label = target(row.sample(), C);
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
        if (lane == 0) hits[row.of_epoch()] = hit;
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

// The same of lanes that have an output and its target each.
__device__ __forceinline__ float squared_error(float& z, float target, u32 C, u32 mean) {
    const float difference = threadIdx.x % 32 < C ? z - target : 0.0f;
    z = difference / (float)mean;
    return warp_sum(0.5f * difference * difference);
}

// Against one-hot rows of labels.
struct OneHot : Labels {
    __device__ __forceinline__ float operator()(u32 of_epoch, u32 label, float& z, u32 C, u32 mean) const {
        const u32 lane = threadIdx.x % 32;
        const bool hit = is_hit(z, __shfl_sync(~0u, z, label), C, label);
        if (lane == 0) hits[of_epoch] = hit;
        return squared_error(z, lane == label ? 1.0f : 0.0f, C, mean);
    }

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const u32 label = target(row.sample(), C);
        const bool hit = is_hit(zr, C, label);
        __syncwarp(); // every lane has read z[label]
        if (threadIdx.x % 32 == 0) hits[row.of_epoch()] = hit;
        return squared_error(zr, C, mean, [&](u32 c) { return c == label ? 1.0f : 0.0f; });
    }
};

// Against values; there are no hits.
struct Values {
    using Target = float;
    const float* values; // (samples, C)

    __device__ __forceinline__ const float* of(u32 sample, u32 C) const { return values + (size_t)sample * C; }
    __device__ __forceinline__ float target(u32 sample, u32 C) const { return of(sample, C)[min(threadIdx.x % 32, C - 1)]; }

    __device__ __forceinline__ float operator()(u32, float target, float& z, u32 C, u32 mean) const {
        return squared_error(z, target, C, mean);
    }

    __device__ __forceinline__ float operator()(const Row& row, float* zr, u32 C, u32 mean) const {
        const float* y = of(row.sample(), C);
        return squared_error(zr, C, mean, [&](u32 c) { return y[c]; });
    }
};
