//@ arch: sm_80
// Rung 1: the whole training of a small model in one launch, by one block. Letters and arithmetic: ladder.cuh.
//
// New here: nothing leaves the block between the first step and the last. Parameters, velocities and activations are in shared
// memory, so that a step costs no launch and no traffic but the batch's pixels. Inside the block __syncthreads parts the phases.
//
// What it costs: one multiprocessor does all the work, and its shared memory bounds the model: two arenas and a batch. Every
// step also waits for the gather of its rows from global memory, twice over: first the sample's number, then its pixels.
//
// Grid: 1 block. Threads: THREADS. Dynamic shared memory, each piece rounded up to 16 bytes:
//   2 x (4 H K, 4 H, 4 H CP, 4 CP) bytes for parameters and velocities, 2 x 4 batch H for h and dh, 4 batch CP for dz,
//   batch pitch for x
// Any K, H, C, batch, rows, epochs from 1 on for which that fits; pitch >= K. Each of `order` is a sample.
// Written: losses (epochs, rows) as they are taken, parameters and velocities at the end. Equal bit for bit from run to run.
#include "ladder.cuh"

__device__ __forceinline__ void train(const Job& job, Carver carve) {
    Model model(job, 0, job.H, carve); // all units
    u8* x = carve.take<u8>(job.batch * job.pitch); // (batch, pitch)
    const u32 t = threadIdx.x;

    model.read();
    for (u32 step = 0; step < job.steps(); step++) {
        const Batch batch = job.batch_of(step);
        const u32 B = batch.B;

        model.gather(x, batch);
        __syncthreads(); // x is there, and the parameters are those that the last step left
        model.hidden(x, B);
        __syncthreads(); // h is there
        for (u32 i = t; i < B * model.quads; i += THREADS) {
            const u32 row = i / model.quads, quad = i % model.quads;
            const float4 b = reinterpret_cast<const float4*>(model.p.b2)[quad], z = model.share(row, quad);
            reinterpret_cast<float4*>(model.dz)[i] = make_float4(z.x + b.x, z.y + b.y, z.z + b.z, z.w + b.w);
        }
        __syncthreads(); // z is there
        for (u32 row = t; row < B; row += THREADS) model.loss(model.dz + row * model.CP, batch.first + row, B);
        __syncthreads(); // dz is there
        model.gradient_at_h(B);
        __syncthreads(); // dh is there, and w2 may change: dh was made from the old one
        model.update(x, B);
        __syncthreads(); // x is read, the next gather may write it
    }
    model.write();
}

LADDER_KERNEL(ladder_single_block, train)
