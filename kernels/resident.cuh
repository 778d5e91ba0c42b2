// The whole training of a model with one hidden layer in one launch: kernels resident_<from>_<units>[_timed], made
// by the macros at the end. docs/RESIDENT.md has the picture.
//
//   each step, of a batch x (B, K):  h = relu(x w1 (H, K)^T + b1),  z (B, C) = h w2 (C, H)^T + b2,  loss and dz (B, C),
//   dh (B, H) = dz w2 where h > 0,  gradients of w1, b1, w2, b2, and SGD's update by them, as in weight_gradients.cuh
//
// One cluster trains one run; a grid of R clusters trains R runs side by side. A block owns UNITS hidden units: their rows of w1
// and their velocities lie in its registers from the first step to the last, spread over eight warps by input; their columns
// of w2 and their biases lie in its shared memory. A block also owns ceil(batch / blocks) rows of every batch:
// their loss is taken there. b2 is kept by every block, and stays the same in all.
//
// Two exchanges a step, and no other wait for another block: each block's share of z goes to the owners of the rows, and dz of
// the rows to all. Both are 16-byte stores that count themselves on the receiver's mbarrier. What one step sends lies beside what
// the step before has sent. While the loss is taken, a block tells all others that it has left that step, whose buffers and
// slots the next step will fill: an arrival with release on one of two mbarriers in turn, made by a warp that waits anyway.
//
// Where there are no clusters (Team::GRID), blocks of a cooperative grid do the same and exchange by global memory, each value with
// the number of its step (grid.cuh). One buffer is enough: a block sends z of a step when all its threads have dz of the
// step before, of every row; that dz has come from owners that had read z of that step from all blocks; and an owner sends dz when
// it has z of all blocks, which had all read the dz before. Every block sends z of every row, units or none. The tail is
// an epoch's last batch, and the blocks meet after it. Each block copies the inputs for itself, by all its warps.
//
// The inputs are bfloat16 rows in global memory, padded with zeros to tiles of 16, one plane for each term (rows.cu).
// They come by bulk copies into slots of `chunk` rows. Where the slots hold two batches, a batch is loaded once, each block
// copying the rows that it owns to all blocks, a step ahead; otherwise every block loads for itself, each chunk once for the
// outputs and once for each pass over the gradient, as many loads ahead as there are slots.
//
// Numbers: products of w1 as Math says (fragments.cuh), all else float32. Sums have an order that depends on the shapes alone, so
// that runs are equal bit for bit, alone or beside others.
//
// Grid: R clusters of 8 or 16 blocks, or as many blocks in a cooperative launch, so that H <= blocks * UNITS. Threads: 256.
// K <= 1024, C <= 16, batch <= 128. chunk: a multiple of 16, at most `Kind::CHUNK`. Dynamic shared memory: `Layout`. order has
// `epochs` times `rows` samples. Written: losses and hits of each row, parameters and velocities at the end, and after each epoch
// where `snapshots` are wanted. After an epoch `stop` is looked at, and ends the training where it is not zero.
#pragma once
#include "resident_job.cuh"

// One block of a run.
template <class S, Team TEAM, bool TIMED>
struct Block {
    static constexpr bool GRID = TEAM == Team::GRID;

    const Job& job;
    unsigned char* const memory;
    const u32 base; // address of `memory`
    const u32 t = threadIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 rank = rank_of(job), blocks = blocks_of(job), shift = 31 - __clz(blocks);
    const u32 owned;                 // rows of a batch that a block owns
    const u32 chunks;                // of a batch
    const bool whole;                // the slots hold two batches
    const u32 tiles, stride, quads;  // of inputs; bytes of a row in a slot; of classes
    const float scale;
    const Layout<S> at;

    // A lane has of unit 8 c + lane / 4 and the tile of inputs warp + 8 i: inputs q + e of [i][c][e], q + 8 + e of [i][c][2 + e].
    float w1[TILES][S::COLUMNS][4], v1[TILES][S::COLUMNS][4];
    Ring use, load;         // the next chunk to compute with, the next to load
    u32 loads;              // of chunks in this epoch
    u32 phase = 0;          // parity of the step: of the two exchanges, and which of two buffers they fill
    u32 left_phase = 0;     // parity of the mbarrier that counts who has left the step before
    u32 sample, ahead;      // of the row that this half warp owns, in this step; of the row that this lane loads, a load ahead
    u32 now;                // of the timed kernels: 32 bits of the clock are enough for a phase, two seconds, and one register
    u32 tag = 1;            // of the step, on what blocks of a grid exchange

    static __device__ __forceinline__ u32 rank_of(const Job& job) {
        if constexpr (GRID) return blockIdx.x & (job.blocks - 1);
        return cluster_rank();
    }

    static __device__ __forceinline__ u32 blocks_of(const Job& job) {
        if constexpr (GRID) return job.blocks;
        return cluster_blocks();
    }

    __device__ __forceinline__ Block(const Job& job, unsigned char* memory, float scale)
        : job(job), memory(memory), base(shared_address(memory)), owned((job.batch + blocks - 1) >> shift),
          chunks((job.batch + job.chunk - 1) / job.chunk), whole(job.slots >= 2 * chunks), tiles((job.K + 15) / 16),
          stride(S::PLANES * 32 * tiles + 16), quads((job.C + 3) / 4), scale(scale), at(TEAM, job.batch, owned, blocks, width()) {}

    __device__ __forceinline__ u32 width() const { return quads * 4; }

    // ---- places ------------------------------------------------------------------------------------------------------

    __device__ __forceinline__ const Run& run() const { return *reinterpret_cast<const Run*>(memory + Layout<S>::RUN); }
    __device__ __forceinline__ float* floats(u32 place) const { return reinterpret_cast<float*>(memory + place); }
    __device__ __forceinline__ u32 logits_barrier() const { return base; }
    __device__ __forceinline__ u32 dz_barrier() const { return base + 8; }
    __device__ __forceinline__ u32 left_barrier() const { return base + 16 + 8 * phase; }
    __device__ __forceinline__ u32 slot_barrier(u32 slot) const { return base + 32 + 8 * slot; }
    __device__ __forceinline__ u32 z_place() const { return at.z + phase * at.z_bytes; }
    __device__ __forceinline__ u32 dz_place() const { return at.dz + (GRID ? 0 : phase * at.dz_bytes); }
    // What blocks of a grid exchange: how often they met, z (batch, blocks, width), dz (batch, width).
    __device__ __forceinline__ u64* met() const {
        return job.exchange + (size_t)(blockIdx.x >> shift) * (2 + job.batch * (blocks + 1) * width());
    }
    __device__ __forceinline__ u64* z_pairs(u32 row, u32 of) const { return met() + 2 + (row * blocks + of) * width(); }
    __device__ __forceinline__ u64* dz_pairs() const { return met() + 2 + job.batch * blocks * width(); }
    __device__ __forceinline__ u32 slot_place(u32 slot) const { return base + at.x + slot * job.chunk * stride; }
    // This lane's address for the blocks of a 16 x 16 tile at `place`, whose lines are `line` bytes apart.
    __device__ __forceinline__ u32 block_line(u32 place, u32 line) const {
        return place + (lane / 8 % 2 * 8 + lane % 8) * line + lane / 16 * 16;
    }

