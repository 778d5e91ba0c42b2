// What the rungs of the ladder share: the job, and the arithmetic of a training step on the hidden units that a block owns. Who
// has which units, and who waits for whom, is left to the rungs. The arithmetic is plain; the fast one is in ../resident.cuh.
//
//   each step, of a batch x (B, K):  h (B, H) = relu(x w1^T + b1),  z (B, C) = h w2^T + b2,  loss and dz (B, C),
//   dh (B, H) = dz w2 where h > 0,  gradients of w1 (H, K), b1 (H), w2 (C, H), b2 (C);  v = momentum v + g,  p -= lr v
//
// B: rows of this batch, which are `batch` but in the last of an epoch; the loss is the mean over B. K: inputs. H: hidden units.
// C: classes. U: units that a block owns. CP: C rounded up to a multiple of 4, so that a row of logits is whole 16-byte vectors.
//
// Numbers: float32, fused multiply-adds. Each sum is made by one thread, in an order that depends on the shapes alone.
#pragma once
#include "../cluster.cuh"

typedef unsigned char u8;

constexpr u32 THREADS = 128;
constexpr float PIXEL = 1.0f / 255.0f;

// Rows of a step: `B` places of the run's (epochs, rows) from `first` on.
struct Batch {
    u32 first, B;
};

// What is to be trained, on what. Pointers are to global memory.
struct Job {
    const u8* x;       // (samples, pitch): pixels, which stand for 1/255 each; of a row the first K count
    const u8* labels;  // (samples), each below C
    const u32* order;  // (epochs, rows): samples
    float* parameters; // w1 (H, K), b1 (H), w2 (C, H), b2 (C), each from a multiple of 4 values on
    float* velocities; // the same
    float* losses;     // (epochs, rows)
    u32 K, pitch, H, C, batch, rows, epochs;
    float lr, momentum;

    __device__ u32 steps_of_epoch() const { return (rows + batch - 1) / batch; }
    __device__ u32 steps() const { return epochs * steps_of_epoch(); }
    __device__ Batch batch_of(u32 step) const {
        const u32 epoch = step / steps_of_epoch(), row = step % steps_of_epoch() * batch;
        return {epoch * rows + row, min(batch, rows - row)};
    }
};

__device__ __forceinline__ u32 rounded_up(u32 n, u32 to) { return (n + to - 1) / to * to; }

// Cuts dynamic shared memory into pieces that begin at multiples of 16 bytes: at the same places in every block of a cluster, as
// all cut the same.
struct Carver {
    unsigned char* next;
    template <class T>
    __device__ T* take(u32 count) {
        T* piece = reinterpret_cast<T*>(next);
        next += rounded_up(count * sizeof(T), 16);
        return piece;
    }
};

// A block's parameters, or their velocities.
struct Tensors {
    float *w1, *b1, *w2, *b2; // (U, K), (U), (U, CP), (CP)
};

// The units of a block: `units` from `first` on. Every block has b2, and keeps it the same as the others do.
struct Model {
    const Job& job;
    const u32 t = threadIdx.x;
    const u32 quads, CP, first, units;
    Tensors p, v;  // parameters, velocities
    float *h, *dh; // (B, units)
    float* dz;     // (batch, CP), of all rows

    // Of at most U units.
    __device__ Model(const Job& job, u32 first, u32 U, Carver& carve)
        : job(job), quads((job.C + 3) / 4), CP(4 * quads), first(first), units(min(max(job.H, first) - first, U)) {
        p = {carve.take<float>(U * job.K), carve.take<float>(U), carve.take<float>(U * CP), carve.take<float>(CP)};
        v = {carve.take<float>(U * job.K), carve.take<float>(U), carve.take<float>(U * CP), carve.take<float>(CP)};
        h = carve.take<float>(job.batch * U);
        dh = carve.take<float>(job.batch * U);
        dz = carve.take<float>(job.batch * CP);
    }

    // ---- global memory -----------------------------------------------------------------------------------------------

