//@ arch: sm_90
// Rung 3: the exchanges of rung 2 as messages, without a barrier of the cluster in the loop. Letters and arithmetic: ladder.cuh.
//
// New here: a store that counts itself. `send` (st.async) writes 16 bytes into another block and takes 16 off the count of an mbarrier
// that lies there; the receiver announces how many bytes a phase brings (`arm`) and waits for them (`wait`). The values and the
// news that they are there are one message, and threads go on with other work until they need it. See ../cluster.cuh.
//
// Bytes tell the receiver of themselves alone. That their place was free must be known otherwise, and so each exchange has an
// arrival from every block too (`tell`): at the mbarrier for shares of z it says that this block has read the last dz, at the one
// for dz that it has read its shares of z. So shares of the next z are sent when all have read those of this one, and dz of the next
// step when all have read this dz. No block is ever more than one exchange ahead of another: buffers need no second copy, and
// nothing arrives at an mbarrier whose phase before is not over.
//
// What it costs: the reasoning above. An mbarrier has phases, of which only the parity is seen: both flip once a step, in all
// blocks, even where a tail brings an owner no rows (it then announces no bytes). `wait` must acquire at the scope of the cluster;
// with a smaller one the values may be old ones though the count is right.
//
// Grid: one cluster of 8 blocks. Threads: THREADS a block. Dynamic shared memory a block, each piece rounded up to 16 bytes: that of
// rung 2, and 16 bytes for two mbarriers.
// Any K, H, C, batch, rows, epochs from 1 on for which that fits; pitch >= K. Each of `order` is a sample. Bytes of a phase
// stay below 2^20: 32 ceil(batch / 8) CP and 4 batch CP.
// Written: losses (epochs, rows) as they are taken, parameters and velocities at the end. Equal bit for bit from run to run, and
// to rung 2.
#include "ladder.cuh"

// This block's share of z, to the owners of the rows; `barrier` counts there.
__device__ __forceinline__ void send_logits(const Model& model, const OwnRows& own, u32 B, u32 barrier) {
    for (u32 i = model.t; i < B * model.quads; i += THREADS) {
        const u32 row = i / model.quads, quad = i % model.quads, owner = row / own.owned;
        const float* place = own.shares + (own.rank * own.owned + row % own.owned) * model.CP + 4 * quad; // the same in all blocks
        send(in_block(shared_address(place), owner), model.share(row, quad), in_block(barrier, owner));
    }
}

// dz of the rows that this block owns, to all blocks; `barrier` counts there.
__device__ __forceinline__ void send_dz(const Model& model, const OwnRows& own, u32 count, u32 barrier) {
    for (u32 i = model.t; i < count * model.quads * BLOCKS; i += THREADS) {
        const u32 quad = i / BLOCKS, to = i % BLOCKS; // of all quads of the rows
        const float* place = model.dz + own.first * model.CP + 4 * quad;
        send(in_block(shared_address(place), to), reinterpret_cast<const float4*>(own.dz)[quad], in_block(barrier, to));
    }
}

__device__ __forceinline__ void train(const Job& job, Carver carve) {
    const u32 rank = cluster_rank(), U = (job.H + BLOCKS - 1) / BLOCKS, t = threadIdx.x;
    Model model(job, rank * U, U, carve);
    OwnRows own(job, rank, carve);
    u8* x = carve.take<u8>(job.batch * job.pitch); // (batch, pitch), of which each block gathers all
    const u32 logits = shared_address(carve.take<u64>(2)), dz = logits + 8; // mbarriers

    model.read();
    if (t == 0) {
        mbarrier_init(logits, 1 + BLOCKS); // the announcement, and an arrival from each block
        mbarrier_init(dz, 1 + BLOCKS);
        mbarrier_inits_done();
    }
    cluster_sync(); // all blocks have started and have their mbarriers
    for (u32 step = 0; step < job.steps(); step++) {
        const Batch batch = job.batch_of(step);
        const u32 B = batch.B, count = own.of(B), parity = step % 2;

        if (t == 0) {
            arm(logits, BLOCKS * count * model.CP * 4);
            arm(dz, B * model.CP * 4);
        }
        tell_all(logits); // the last dz is read
        model.gather(x, batch);
        __syncthreads(); // x is there, and the parameters are those that the last step left
        model.hidden(x, B);
        __syncthreads(); // h is there
        send_logits(model, own, B, logits);
        wait(logits, parity); // the shares of all blocks are there, and all have read the last dz
        own.loss(model, batch, count);
        tell_all(dz); // the shares are read
        send_dz(model, own, count, dz);
        wait(dz, parity); // dz of all rows is there, and all have read their shares
        model.gradient_at_h(B);
        __syncthreads(); // dh is there, and w2 may change: dh was made from the old one
        model.update(x, B);
        __syncthreads(); // x and dz are read
    }
    model.write(); // and the block may end: all that is sent to it has come
}

LADDER_KERNEL(ladder_messages, train)