    // n / divisor where n < 512 and divisor <= 16, without the float division that the compiler makes of it: of the reciprocal, rounded
    // up, less than n / 65536 is too much, and the next whole number is 1 / 16 away at least.
    static __device__ __forceinline__ u32 quotient(u32 n, u32 divisor) { return n * RECIPROCALS[divisor] >> 16; }

    // A value computed here, where nobody waits for it, and not where it is used.
    static __device__ __forceinline__ u32 kept(u32 value) {
        u32 same;
        asm volatile("mov.u32 %0, %1;" : "=r"(same) : "r"(value));
        return same;
    }

    __device__ __forceinline__ u32 rows_of(u32 step) const { return min(job.batch, job.rows - step * job.batch); }
    // Rows that this block owns of a batch of B.
    __device__ __forceinline__ u32 owned_of(u32 B) const { return min(max(B, rank * owned) - rank * owned, owned); }

    __device__ __forceinline__ void mark(Phase done) {
        if constexpr (TIMED)
            if (t == 0) {
                const u32 then = now;
                now = clock();
                reinterpret_cast<u64*>(memory + Layout<S>::TIMES)[done] += now - then;
            }
    }

    // ---- loads -------------------------------------------------------------------------------------------------------

    // Announces `rows` rows in the next slot.
    __device__ __forceinline__ void arm_slot(u32 rows) {
        if (lane == 0) arm(slot_barrier(load.slot), rows * (stride - 16));
    }

    __device__ __forceinline__ const char* row_of(u32 sample) const {
        return static_cast<const char*>(job.x) + (size_t)sample * (stride - 16);
    }

    // The last warp loads the batch of a step, where the slots hold two.
    __device__ __forceinline__ void load_batch(const u32* order, u32 step) {
        const u32 B = rows_of(step), row = rank * owned + lane;
        const bool mine = lane < owned_of(B);
        for (u32 chunk = 0; chunk < chunks; chunk++) {
            const u32 first = chunk * job.chunk;
            arm_slot(min(max(B, first) - first, job.chunk));
            if (mine && row - first < job.chunk)
                bulk_copy_to_all(slot_place(load.slot) + (row - first) * stride, row_of(ahead), stride - 16, slot_barrier(load.slot),
                                 (1u << blocks) - 1);
            load.next(job.slots);
        }
        const u32 next = (step + 1) * job.batch + row;
        if (lane < owned && next < job.rows) ahead = order[next];
    }

    // The last warp loads one chunk of a step, where the slots hold less.
    __device__ __forceinline__ void load_chunk(const u32* order, u32 step, u32 chunk) {
        const u32 first = step * job.batch + chunk * job.chunk, rows = min(rows_of(step) - chunk * job.chunk, job.chunk);
        arm_slot(rows);
        for (u32 row = lane; row < rows; row += 32)
            bulk_copy(slot_place(load.slot) + row * stride, row_of(order[first + row]), stride - 16, slot_barrier(load.slot));
        load.next(job.slots);
    }

    // Copies a row of a slot, a warp each.
    __device__ __forceinline__ void copy_row(u32 slot, u32 row, u32 of_sample) {
        const u32 to = slot_place(slot) + row * stride;
        const char* from = row_of(of_sample);
        for (u32 at = lane * 16; at < stride - 16; at += 32 * 16) copy_16(to + at, from + at);
    }

    // Blocks of a grid load for themselves, by all warps. The batch of a step, where the slots hold two: lane l has `samples` of row
    // warp + 8 l.
    __device__ __forceinline__ void copy_batch(u32 samples, u32 step) {
        const u32 B = rows_of(step);
        for (u32 first = 0; first < chunks * job.chunk; first += job.chunk) {
            for (u32 row = warp; row < job.chunk && first + row < B; row += WARPS)
                copy_row(load.slot, row, __shfl_sync(~0u, samples, (first + row) / WARPS));
            arrive_when_copied(slot_barrier(load.slot));
            load.next(job.slots);
        }
    }

    __device__ __forceinline__ u32 samples_of(const u32* order, u32 step, u32 steps) const {
        const u32 row = warp + WARPS * lane;
        return step < steps && row < rows_of(step) ? order[step * job.batch + row] : 0;
    }

    // One chunk of a step, where the slots hold less.
    __device__ __forceinline__ void copy_chunk(const u32* order, u32 step, u32 chunk) {
        const u32 first = step * job.batch + chunk * job.chunk, rows = min(rows_of(step) - chunk * job.chunk, job.chunk);
        for (u32 row = warp; row < rows; row += WARPS) copy_row(load.slot, row, order[first + row]);
        arrive_when_copied(slot_barrier(load.slot));
        load.next(job.slots);
    }

    __device__ __forceinline__ void wait_for_slot() {
        if constexpr (GRID) wait_for_copies(slot_barrier(use.slot), use.parity);
        else wait_for_copy(slot_barrier(use.slot), use.parity);
    }

    // Loads the next chunk of an epoch in the order in which they are used: those of a step for the outputs, and again for each
    // pass of the gradient.
    __device__ __forceinline__ void load_next(const u32* order, u32 steps) {
        const u32 step = loads / (chunks * (1 + S::PASSES)), use = loads - step * chunks * (1 + S::PASSES);
        if (step >= steps) return;
        const u32 of_step = (rows_of(step) + job.chunk - 1) / job.chunk;
        if (use >= of_step * (1 + S::PASSES)) return; // the last step of an epoch may have fewer
        if constexpr (GRID) copy_chunk(order, step, use % of_step);
        else load_chunk(order, step, use % of_step);
        loads++;
    }

    // ---- a step ------------------------------------------------------------------------------------------------------

