//@ arch: sm_80
// What stands between the steps of an epoch, and at its end.
//
//   advance       *step += steps: the captured launches of so many steps have run. One thread.
//   batch_sums    step_losses (steps) f64 and step_hits (steps) of an epoch from its rows: losses, hits (rows)
//
// Rows of step s are s * batch .. min((s + 1) * batch, rows). One block of 256 threads a step; each thread sums rows 256
// apart, then halves are added to halves, all in float64 and in an order that depends on `batch` alone.

typedef unsigned int u32;

extern "C" __global__ void __launch_bounds__(1) advance(u32* step, u32 steps) { *step += steps; }

extern "C" __global__ void __launch_bounds__(256) batch_sums(const float* losses, const u32* hits, double* step_losses, u32* step_hits,
                                                            u32 rows, u32 batch) {
    __shared__ double sums[256];
    __shared__ u32 counts[256];
    const u32 t = threadIdx.x;
    const u32 first = blockIdx.x * batch, end = min(rows - first, batch) + first;
    double sum = 0.0;
    u32 count = 0;
    for (size_t row = (size_t)first + t; row < end; row += 256) {
        sum += losses[row];
        count += hits[row];
    }
    sums[t] = sum;
    counts[t] = count;
    for (u32 half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sums[t] += sums[t + half];
            counts[t] += counts[t + half];
        }
    }
    if (t == 0) {
        step_losses[blockIdx.x] = sums[0];
        step_hits[blockIdx.x] = counts[0];
    }
}
