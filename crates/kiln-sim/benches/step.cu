//@ arch: sm_80
// One training step of 784-128-10 with batch 64, layer by layer: what the bench `step` times. Not Kiln's own kernels.
//
// Every product is one template: C = A B on tiles of 64 x 32, 128 threads, 4 x 4 results a thread, K in steps of 16.
// B (batch) = 64, K = 784 inputs, N = 128 hidden units, C = 10 classes. All sizes are multiples of the tiles but C.

constexpr int B = 64, K = 784, N = 128, C = 10;
constexpr float LR = 0.01f, MOMENTUM = 0.9f;
constexpr int TM = 64, TN = 32, TK = 16;

// acc[i][j] = sum over k of a(m0 + 4 ty + i, k) b(k, n0 + 4 tx + j)
template <typename A, typename W>
__device__ __forceinline__ void product(A a, W b, int depth, float (&acc)[4][4]) {
  __shared__ __align__(16) float sa[TK][TM], sb[TK][TN];
  const int t = threadIdx.x, tx = t % 8, ty = t / 8;
  for (int k0 = 0; k0 < depth; k0 += TK) {
#pragma unroll
    for (int i = 0; i < TK * TM / 128; i++) {
      const int e = t + 128 * i;
      sa[e / TM][e % TM] = a(e % TM, k0 + e / TM);
    }
#pragma unroll
    for (int i = 0; i < TK * TN / 128; i++) {
      const int e = t + 128 * i;
      sb[e / TN][e % TN] = b(k0 + e / TN, e % TN);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TK; k++) {
      const float4 x = *reinterpret_cast<const float4*>(&sa[k][4 * ty]);
      const float4 y = *reinterpret_cast<const float4*>(&sb[k][4 * tx]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] += xs[i] * ys[j];
    }
    __syncthreads();
  }
}

// h (B, N) = relu(x (B, K) w1 (N, K)^T + b1 (N)). Grid: N / 32 blocks.
extern "C" __global__ void __launch_bounds__(128) forward1(const float* x, const float* w1, const float* b1, float* h) {
  const int n0 = TN * blockIdx.x, tx = threadIdx.x % 8, ty = threadIdx.x / 8;
  float acc[4][4] = {};
  product([&](int m, int k) { return x[m * K + k]; }, [&](int k, int n) { return w1[(n0 + n) * K + k]; }, K, acc);
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      const int n = n0 + 4 * tx + j;
      h[(4 * ty + i) * N + n] = fmaxf(acc[i][j] + b1[n], 0.f);
    }
}

// z = h w2 (C, N)^T + b2; loss (B) of each sample; dz (B, C). Grid: B / 32 blocks, 32 threads, a sample a thread.
extern "C" __global__ void __launch_bounds__(32) forward2(const float* h, const float* w2, const float* b2,
                                                          const unsigned char* labels, float* loss, float* dz) {
  const int m = 32 * blockIdx.x + threadIdx.x;
  float z[C];
  for (int c = 0; c < C; c++) z[c] = b2[c];
  for (int n = 0; n < N; n++) {
    const float v = h[m * N + n];
    for (int c = 0; c < C; c++) z[c] += v * w2[c * N + n];
  }
  float top = z[0], sum = 0;
  for (int c = 1; c < C; c++) top = fmaxf(top, z[c]);
  for (int c = 0; c < C; c++) sum += expf(z[c] - top);
  const int label = labels[m];
  float at = 0;
  for (int c = 0; c < C; c++) {
    if (c == label) at = z[c];
    dz[m * C + c] = (expf(z[c] - top) / sum - (c == label ? 1.f : 0.f)) / B;
  }
  loss[m] = logf(sum) + top - at;
}

// dh (B, N) = dz w2, where h > 0. Grid: B blocks of N threads.
extern "C" __global__ void __launch_bounds__(128) backward2(const float* dz, const float* w2, const float* h, float* dh) {
  const int m = blockIdx.x, n = threadIdx.x;
  float sum = 0;
  for (int c = 0; c < C; c++) sum += dz[m * C + c] * w2[c * N + n];
  dh[m * N + n] = h[m * N + n] > 0.f ? sum : 0.f;
}

// w2 and b2 after dw2 = dz^T h. Grid: C blocks of N threads.
extern "C" __global__ void __launch_bounds__(128) update2(const float* dz, const float* h, float* w2, float* v2, float* b2, float* vb2) {
  const int c = blockIdx.x, n = threadIdx.x;
  float sum = 0, bias = 0;
  for (int m = 0; m < B; m++) {
    sum += dz[m * C + c] * h[m * N + n];
    bias += dz[m * C + c];
  }
  const float v = v2[c * N + n] = MOMENTUM * v2[c * N + n] + sum;
  w2[c * N + n] -= LR * v;
  if (n == 0) {
    const float vb = vb2[c] = MOMENTUM * vb2[c] + bias;
    b2[c] -= LR * vb;
  }
}

// w1 after dw1 (N, K) = dh^T x. Grid: (K / 32 rounded up, N / 64) blocks.
extern "C" __global__ void __launch_bounds__(128) update1(const float* dh, const float* x, float* w1, float* v1) {
  const int m0 = TM * blockIdx.y, n0 = TN * blockIdx.x, tx = threadIdx.x % 8, ty = threadIdx.x / 8;
  float acc[4][4] = {};
  product([&](int m, int k) { return dh[k * N + m0 + m]; },
          [&](int k, int n) { return n0 + n < K ? x[k * K + n0 + n] : 0.f; }, B, acc);
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      const int n = n0 + 4 * tx + j;
      if (n >= K) continue;
      const int at = (m0 + 4 * ty + i) * K + n;
      const float v = v1[at] = MOMENTUM * v1[at] + acc[i][j];
      w1[at] -= LR * v;
    }
}

// b1 after db1 = sum of dh over the batch. One block of N threads.
extern "C" __global__ void __launch_bounds__(128) bias1(const float* dh, float* b1, float* vb1) {
  const int n = threadIdx.x;
  float sum = 0;
  for (int m = 0; m < B; m++) sum += dh[m * N + n];
  const float v = vb1[n] = MOMENTUM * vb1[n] + sum;
  b1[n] -= LR * v;
}
