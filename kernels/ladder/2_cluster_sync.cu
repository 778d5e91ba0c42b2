//@ arch: sm_90
// Rung 2: the same by a cluster of eight blocks, which exchange logits and dz through distributed shared memory. Letters and
// arithmetic: ladder.cuh.
//
// New here: the model is spread over the shared memory of eight multiprocessors. Block r owns the U = ceil(H / 8) hidden units
// from r U on: their rows of w1 and b1, their columns of w2, their velocities. It also owns the ceil(batch / 8) rows of every batch
// from r ceil(batch / 8) on: their loss is taken there. A step has two exchanges: each block's share of z to the owners of the
// rows, and dz of the rows to all. Gradients need none: who owns a parameter has all that its gradient is made of.
//
// Both exchanges push: the sender stores into the receiver's memory. A store is on its way and forgotten, while a load that
// pulls the same value waits for the way there and back; and a push is what rung 3 can turn into a message.
//
// Two barriers of the cluster a step are enough, one after each exchange. Shares of the next step are stored after the second, when
// all owners have read those of this one; dz of the next step after the next first, which a block reaches when it has read this dz.
//
// What it costs: a barrier of the cluster stops 8 blocks for the slowest, though a block waits for a few values alone; and
// nothing that has no part in the exchange can be done meanwhile.
//
// Grid: one cluster of 8 blocks. Threads: THREADS a block. Dynamic shared memory a block, each piece rounded up to 16 bytes:
//   2 x (4 U K, 4 U, 4 U CP, 4 CP) bytes for parameters and velocities, 2 x 4 batch U for h and dh, 4 batch CP for dz,
//   32 ceil(batch / 8) CP for shares, 4 ceil(batch / 8) CP for own dz, batch pitch for x
// Any K, H, C, batch, rows, epochs from 1 on for which that fits; pitch >= K. Blocks without units or rows only take part in
// the exchanges. Each of `order` is a sample.
// Written: losses (epochs, rows) as they are taken, parameters and velocities at the end. Equal bit for bit from run to run.
#include "ladder.cuh"

// Into the shared memory of some block.
__device__ __forceinline__ void store(u32 there, float4 value) {
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(there), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
                 : "memory");
}

// This block's share of z, to the owners of the rows.
__device__ __forceinline__ void push_logits(const Model& model, const OwnRows& own, u32 B) {
    for (u32 i = model.t; i < B * model.quads; i += THREADS) {
        const u32 row = i / model.quads, quad = i % model.quads, owner = row / own.owned;
        const float* place = own.shares + (own.rank * own.owned + row % own.owned) * model.CP + 4 * quad; // the same in all blocks
        store(in_block(shared_address(place), owner), model.share(row, quad));
    }
}

// dz of the rows that this block owns, to all blocks.
__device__ __forceinline__ void push_dz(const Model& model, const OwnRows& own, u32 count) {
    for (u32 i = model.t; i < count * model.quads * BLOCKS; i += THREADS) {
        const u32 quad = i / BLOCKS, to = i % BLOCKS; // of all quads of the rows
        const float* place = model.dz + own.first * model.CP + 4 * quad;
        store(in_block(shared_address(place), to), reinterpret_cast<const float4*>(own.dz)[quad]);
    }
}

__device__ __forceinline__ void train(const Job& job, Carver carve) {
    const u32 rank = cluster_rank(), U = (job.H + BLOCKS - 1) / BLOCKS;
    Model model(job, rank * U, U, carve);
    OwnRows own(job, rank, carve);
    u8* x = carve.take<u8>(job.batch * job.pitch); // (batch, pitch), of which each block gathers all

    model.read();
    cluster_sync(); // all blocks have started: before that they have no memory to store into
    for (u32 step = 0; step < job.steps(); step++) {
        const Batch batch = job.batch_of(step);
        const u32 B = batch.B, count = own.of(B);

        model.gather(x, batch);
        __syncthreads(); // x is there, and the parameters are those that the last step left
        model.hidden(x, B);
        __syncthreads(); // h is there
        push_logits(model, own, B);
        cluster_sync(); // the shares of all blocks are there
        own.loss(model, batch, count);
        push_dz(model, own, count);
        cluster_sync(); // dz of all rows is there
        model.gradient_at_h(B);
        __syncthreads(); // dh is there, and w2 may change: dh was made from the old one
        model.update(x, B);
        __syncthreads(); // x is read, the next gather may write it
    }
    model.write();
}

LADDER_KERNEL(ladder_cluster_sync, train)