    // This warp's share of the outputs of ROW_TILES tiles of rows, from the slot at `x`.
    template <int ROW_TILES>
    __device__ __forceinline__ void share_outputs(u32 x, u32 row0) {
        constexpr bool AHEAD = S::COLUMNS == 1 && S::PLANES == 1 && !GRID; // where there are registers for it
        float sums[ROW_TILES][S::COLUMNS][4] = {};
        u32 a[ROW_TILES][4], lines = block_line(x + row0 * stride, stride) + warp * 32; // of the tile that is loaded
        auto load = [&](int m, int plane) { load_blocks(a[m], lines + m * 16 * stride + plane * tiles * 32); };
        if (AHEAD && warp < tiles)
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) load(m, 0);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            if (warp + WARPS * i >= tiles) break; // the whole warp
            u32 w[S::COLUMNS][2][S::TERMS];
#pragma unroll
            for (int c = 0; c < S::COLUMNS; c++)
#pragma unroll
                for (int half = 0; half < 2; half++) split<typename S::Math>(w1[i][c][2 * half], w1[i][c][2 * half + 1], w[c][half]);
#pragma unroll
            for (int plane = 0; plane < S::PLANES; plane++) {
                if (!AHEAD)
#pragma unroll
                    for (int m = 0; m < ROW_TILES; m++) load(m, plane);
                // Where there is no next tile, this one comes again: a branch would cost more.
                if (plane + 1 == S::PLANES && warp + WARPS * (i + 1) < tiles) lines += WARPS * 32;
#pragma unroll
                for (int term = 0; term < S::TERMS && plane + term < S::Math::PAIRS; term++)
#pragma unroll
                    for (int m = 0; m < ROW_TILES; m++) {
#pragma unroll
                        for (int c = 0; c < S::COLUMNS; c++) multiply(sums[m][c], a[m], w[c][0][term], w[c][1][term]);
                        // The rows come anew as soon as they have been multiplied for the last time.
                        const bool done = term + 1 == S::TERMS || plane + term + 1 == S::Math::PAIRS;
                        if (AHEAD && done && i + 1 < TILES) load(m, 0);
                    }
            }
        }
        // Half of the warps leave theirs, the other half add them to theirs and leave the sum.
        float* shares = floats(Layout<S>::SHARES) + warp % ADDERS * S::UNITS * S::CHUNK;
        auto leave = [&](bool adding) {
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
                for (int c = 0; c < S::COLUMNS; c++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const u32 row = row0 + m * 16 + half * 8 + lane / 4;
                        float2* share = reinterpret_cast<float2*>(shares + (c * S::CHUNK + row) * 8) + lane % 4;
                        const float2 own = make_float2(sums[m][c][2 * half], sums[m][c][2 * half + 1]);
                        *share = adding ? make_float2(own.x + share->x, own.y + share->y) : own;
                    }
        };
        __syncthreads(); // the terms of dh that lay here are read
        if (warp >= ADDERS) leave(false);
        __syncthreads();
        if (warp < ADDERS) leave(true);
    }

    // h of a chunk: rows first .. first + rows of the batch; zero in those that fill the last tile.
    __device__ __forceinline__ void outputs_1(u32 x, u32 first, u32 rows) {
        constexpr u32 ROW_TILES = S::CHUNK / 16, PAIRS = S::UNITS / 2;
        const u32 padded = (rows + 15) / 16 * 16;
        if (padded == S::CHUNK)
            share_outputs<ROW_TILES>(x, 0);
        else if (ROW_TILES > 2 && padded == S::CHUNK / 2)
            share_outputs<(ROW_TILES > 2 ? ROW_TILES / 2 : 1)>(x, 0);
        else
            for (u32 row0 = 0; row0 < padded; row0 += 16) share_outputs<1>(x, row0);
        __syncthreads();
        const u32 row = t / PAIRS, c = t % PAIRS / 4, pair = t % 4;
        if (row >= padded) return;
        float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int w = 0; w < ADDERS; w++) {
            const float* shares = floats(Layout<S>::SHARES) + w * S::UNITS * S::CHUNK;
            const float2 share = reinterpret_cast<const float2*>(shares + (c * S::CHUNK + row) * 8)[pair];
            sum.x += share.x;
            sum.y += share.y;
        }
        const float2 b = reinterpret_cast<const float2*>(floats(Layout<S>::B1))[c * 4 + pair];
        const float2 z = make_float2(fmaf(sum.x, scale, b.x), fmaf(sum.y, scale, b.y));
        // `z > 0 ? z : 0` would turn NaN into 0 and hide it; NaN must reach the loss.
        const float2 h = row < rows ? make_float2(z.x < 0.0f ? 0.0f : z.x, z.y < 0.0f ? 0.0f : z.y) : make_float2(0.0f, 0.0f);
        reinterpret_cast<float2*>(floats(at.h) + (first + row) * S::UNITS)[c * 4 + pair] = h;
    }

    // This block's share of z, to the owners of the rows.
    __device__ __forceinline__ void send_logits(u32 B) {
        for (u32 item = t; item < B * quads; item += THREADS) {
            const u32 row = quotient(item, quads), quad = item - row * quads;
            float4 h4[S::UNITS / 4];
#pragma unroll
            for (int u = 0; u < S::UNITS / 4; u++) h4[u] = reinterpret_cast<const float4*>(floats(at.h) + row * S::UNITS)[u];
            const float* h = &h4[0].x;
            float4 z = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (int u = 0; u < S::UNITS; u++) {
                const float4 w = reinterpret_cast<const float4*>(floats(Layout<S>::W2) + u * LINE_2)[quad];
                z.x = fmaf(h[u], w.x, z.x);
                z.y = fmaf(h[u], w.y, z.y);
                z.z = fmaf(h[u], w.z, z.z);
                z.w = fmaf(h[u], w.w, z.w);
            }
            if constexpr (GRID) {
                u64* pairs = z_pairs(row, rank) + quad * 4;
                put(pairs, z.x, z.y, tag);
                put(pairs + 2, z.z, z.w, tag);
                continue;
            }
            const u32 owner = quotient(row, owned), of_owner = row - owner * owned;
            const u32 place = base + z_place() + ((rank * owned + of_owner) * width() + quad * 4) * 4;
            send(in_block(place, owner), z, in_block(logits_barrier(), owner));
        }
    }

    // Adds up what the lanes of a half warp have, in whose places lane % 4 is another quad of classes, or (`APART` 4) lane / 4 % 4 another
    // part of the blocks.
    template <int APART>
    static __device__ __forceinline__ float sum_of_four(float x) {
        x += __shfl_xor_sync(~0u, x, APART);
        return x + __shfl_xor_sync(~0u, x, 2 * APART);
    }

    static __device__ __forceinline__ void add(float4& sum, float x, float y, float z, float w) {
        sum.x += x;
        sum.y += y;
        sum.z += z;
        sum.w += w;
    }

    // Adds the shares of outputs that COUNT blocks, each fourth from `first` on, have of a quad of row `own` of this block. In a cluster
    // those of the first lie at `place`.
    template <int COUNT>
    __device__ __forceinline__ void add_shares(float4& z, u32 own, u32 quad, u32 first, u32 place) const {
        if constexpr (GRID) {
            u64 shares[COUNT][4]; // loads that do not wait for each other
            bool all;
            do {
                all = true;
#pragma unroll
                for (int i = 0; i < COUNT; i++) {
                    const u64* pairs = z_pairs(rank * owned + own, first + i * 4) + quad * 4;
                    look(pairs, shares[i][0], shares[i][1]);
                    look(pairs + 2, shares[i][2], shares[i][3]);
                }
#pragma unroll
                for (int i = 0; i < COUNT * 4; i++) all = all && has(shares[i / 4][i % 4], tag);
            } while (!all);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                add(z, value_of(shares[i][0]), value_of(shares[i][1]), value_of(shares[i][2]), value_of(shares[i][3]));
        } else {
            float4 shares[COUNT];
#pragma unroll
            for (int i = 0; i < COUNT; i++) shares[i] = *reinterpret_cast<const float4*>(floats(place) + i * 4 * owned * width());
#pragma unroll
            for (int i = 0; i < COUNT; i++) add(z, shares[i].x, shares[i].y, shares[i].z, shares[i].w);
        }
    }

    // Loss, hit and dz of the rows that this block owns, a half warp each, and dz to all blocks. A lane has four classes, at first of
    // a fourth of the blocks' shares; in the end it sends them to a fourth of the blocks.
    __device__ __forceinline__ void send_dz(u32 B, u32 target, float value, u32 of_epoch) {
        const u32 own = 2 * warp + lane / 16, quad = lane % 4, part = lane / 4 % 4, count = owned_of(B), half = lane / 16 * 16;
        if constexpr (!GRID)
            if (count == 0 && warp == 0) wait(logits_barrier(), phase); // nothing comes, but no phase may pass that nobody has waited for
        if (2 * warp >= count) return; // the whole warp
        const float rows = (float)B, mean = 1.0f / rows;
        const bool exists = own < count && quad < quads;
        float4 z4 = part == 0 ? reinterpret_cast<const float4*>(floats(Layout<S>::B2))[quad] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const u32 to_send = (rank * owned + own) * width() + quad * 4;
        const u32 shares = kept(z_place() + ((part * owned + own) * width() + quad * 4) * 4), sent = kept(base + dz_place() + to_send * 4);
        const u32 loss_of = kept(job.loss);
        float wanted[4];
#pragma unroll
        for (u32 e = 0; e < 4; e++) wanted[e] = __uint_as_float(kept(quad * 4 + e == target ? 0x3f800000 : 0));
        if constexpr (!GRID) wait(logits_barrier(), phase);
        if (exists) {
            constexpr int AT_ONCE = S::COLUMNS == 1 ? 2 : 1; // blocks of a grid that are asked at once
            if constexpr (GRID)
                for (u32 first = part; first < blocks; first += 4 * AT_ONCE) add_shares<AT_ONCE>(z4, own, quad, first, shares);
            else if (blocks == 16)
                add_shares<4>(z4, own, quad, part, shares);
            else
                add_shares<2>(z4, own, quad, part, shares);
        }
        const float z[4] = {sum_of_four<4>(z4.x), sum_of_four<4>(z4.y), sum_of_four<4>(z4.z), sum_of_four<4>(z4.w)};
        bool is[4]; // a class
#pragma unroll
        for (u32 e = 0; e < 4; e++) is[e] = exists && quad * 4 + e < job.C;
        // dz first, for which all blocks wait; then what the loss needs besides.
        float high = -__int_as_float(0x7f800000), sum = 0.0f, dz[4], difference[4];
        if (loss_of == CROSS_ENTROPY) {
#pragma unroll
            for (u32 e = 0; e < 4; e++)
                if (is[e]) high = fmaxf(high, z[e]);
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                const float power = expf(z[e] - high);
                dz[e] = is[e] ? power : 0.0f;
            }
            sum = sum_of_four<1>((dz[0] + dz[1]) + (dz[2] + dz[3]));
            const float share = 1.0f / (rows * sum);
#pragma unroll
            for (u32 e = 0; e < 4; e++) dz[e] = fmaf(dz[e], share, wanted[e] * -mean);
        } else {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                const float of_sample = __shfl_sync(~0u, value, half + quad * 4 + e);
                difference[e] = is[e] ? z[e] - (loss_of == VALUES ? of_sample : wanted[e]) : 0.0f;
                dz[e] = difference[e] * mean;
            }
        }
        if constexpr (GRID) {
            if (exists && part < 2) put(dz_pairs() + to_send + part * 2, part ? dz[2] : dz[0], part ? dz[3] : dz[1], tag);
        } else if (exists) {
            for (u32 to = part; to < blocks; to += 4)
                send(in_block(sent, to), make_float4(dz[0], dz[1], dz[2], dz[3]), in_block(dz_barrier(), to));
        }
        const u32 label = kept(target);
        const float labelled = label & 2 ? (label & 1 ? z[3] : z[2]) : (label & 1 ? z[1] : z[0]);
        const float of_label = __shfl_sync(~0u, labelled, half + label / 4);
        bool beaten = false;
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            const u32 c = quad * 4 + e;
            beaten |= is[e] & (c != target) & !(c < target ? z[e] < of_label : z[e] <= of_label);
        }
        const bool hit = !(__ballot_sync(~0u, beaten) >> half & 0xffff) && of_label == of_label;
        float loss;
        if (loss_of == CROSS_ENTROPY) {
            loss = logf(sum) + (high - of_label);
        } else {
            loss = 0.0f;
#pragma unroll
            for (u32 e = 0; e < 4; e++) loss = fmaf(0.5f * difference[e], difference[e], loss);
            loss = sum_of_four<1>(loss);
        }
        if (lane % 16 == 0 && own < count) {
            run().losses[of_epoch] = loss;
            run().hits[of_epoch] = loss_of != VALUES && hit;
        }
    }

    // dz of all rows from the blocks of a grid, two values a thread at a time.
    __device__ __forceinline__ void receive_dz(u32 B) {
        for (u32 item = t; item < B * quads * 2; item += THREADS) {
            u64 first, second;
            do look(dz_pairs() + item * 2, first, second);
            while (!has(first, tag) || !has(second, tag));
            reinterpret_cast<float2*>(floats(dz_place()))[item] = make_float2(value_of(first), value_of(second));
        }
        __syncthreads();
    }

    // w2 of the unit that this thread takes dh of.
    __device__ __forceinline__ void read_w2(float4 (&w)[4]) const {
#pragma unroll
        for (u32 quad = 0; quad < 4; quad++)
            w[quad] = reinterpret_cast<const float4*>(floats(Layout<S>::W2) + t % S::UNITS * LINE_2)[quad];
    }

    // Terms of dh into shared memory; each warp's share of db1.
    __device__ __forceinline__ void gradient_at_h(u32 B, u32 dz_place, const float4 (&w)[4]) {
        const u32 u = t % S::UNITS, padded = (B + 15) / 16 * 16;
        float db = 0.0f;
        for (u32 pair = t / S::UNITS; pair < padded / 2; pair += THREADS / S::UNITS) {
            float dh[2];
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                const u32 row = 2 * pair + e;
                const float h = floats(at.h)[row * S::UNITS + u]; // 0 where there is no row, whatever lies there as its dz
                float4 dz[4];                                     // all loads of a row before its first product
#pragma unroll
                for (u32 quad = 0; quad < 4; quad++)
                    dz[quad] = quad < quads ? reinterpret_cast<const float4*>(floats(dz_place) + row * width())[quad]
                                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f); // four chains, so that no product waits for long
#pragma unroll
                for (u32 quad = 0; quad < 4; quad++) {
                    sum.x = fmaf(dz[quad].x, w[quad].x, sum.x);
                    sum.y = fmaf(dz[quad].y, w[quad].y, sum.y);
                    sum.z = fmaf(dz[quad].z, w[quad].z, sum.z);
                    sum.w = fmaf(dz[quad].w, w[quad].w, sum.w);
                }
                dh[e] = h > 0.0f ? (sum.x + sum.y) + (sum.z + sum.w) : 0.0f;
                db += dh[e];
            }
            u32 terms[S::TERMS];
            split<typename S::Math>(dh[0], dh[1], terms);
