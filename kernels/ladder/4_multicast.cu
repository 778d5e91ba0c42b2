//@ arch: sm_90
// Rung 4: as rung 3, and the rows of a batch come by themselves, a step ahead. Letters and arithmetic: ladder.cuh.
//
// New here: the engine for bulk copies. Each block asks for the rows that it owns, and a multicast brings each of them into all eight
// blocks: a row crosses from global memory once a step, not eight times, and no thread carries a pixel. Bytes count on an mbarrier
// in each receiver, as messages do. There are two slots: while a step computes with the one, the next batch comes into the other.
//
// When is the other slot free? It held the batch of the step before, which a block has read when it tells so at the mbarrier for
// shares of z. A block that has waited there has heard it from all; so the load follows that wait, and has the rest of the step
// and the start of the next to arrive in.
//
// What it costs: a second slot. A copy is of whole 16-byte units, so that rows must be padded. And the copy engine is another
// party: what threads wrote it sees only after a proxy fence (`mbarrier_inits_done`), and what it writes they see after a wait.
//
// Grid: one cluster of 8 blocks. Threads: THREADS a block. Dynamic shared memory a block, each piece rounded up to 16 bytes: that of
// rung 2 but with 2 batch pitch for x, and 32 bytes for four mbarriers.
// Any K, H, C, batch, rows, epochs from 1 on for which that fits, with batch <= 8 THREADS. x begins at a multiple of 16 bytes, and
// pitch is one, >= K; what the padding holds is of no account. Each of `order` is a sample. Bytes of a phase stay below 2^20:
// those of rung 3, and batch pitch.
// Written: losses (epochs, rows) as they are taken, parameters and velocities at the end. Equal bit for bit from run to run, and
// to rungs 2 and 3.
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

// Has the rows of a batch that this block owns copied into the slot `x` (batch, pitch) of all blocks. `loaded` counts there, and here
// all rows, whoever owns them.
__device__ __forceinline__ void load(const Job& job, const OwnRows& own, Batch batch, u8* x, u32 loaded) {
    const u32 t = threadIdx.x;
    if (t == 0) arm(loaded, batch.B * job.pitch);
    if (t >= own.of(batch.B)) return;
    const u32 row = own.first + t;
    const u8* from = job.x + (size_t)job.order[batch.first + row] * job.pitch;
    bulk_copy_to_all(shared_address(x + row * job.pitch), from, job.pitch, loaded, (1u << BLOCKS) - 1);
}

__device__ __forceinline__ void train(const Job& job, Carver carve) {
    const u32 rank = cluster_rank(), U = (job.H + BLOCKS - 1) / BLOCKS, t = threadIdx.x;
    Model model(job, rank * U, U, carve);
    OwnRows own(job, rank, carve);
    u8* slots = carve.take<u8>(2 * job.batch * job.pitch);                                    // (2, batch, pitch)
    const u32 logits = shared_address(carve.take<u64>(4)), dz = logits + 8, loaded = dz + 8; // mbarriers; `loaded` (2)

    model.read();
    if (t == 0) {
        mbarrier_init(logits, 1 + BLOCKS); // the announcement, and an arrival from each block
        mbarrier_init(dz, 1 + BLOCKS);
        for (u32 slot = 0; slot < 2; slot++) mbarrier_init(loaded + 8 * slot, 1);
        mbarrier_inits_done();
    }
    cluster_sync(); // all blocks have started and have their mbarriers
    load(job, own, job.batch_of(0), slots, loaded);
    for (u32 step = 0; step < job.steps(); step++) {
        const Batch batch = job.batch_of(step);
        const u32 B = batch.B, count = own.of(B), parity = step % 2, slot = step % 2, next = 1 - slot;
        const u8* x = slots + slot * job.batch * job.pitch;

        if (t == 0) {
            arm(logits, BLOCKS * count * model.CP * 4);
            arm(dz, B * model.CP * 4);
        }
        tell_all(logits); // the last dz and the last batch are read
        wait(loaded + 8 * slot, step / 2 % 2); // x is there; a slot's turn comes every other step
        model.hidden(x, B);
        __syncthreads(); // h is there
        send_logits(model, own, B, logits);
        wait(logits, parity); // the shares of all blocks are there, and all have read the last dz and the last batch
        if (step + 1 < job.steps()) load(job, own, job.batch_of(step + 1), slots + next * job.batch * job.pitch, loaded + 8 * next);
        own.loss(model, batch, count);
        tell_all(dz); // the shares are read
        send_dz(model, own, count, dz);
        wait(dz, parity); // dz of all rows is there, and all have read their shares
        model.gradient_at_h(B);
        __syncthreads(); // dh is there, and w2 may change: dh was made from the old one
        model.update(x, B);
        __syncthreads(); // x and dz are read, the parameters are the next step's
    }
    model.write(); // and the block may end: all that is sent to it has come
}

LADDER_KERNEL(ladder_multicast, train)
