//@ arch: sm_80
// Softmax and cross entropy of each row in one pass: loss (B), dlogits (B, C) = (softmax - onehot) / B.
// One warp a row, blocks of (32, 4); C is anything. The probabilities are written nowhere.

extern "C" __global__ void softmax_xent(const float* logits, const int* labels, float* loss, float* dlogits, unsigned B, unsigned C) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= B) return; // whole warps
    const float* z = logits + (size_t)row * C; // (C)
    float high = -__int_as_float(0x7f800000);
    for (unsigned c = threadIdx.x; c < C; c += 32) high = fmaxf(high, z[c]);
    for (int offset = 16; offset > 0; offset /= 2) high = fmaxf(high, __shfl_xor_sync(~0u, high, offset));
    float sum = 0.0f;
    for (unsigned c = threadIdx.x; c < C; c += 32) sum += expf(z[c] - high);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    const unsigned label = labels[row];
    const float scale = 1.0f / sum, mean = 1.0f / B;
    for (unsigned c = threadIdx.x; c < C; c += 32)
        dlogits[(size_t)row * C + c] = (expf(z[c] - high) * scale - (c == label ? 1.0f : 0.0f)) * mean;
    if (threadIdx.x == 0) loss[row] = logf(sum) + high - z[label];
}