#pragma unroll
            for (int term = 0; term < S::TERMS; term++)
                *reinterpret_cast<u32*>(memory + Layout<S>::SHARES + (term * S::UNITS + u) * at.line + pair * 4) = terms[term];
        }
        for (int offset = S::UNITS; offset < 32; offset *= 2) db += __shfl_xor_sync(~0u, db, offset);
        if (lane < S::UNITS) floats(Layout<S>::DB1)[warp * S::UNITS + lane] = db;
    }

    // Sums of four values over the eight lanes of equal lane % 4; of lane l the value l / 4 % 4, in lanes l and l ^ 16.
    __device__ __forceinline__ float sum_of_eight(float4 s) const {
        // Each lane keeps half of what it has, and sends the other half, until one value is left.
        const bool high = lane & 8, odd = lane & 4;
        float a = high ? s.z : s.x, b = high ? s.w : s.y;
        a += __shfl_xor_sync(~0u, high ? s.x : s.z, 8);
        b += __shfl_xor_sync(~0u, high ? s.y : s.w, 8);
        float sum = (odd ? b : a) + __shfl_xor_sync(~0u, odd ? a : b, 4);
        return sum + __shfl_xor_sync(~0u, sum, 16);
    }

    // Adds to `sum` what ROWS rows bring, each eighth from `row` on: dz of four classes times h of a unit or, for BIASES, 1. Then dz, h and
    // the row are those of the next.
    template <bool BIASES, int ROWS>
    __device__ __forceinline__ void add_rows(float4& sum, const float*& dz, const float*& h, u32& row, u32 B) const {
        float4 d[ROWS]; // loads that do not wait for each other
        float factor[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++, row += 8) {
            d[i] = *reinterpret_cast<const float4*>(dz);
            factor[i] = !BIASES ? h[i * 8 * S::UNITS] : row < B ? 1.0f : 0.0f; // h is 0 where no row is, its dz an earlier one
            dz += 8 * width();
        }
        h += ROWS * 8 * S::UNITS;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            sum.x = fmaf(d[i].x, factor[i], sum.x);
            sum.y = fmaf(d[i].y, factor[i], sum.y);
            sum.z = fmaf(d[i].z, factor[i], sum.z);
            sum.w = fmaf(d[i].w, factor[i], sum.w);
        }
    }

    // Gradients of four classes of a unit or, for BIASES, of the classes themselves, and the update of the one that this lane comes to.
    template <bool BIASES>
    __device__ __forceinline__ void update_quad(u32 B, u32 dz_place, u32 quad, u32 unit, bool mine, const Scalars& scalars,
                                                const Rule& rule) {
        const u32 padded = (B + 15) / 16 * 16, c = quad * 4 + lane / 4 % 4;
        float* p = floats(BIASES ? Layout<S>::B2 : Layout<S>::W2 + unit * LINE_2 * 4) + c;
        float* v = floats(BIASES ? Layout<S>::VB2 : Layout<S>::V2 + unit * LINE_2 * 4) + c;
        mine = mine && lane < 16 && c < job.C;
        float weight = mine ? *p : 0.0f, velocity = mine ? *v : 0.0f;
        constexpr int AT_ONCE = GRID || S::COLUMNS == 2 ? 4 : 8; // rows that are read at once
        u32 row = lane / 4;
        const float* dz = floats(dz_place) + row * width() + quad * 4;
        const float* h = floats(at.h) + row * S::UNITS + unit;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
        while (row + AT_ONCE * 8 - 8 < padded) add_rows<BIASES, AT_ONCE>(sum, dz, h, row, B);
#pragma unroll 1
        while (row < padded) add_rows<BIASES, 2>(sum, dz, h, row, B);
        descend(weight, velocity, sum_of_eight(sum), scalars, rule);
        if (mine) {
            *p = weight;
            *v = velocity;
        }
    }

    // Gradients of w2, b2 and b1, and their update. A warp takes four classes of four units, a lane every eighth row of them; one more
    // takes the biases of all classes. The first warp, which owns rows of the batch and has b1, comes last.
    __device__ __forceinline__ void update_2(u32 B, u32 dz_place, const Scalars& scalars) {
        constexpr u32 PARTS = S::UNITS / 4;
        const Rule rule = run().rule;
        u32 item = (warp + WARPS - 1) % WARPS;
        for (; item < quads * PARTS; item += WARPS)
            update_quad<false>(B, dz_place, item / PARTS, item % PARTS * 4 + lane % 4, true, scalars, rule);
        if (item == quads * PARTS) update_quad<true>(B, dz_place, min(lane % 4, quads - 1), 0, lane % 4 < quads, scalars, rule);
        if (t < S::UNITS) {
            float db = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) db += floats(Layout<S>::DB1)[w * S::UNITS + t];
            descend(floats(Layout<S>::B1)[t], floats(Layout<S>::VB1)[t], db, scalars, rule);
        }
    }

    // Terms of dh of 16 rows from `place` on. The lower half of the last tile may not be there: zeros.
    __device__ __forceinline__ void load_terms(u32 (&dh)[S::LINE_TILES][4], u32 place) const {
#pragma unroll
        for (int tile = 0; tile < S::LINE_TILES; tile++) {
            const u32 lines = block_line(place + tile * 16 * at.line, at.line);
            const bool zero = S::HALF_TILE && tile + 1 == S::LINE_TILES && lane & 8;
            load_blocks(dh[tile], zero ? base + Layout<S>::ZEROS : lines);
        }
    }

    // Adds to the gradient of w1 what a chunk in the slot at `x` brings, in COUNT tiles of inputs, each eighth from `tile0` on: code for
    // every count, since a branch between products costs more than they do. Of the result's tiles (16 lines, 8 inputs) a lane has the inputs
    // that it has of w1; where a unit's terms lie on two halves of the lines, the halves are added in the end.
    template <int COUNT>
    __device__ __forceinline__ void gradient_tiles(u32 tile0, u32 x, u32 first, u32 rows, float (&g)[S::PART][2][4]) {
        constexpr bool AHEAD = S::COLUMNS == 1 && !GRID; // where there are registers for it
        constexpr int GROUPS = (COUNT + S::TOGETHER - 1) / S::TOGETHER;
        for (u32 row0 = 0; row0 < rows; row0 += 16) {
            u32 dh[S::LINE_TILES][4], b[AHEAD + 1][S::TOGETHER][4];
            const u32 lines = block_line(x + row0 * stride, stride) + tile0 * 32;
            // Tiles of a group in one plane.
            auto load = [&](int step) {
#pragma unroll
                for (int j = 0; j < S::TOGETHER; j++) {
                    const int i = step / S::PLANES * S::TOGETHER + j;
                    if (i < COUNT) load_blocks_transposed(b[step % (AHEAD + 1)][j], lines + (step % S::PLANES * tiles + i * WARPS) * 32);
                }
            };
            load_terms(dh, base + Layout<S>::SHARES + (first + row0) * 2);
            if (AHEAD) load(0);
#pragma unroll
            for (int step = 0; step < GROUPS * S::PLANES; step++) {
                if (!AHEAD) load(step);
                else if (step + 1 < GROUPS * S::PLANES) load(step + 1); // while these are multiplied
#pragma unroll
                for (int line_tile = 0; line_tile < S::LINE_TILES; line_tile++)
                    if (step % S::PLANES + line_tile * 16 / S::UNITS < S::Math::PAIRS)
#pragma unroll
                        for (int at = 0; at < 2 * S::TOGETHER; at++) {
                            const int i = step / S::PLANES * S::TOGETHER + at / 2;
                            const u32 (&tile)[4] = b[step % (AHEAD + 1)][at / 2];
                            if (i < COUNT) multiply(g[i][at % 2], dh[line_tile], tile[at % 2 * 2], tile[at % 2 * 2 + 1]);
                        }
            }
        }
    }

    // The same for as many tiles as this warp has in a part, COUNT or more.
    template <int COUNT = 1>
    __device__ __forceinline__ void gradient_1(int part, u32 x, u32 first, u32 rows, float (&g)[S::PART][2][4]) {
        const u32 tile0 = warp + WARPS * part * S::PART;
        if (tile0 + WARPS * (COUNT - 1) >= tiles) return;
        if constexpr (COUNT < S::PART)
            if (tile0 + WARPS * COUNT < tiles) return gradient_1<COUNT + 1>(part, x, first, rows, g);
        gradient_tiles<COUNT>(tile0, x, first, rows, g);
    }

    __device__ __forceinline__ void update_1(int part, const float (&g)[S::PART][2][4], const Scalars& scalars) {
#pragma unroll
        for (int j = 0; j < S::PART; j++) {
            const int i = part * S::PART + j;
            if (warp + WARPS * i >= tiles) break; // the whole warp
#pragma unroll
            for (int c = 0; c < S::COLUMNS; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float* sums = g[j][e / 2];
                    const float sum = S::COLUMNS == 1 ? sums[e % 2] + sums[2 + e % 2] : sums[2 * c + e % 2];
                    descend(w1[i][c][e], v1[i][c][e], sum * scale, scalars, run().rule);
                }
        }
    }

    // The order of a training step.
    __device__ __forceinline__ void step(const u32* order, u32 row_of_run, u32 number, u32 steps, const Scalars* of_step) {
        const u32 B = rows_of(number), count = owned_of(B), own = 2 * warp + lane / 16;
        // Read now, needed when the logits are there and for the update; the sample was read a step ago.
        const Scalars scalars = *of_step;
        const bool mine = own < count;
        const u32 target = mine && job.loss != VALUES ? job.labels[sample] : 0;
        const float value = mine && job.loss == VALUES && lane % 16 < job.C ? job.values[(size_t)sample * job.C + lane % 16] : 0.0f;
        const u32 of_batch = rank * owned + own, next = (number + 1) * job.batch + of_batch;
        if (own < owned && next < job.rows) sample = order[next];
        u32 later = 0;
        if constexpr (GRID)
            if (whole) later = samples_of(order, number + 1, steps);

        if (!GRID && t == 0) {
            arm(logits_barrier(), blocks * count * quads * 16);
            arm(dz_barrier(), B * quads * 16);
        }
        const Ring first_use = use;
        for (u32 first = 0; first < B; first += job.chunk) {
            mark(LAYER_1);
            wait_for_slot();
            mark(LOADS);
            outputs_1(slot_place(use.slot), first, min(B - first, job.chunk));
            use.next(job.slots);
            __syncthreads(); // h is there, the shares of its sums and the slot are read
            if (!whole && (GRID || warp == WARPS - 1)) load_next(order, steps);
        }
        mark(LAYER_1);
        send_logits(B);
        mark(LOGITS);
        send_dz(B, target, value, row_of_run + of_batch);
        if constexpr (GRID)
            if (whole && number + 1 < steps) copy_batch(later, number + 1);
        // By warps that own rows of the largest batches alone. All of this block has left the step before, since the barriers above.
        if (!GRID && warp == WARPS - 2 && lane < blocks) tell(in_block(left_barrier(), lane & (blocks - 1)));
        if (!GRID && warp == WARPS - 1) {
            wait(left_barrier(), left_phase); // with the next barrier, all of this block know that all others have
            if (whole && number + 1 < steps) load_batch(order, number + 1);
        }
        const u32 dz = kept(dz_place());
        float4 w2[4];
        read_w2(w2);
        mark(LOSS);
        if constexpr (GRID) receive_dz(B);
        else wait(dz_barrier(), phase);
        mark(DZ);
        gradient_at_h(B, dz, w2);
        __syncthreads(); // w2 is read, the terms of dh are there
        update_2(B, dz, scalars);
        left_phase ^= phase; // each of the two is used every other step
        phase ^= 1;
        tag++;
        mark(LAYER_2);
        u32 first = 0; // row of the batch
#pragma unroll
        for (int part = 0; part < S::PASSES; part++) {
            float g[S::PART][2][4] = {};
            if (whole) use = first_use;
            for (first = 0; first < B; first += job.chunk) {
                if (!whole) wait_for_slot();
                gradient_1(part, slot_place(use.slot), first, min(B - first, job.chunk), g);
                use.next(job.slots);
                if (whole) continue;
                __syncthreads(); // the slot is read
                if (GRID || warp == WARPS - 1) load_next(order, steps);
            }
            mark(GRADIENT);
            update_1(part, g, scalars);
            mark(UPDATE);
        }
        // Slots of chunks that a tail does not have: nothing has come there, but no phase may pass that nobody has waited for.
        if (whole)
            for (; first < job.batch; first += job.chunk) {
                wait_for_slot();
                use.next(job.slots);
            }
    }

    // ---- a run -------------------------------------------------------------------------------------------------------

    // Calls `visit(value in the arena, register)` for each parameter of w1 that this lane has; `of` are w1 or v1.
    template <class Arena, class Visit>
    __device__ __forceinline__ void each_1(Arena* arena, float (&of)[TILES][S::COLUMNS][4], Visit visit) {
        const u32 first = kept(16 * warp + lane % 4 * 2); // opaque, so that the places are not in registers from epoch to epoch
#pragma unroll
        for (int c = 0; c < S::COLUMNS; c++) {
            const u32 unit = rank * S::UNITS + 8 * c + lane / 4;
            Arena* inputs = arena + (size_t)unit * job.K + first;
            if (unit < job.H)
#pragma unroll
                for (int i = 0; i < TILES; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const int k = 16 * WARPS * i + e / 2 * 8 + e % 2;
                        if (first + k < job.K) visit(inputs[k], of[i][c][e]);
                    }
        }
    }

    // The same for the parameters that lie in shared memory, at these places; one block alone writes b2, as all have it.
    template <class Arena, class Visit>
    __device__ __forceinline__ void each_other(Arena* arena, u32 w2, u32 b1, u32 b2, bool b2_too, Visit visit) {
        const Places places(job.K, job.H, job.C);
        const u32 unit0 = rank * S::UNITS;
        for (u32 i = t; i < S::UNITS * job.C; i += THREADS) {
            const u32 u = i % S::UNITS, c = i / S::UNITS;
            if (unit0 + u < job.H) visit(arena[places.w2 + c * job.H + unit0 + u], floats(w2)[u * LINE_2 + c]);
        }
        if (t < S::UNITS && unit0 + t < job.H) visit(arena[places.b1 + unit0 + t], floats(b1)[t]);
        if (t < job.C && b2_too) visit(arena[places.b2 + t], floats(b2)[t]);
    }

    __device__ __forceinline__ void read(const float* arena, float (&of_1)[TILES][S::COLUMNS][4], u32 w2, u32 b1, u32 b2) {
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int c = 0; c < S::COLUMNS; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) of_1[i][c][e] = 0.0f;
        auto visit = [](float there, float& here) { here = there; };
        each_1(arena, of_1, visit);
        each_other(arena, w2, b1, b2, true, visit);
    }

    __device__ __forceinline__ void write(float* arena, float (&of_1)[TILES][S::COLUMNS][4], u32 w2, u32 b1, u32 b2) {
        auto visit = [](float& there, float here) { there = here; };
        each_1(arena, of_1, visit);
        each_other(arena, w2, b1, b2, rank == 0, visit);
    }

    __device__ __forceinline__ void write_parameters(float* arena) { write(arena, w1, Layout<S>::W2, Layout<S>::B1, Layout<S>::B2); }

    __device__ __forceinline__ void write_velocities(float* arena) { write(arena, v1, Layout<S>::V2, Layout<S>::VB1, Layout<S>::VB2); }

    // Parameters after an epoch, or (`which` 1) velocities.
    __device__ __forceinline__ float* snapshot(u32 epoch, u32 which) {
        return run().snapshots + (size_t)(2 * epoch + which) * Places(job.K, job.H, job.C).end;
    }

    // Parameters; mbarriers; zeros where nothing else may ever be written: in the slots, behind the last rows of dz.
    __device__ __forceinline__ void begin(const Run* record) {
        for (u32 place = t * 16; place < Layout<S>::DB1; place += THREADS * 16)
            *reinterpret_cast<float4*>(memory + place) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const u32 end = at.x + job.slots * job.chunk * stride;
        for (u32 place = at.dz + t * 16; place < end; place += THREADS * 16)
            *reinterpret_cast<float4*>(memory + place) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        __syncthreads();
        if (t < sizeof(Run) / 4) reinterpret_cast<u32*>(memory + Layout<S>::RUN)[t] = reinterpret_cast<const u32*>(record)[t];
        // Arrivals: this block's own, which announces bytes; or one from each block. In a grid: of all threads that copy.
        if (t < 4 + job.slots) mbarrier_init(base + 8 * t, GRID ? THREADS : t / 2 == 1 ? blocks : 1);
        __syncthreads();
        read(run().parameters, w1, Layout<S>::W2, Layout<S>::B1, Layout<S>::B2);
        read(run().velocities, v1, Layout<S>::V2, Layout<S>::VB1, Layout<S>::VB2);
        // In a grid: all blocks have read the description before the first of them writes to it.
        if constexpr (GRID) {
            if (t == 0) grid_meet(met(), blocks, 1);
            __syncwarp(); // what follows is for whole warps
        } else {
            mbarrier_inits_done();
            cluster_sync();
        }
    }

    __device__ __forceinline__ void begin_epoch(const u32* order, u32 steps) {
        const u32 own = 2 * warp + lane / 16, row = rank * owned + own;
        if (own < owned && row < job.rows) sample = order[row];
        if constexpr (GRID)
            if (whole) return copy_batch(samples_of(order, 0, steps), 0);
        if (!GRID && warp != WARPS - 1) return;
        if (!GRID && whole) {
            if (lane < owned && rank * owned + lane < job.rows) ahead = order[rank * owned + lane];
            load_batch(order, 0);
            return;
        }
        loads = 0;
        for (u32 slot = 0; slot < job.slots; slot++) load_next(order, steps);
    }

    __device__ __forceinline__ void stamp(u32 place) {
        if (rank == 0 && t == 0) {
            u64 time;
            asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
            run().ended[place] = time;
        }
    }

    __device__ __forceinline__ void train(Run* record) {
        begin(record);
        stamp(0);
        if constexpr (TIMED) now = clock();
        const u32 steps = (job.rows + job.batch - 1) / job.batch;
        for (u32 epoch = 0; epoch < job.epochs; epoch++) {
            const u32* order = run().order + (size_t)epoch * job.rows;
            begin_epoch(order, steps);
            for (u32 number = 0; number < steps; number++)
                step(order, epoch * job.rows + number * job.batch, number, steps, run().scalars + (size_t)epoch * steps + number);
            __syncthreads(); // parameters in shared memory are updated
            if (run().snapshots) {
                write_parameters(snapshot(epoch, 0));
                write_velocities(snapshot(epoch, 1));
            }
            if (rank == 0 && t == 0) // the same answer for all blocks
                *reinterpret_cast<volatile u32*>(&record->epochs) =
                    *reinterpret_cast<const volatile u32*>(job.stop) ? epoch + 1 : job.epochs;
            stamp(epoch + 1);
            // All have received what was sent, and no copy is on its way; all know the answer.
            if constexpr (GRID) {
                if (t == 0) grid_meet(met(), blocks, epoch + 2);
                __syncthreads();
            } else {
                cluster_sync();
            }
            if (*reinterpret_cast<const volatile u32*>(&record->epochs) == epoch + 1) break;
        }
        write_parameters(run().parameters);
        write_velocities(run().velocities);
        if constexpr (TIMED)
            if (t == 0)
                for (u32 i = 0; i < PHASES; i++)
                    job.times[blockIdx.x * PHASES + i] = reinterpret_cast<const u64*>(memory + Layout<S>::TIMES)[i];
    }
};