    // Calls `visit(value in the arena, value here)` for each parameter of this block's units, and of b2 if asked to.
    template <class Visit>
    __device__ void each(float* arena, const Tensors& here, bool b2_too, Visit visit) const {
        const u32 b1 = rounded_up(job.H * job.K, 4), w2 = b1 + rounded_up(job.H, 4), b2 = w2 + rounded_up(job.C * job.H, 4);
        for (u32 i = t; i < units * job.K; i += THREADS) visit(arena[first * job.K + i], here.w1[i]);
        for (u32 u = t; u < units; u += THREADS) visit(arena[b1 + first + u], here.b1[u]);
        for (u32 i = t; i < units * job.C; i += THREADS) {
            const u32 u = i / job.C, c = i % job.C;
            visit(arena[w2 + c * job.H + first + u], here.w2[u * CP + c]);
        }
        for (u32 c = t; c < job.C && b2_too; c += THREADS) visit(arena[b2 + c], here.b2[c]);
    }

    __device__ void read() {
        for (u32 i = t; i < units * CP; i += THREADS) p.w2[i] = 0.0f; // also of the classes that only fill the last vector
        for (u32 c = t; c < CP; c += THREADS) p.b2[c] = 0.0f;
        __syncthreads();
        auto visit = [](float there, float& here) { here = there; };
        each(job.parameters, p, true, visit);
        each(job.velocities, v, true, visit);
    }

    __device__ void write() const {
        auto visit = [](float& there, float here) { there = here; };
        each(job.parameters, p, first == 0, visit); // one block alone writes b2
        each(job.velocities, v, first == 0, visit);
    }

    // Pixels of a batch, (B, pitch).
    __device__ void gather(u8* x, Batch batch) const {
        for (u32 i = t; i < batch.B * job.K; i += THREADS) {
            const u32 row = i / job.K, k = i % job.K;
            x[row * job.pitch + k] = job.x[(size_t)job.order[batch.first + row] * job.pitch + k];
        }
    }

    // ---- a step ------------------------------------------------------------------------------------------------------

    // h of this block's units, from x (B, pitch).
    __device__ void hidden(const u8* x, u32 B) const {
        for (u32 i = t; i < B * units; i += THREADS) {
            const u32 row = i / units, u = i % units;
            float sum = 0.0f;
            for (u32 k = 0; k < job.K; k++) sum = fmaf((float)x[row * job.pitch + k], p.w1[u * job.K + k], sum);
            const float z = fmaf(sum, PIXEL, p.b1[u]);
            h[i] = z < 0.0f ? 0.0f : z; // a NaN stays one
        }
    }

    // What this block's units add to four logits of a row.
    __device__ float4 share(u32 row, u32 quad) const {
        float4 z = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (u32 u = 0; u < units; u++) {
            const float4 w = reinterpret_cast<const float4*>(p.w2)[u * quads + quad];
            const float of_unit = h[row * units + u];
            z.x = fmaf(of_unit, w.x, z.x);
            z.y = fmaf(of_unit, w.y, z.y);
            z.z = fmaf(of_unit, w.z, z.z);
            z.w = fmaf(of_unit, w.w, z.w);
        }
        return z;
    }

    // Cross entropy of the row that stands at `place` of the run; its logits become dz = (softmax(z) - onehot(label)) / B.
    __device__ void loss(float* z, u32 place, u32 B) const {
        const u32 label = job.labels[job.order[place]];
        const float of_label = z[label];
        float high = z[0], sum = 0.0f;
        for (u32 c = 1; c < job.C; c++) high = fmaxf(high, z[c]);
        for (u32 c = 0; c < job.C; c++) sum += z[c] = expf(z[c] - high);
        const float scale = 1.0f / ((float)B * sum), mean = 1.0f / (float)B;
        for (u32 c = 0; c < job.C; c++) z[c] = fmaf(z[c], scale, c == label ? -mean : 0.0f);
        job.losses[place] = logf(sum) + (high - of_label);
    }

    // dh of this block's units, from all of dz.
    __device__ void gradient_at_h(u32 B) const {
        for (u32 i = t; i < B * units; i += THREADS) {
            const u32 row = i / units, u = i % units;
            float sum = 0.0f;
            if (h[i] > 0.0f)
                for (u32 c = 0; c < job.C; c++) sum = fmaf(dz[row * CP + c], p.w2[u * CP + c], sum);
            dh[i] = sum;
        }
    }