template <class S, Team TEAM, bool TIMED>
__device__ __forceinline__ void resident(const Job& job, Run* runs, float scale) {
    extern __shared__ __align__(16) unsigned char memory[];
    Run* run = runs + blockIdx.x / Block<S, TEAM, TIMED>::blocks_of(job);
    Block<S, TEAM, TIMED>(job, memory, scale).train(run);
}

#define KILN_RESIDENT_ARGUMENTS                                                                                                  \
    const void *x, const u8 *labels, const float *values, Run *runs, const u32 *stop, u64 *times, u32 loss, u32 K, u32 H, u32 C, \
        u32 batch, u32 rows, u32 epochs, u32 chunk, u32 slots
#define KILN_RESIDENT_JOB x, labels, values, stop, times, loss, K, H, C, batch, rows, epochs, chunk, slots

#define KILN_RESIDENT_KERNEL(name, UNITS, Math, PLANES, SCALE, TIMED)                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(KILN_RESIDENT_ARGUMENTS) { \
        resident<Kind<UNITS, Math, PLANES>, Team::CLUSTER, TIMED>(Job{KILN_RESIDENT_JOB, nullptr, 0}, runs, SCALE); \
    }

#define KILN_RESIDENT_GRID_KERNEL(name, UNITS, Math, PLANES, SCALE, TIMED)                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(KILN_RESIDENT_ARGUMENTS, u64* exchange, u32 blocks) {       \
        resident<Kind<UNITS, Math, PLANES>, Team::GRID, TIMED>(Job{KILN_RESIDENT_JOB, exchange, blocks}, runs, SCALE);        \
    }

// Kernels of 8 and of 16 units a block.
#define KILN_RESIDENT_BOTH(KERNEL, name, Math, PLANES, SCALE, TIMED, suffix) \
    KERNEL(name##_8##suffix, 8, Math, PLANES, SCALE, TIMED)                  \
    KERNEL(name##_16##suffix, 16, Math, PLANES, SCALE, TIMED)

// A module each, so that a driver compiles only what is asked for.
#define KILN_RESIDENT_PIXELS(Math) KILN_RESIDENT_BOTH(KILN_RESIDENT_KERNEL, resident_pixels, Math, 1, PIXEL, false, )
#define KILN_RESIDENT_FLOATS(Math) KILN_RESIDENT_BOTH(KILN_RESIDENT_KERNEL, resident_floats, Math, Math::TERMS, 1.0f, false, )
#define KILN_RESIDENT_GRID_PIXELS(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_GRID_KERNEL, resident_grid_pixels, Math, 1, PIXEL, false, )
#define KILN_RESIDENT_GRID_FLOATS(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_GRID_KERNEL, resident_grid_floats, Math, Math::TERMS, 1.0f, false, )
#define KILN_RESIDENT_PIXELS_TIMED(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_KERNEL, resident_pixels, Math, 1, PIXEL, true, _timed)
#define KILN_RESIDENT_FLOATS_TIMED(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_KERNEL, resident_floats, Math, Math::TERMS, 1.0f, true, _timed)
#define KILN_RESIDENT_GRID_PIXELS_TIMED(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_GRID_KERNEL, resident_grid_pixels, Math, 1, PIXEL, true, _timed)
#define KILN_RESIDENT_GRID_FLOATS_TIMED(Math) \
    KILN_RESIDENT_BOTH(KILN_RESIDENT_GRID_KERNEL, resident_grid_floats, Math, Math::TERMS, 1.0f, true, _timed)