    __device__ void descend(float& p, float& v, float g) const {
        v = fmaf(job.momentum, v, g);
        p = fmaf(-job.lr, v, p);
    }

    // Gradients, and the update by them. All of a block have dh when it begins.
    __device__ void update(const u8* x, u32 B) const {
        for (u32 i = t; i < units * job.K; i += THREADS) {
            const u32 u = i / job.K, k = i % job.K;
            float g = 0.0f;
            for (u32 row = 0; row < B; row++) g = fmaf(dh[row * units + u], (float)x[row * job.pitch + k], g);
            descend(p.w1[i], v.w1[i], g * PIXEL);
        }
        for (u32 i = t; i < units * job.C; i += THREADS) {
            const u32 u = i / job.C, c = i % job.C;
            float g = 0.0f;
            for (u32 row = 0; row < B; row++) g = fmaf(dz[row * CP + c], h[row * units + u], g);
            descend(p.w2[u * CP + c], v.w2[u * CP + c], g);
        }
        for (u32 u = t; u < units; u += THREADS) {
            float g = 0.0f;
            for (u32 row = 0; row < B; row++) g += dh[row * units + u];
            descend(p.b1[u], v.b1[u], g);
        }
        for (u32 c = t; c < job.C; c += THREADS) {
            float g = 0.0f;
            for (u32 row = 0; row < B; row++) g += dz[row * CP + c];
            descend(p.b2[c], v.b2[c], g);
        }
    }
};

// ---- rungs of more than one block ------------------------------------------------------------------------------------

constexpr u32 BLOCKS = 8; // of a cluster

// Tells at this mbarrier of every block, one thread each.
__device__ __forceinline__ void tell_all(u32 mbarrier) {
    const u32 rank = threadIdx.x % BLOCKS; // a rank in all threads: the compiler may ask for the address before it looks who tells
    if (threadIdx.x < BLOCKS) tell(in_block(mbarrier, rank));
}

// The rows of every batch whose loss a block takes: `owned` from `first` on, of which a tail may have fewer, or none.
struct OwnRows {
    const u32 rank, owned, first;
    float* shares; // (BLOCKS, owned, CP): what each block's units add to z
    float* dz;     // (owned, CP): first z

    __device__ OwnRows(const Job& job, u32 rank, Carver& carve)
        : rank(rank), owned((job.batch + BLOCKS - 1) / BLOCKS), first(rank * owned) {
        const u32 CP = rounded_up(job.C, 4);
        shares = carve.take<float>(BLOCKS * owned * CP);
        dz = carve.take<float>(owned * CP);
    }

    // How many of a batch of B.
    __device__ u32 of(u32 B) const { return min(max(B, first) - first, owned); }

    // z, loss and dz of the `count` rows, when the shares of all blocks are there; shares are added by rank, so that it is of no
    // account which came first. All threads of the block take part, and find dz.
    __device__ void loss(const Model& model, Batch batch, u32 count) const {
        const u32 CP = model.CP;
        for (u32 i = model.t; i < count * CP; i += THREADS) {
            float z = model.p.b2[i % CP];
            for (u32 block = 0; block < BLOCKS; block++) z += shares[block * owned * CP + i];
            dz[i] = z;
        }
        __syncthreads(); // z is there
        for (u32 row = model.t; row < count; row += THREADS) model.loss(dz + row * CP, batch.first + first + row, batch.B);
        __syncthreads(); // dz is there
    }
};

// A rung's kernel: all have these parameters.
#define LADDER_KERNEL(name, train)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                   \
        name(const u8* x, const u8* labels, const u32* order, float* parameters, float* velocities, float* losses, u32 K, u32 pitch, \
             u32 H, u32 C, u32 batch, u32 rows, u32 epochs, float lr, float momentum) {                                        \
        extern __shared__ __align__(16) unsigned char memory[];                                                                \
        train(Job{x, labels, order, parameters, velocities, losses, K, pitch, H, C, batch, rows, epochs, lr, momentum}, Carver{memory}); \
    }
