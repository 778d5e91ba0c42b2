// What resident.cuh is told, and where it keeps things: the kinds of kernels, the descriptions of a launch and of its runs, and the
// layout of a block's shared memory. The host's side of it is crates/kiln-engine/src/gpu/resident.rs and resident/plan.rs.
#pragma once
#include "cluster.cuh"
#include "fragments.cuh"
#include "grid.cuh"
#include "scalars.cuh"

typedef unsigned char u8;

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int ADDERS = WARPS / 2; // warps that add another's share of the outputs to theirs
constexpr int TILES = 8;      // of 16 inputs, that a warp may hold
constexpr int CLASSES = 16;   // places for the classes of a row
constexpr int LINE_2 = 20;    // values from one unit of w2 to the next: no two of eight units in one bank
constexpr float PIXEL = 1.0f / 255.0f;

// UNITS a block, 8 or 16; PLANES of the inputs.
template <int UNITS_, class Math_, int PLANES_>
struct Kind {
    using Math = Math_;
    static constexpr int UNITS = UNITS_, PLANES = PLANES_, TERMS = Math::TERMS;
    static constexpr int COLUMNS = UNITS / 8;         // tiles of 8 units
    static constexpr int CHUNK = 512 / UNITS / (PLANES == 1 ? 1 : 2); // most rows of a chunk
    // The gradient of w1 takes passes over the batch, each for a part of a warp's tiles: as few as registers allow.
    static constexpr int PASSES = COLUMNS == 1 ? 1 : PLANES == 1 ? 2 : 4;
    static constexpr int PART = TILES / PASSES;
    // Tiles that are multiplied together, so that no product waits for the one before.
    static constexpr int TOGETHER = COLUMNS > 1 && PLANES > 1 ? 1 : 2;
    static constexpr int LINES = UNITS * TERMS;       // of dh's terms
    static constexpr int LINE_TILES = (LINES + 15) / 16;
    static constexpr bool HALF_TILE = LINES % 16 != 0; // of the last tile of lines, the lower half is not there
};

// What a launch is about. Pointers are to global memory.
struct Job {
    const void* x;        // (samples, PLANES, 16 tiles) bfloat16
    const u8* labels;     // (samples), or none
    const float* values;  // (samples, C), or none
    const u32* stop;
    u64* times;           // (blocks, PHASES) of the timed kernels
    u32 loss, K, H, C, batch, rows, epochs, chunk, slots;
    // Of the kernels without clusters: blocks of a run, and for each run `exchange_pairs` pairs of zeros.
    u64* exchange;
    u32 blocks;
};

// Who works on a run together.
enum class Team { CLUSTER, GRID };

// 65536 / n, rounded up.
__constant__ u32 RECIPROCALS[17] = {0,     65536, 32768, 21846, 16384, 13108, 10923, 9363, 8192,
                                    7282,  6554,  5958,  5462,  5042,  4682,  4370,  4096};

enum : u32 { CROSS_ENTROPY = 0, ONE_HOT = 1, VALUES = 2 };

// What all steps of a run have of SGD: weight decay, and how much of the gradient and of the velocity a step goes.
struct Rule {
    float decay, gshare, vshare;
};

// A run: 80 bytes. Parameters lie as PyTorch has them, w1, b1, w2, b2, each from a multiple of 4 values on; velocities too.
struct alignas(16) Run {
    float *parameters, *velocities;
    const u32* order;       // (epochs, rows)
    const Scalars* scalars; // (epochs, steps)
    float* losses;          // (epochs, rows)
    u32* hits;              // (epochs, rows)
    float* snapshots;       // (epochs, 2, parameters): parameters and velocities, or none
    u64* ended;             // (1 + epochs): when the training began and each epoch ended, in nanoseconds of the device
    Rule rule;
    u32 epochs;             // that were trained
};

// Places of a run's tensors.
struct Places {
    u32 b1, w2, b2, end;
    __device__ Places(u32 K, u32 H, u32 C) {
        b1 = aligned(H * K);
        w2 = b1 + aligned(H);
        b2 = w2 + aligned(C * H);
        end = b2 + aligned(C);
    }
    static __device__ u32 aligned(u32 n) { return (n + 3) / 4 * 4; }
};

// Shared memory, in bytes from its start: `bytes` in crates/kiln-engine/src/resident/plan.rs.
template <class S>
struct Layout {
    static constexpr u32 BARRIERS = 0;                                  // logits, dz, left (2), then one a slot, 8 at most
    static constexpr u32 RUN = 96;                                      // a copy of the run's description
    static constexpr u32 TIMES = RUN + sizeof(Run);                     // (PHASES) of the timed kernels
    static constexpr u32 W2 = TIMES + 64;                               // (UNITS, LINE_2), of which CLASSES are used
    static constexpr u32 ZEROS = W2 + CLASSES * 4;                      // (4) that nobody writes
    static constexpr u32 V2 = W2 + S::UNITS * LINE_2 * 4;               // (UNITS, LINE_2)
    static constexpr u32 B1 = V2 + S::UNITS * LINE_2 * 4;               // (UNITS)
    static constexpr u32 VB1 = B1 + S::UNITS * 4;                       // (UNITS)
    static constexpr u32 B2 = VB1 + S::UNITS * 4;                       // (CLASSES)
    static constexpr u32 VB2 = B2 + CLASSES * 4;                        // (CLASSES)
    static constexpr u32 DB1 = VB2 + CLASSES * 4;                       // (WARPS, UNITS)
    static constexpr u32 SHARES = DB1 + WARPS * S::UNITS * 4;           // (ADDERS, COLUMNS, CHUNK, 8) of outputs; later dh's terms
    u32 line, h, dz, dz_bytes, z, z_bytes, x;

    // `width`: classes in whole quads. Blocks of a grid exchange z in global memory, and keep one dz.
    __device__ Layout(Team team, u32 batch, u32 owned, u32 blocks, u32 width) {
        const u32 padded = (batch + 15) / 16 * 16;
        line = (padded + 8) * 2; // bytes of a line of dh's terms (LINES, batch)
        h = SHARES + max(ADDERS * S::UNITS * S::CHUNK * 4, S::LINES * line);
        dz = h + padded * S::UNITS * 4; // after h (batch, UNITS): (2, batch, width)
        dz_bytes = padded * width * 4;
        z = dz + (team == Team::GRID ? 1 : 2) * dz_bytes; // (2, blocks, owned, width)
        z_bytes = team == Team::GRID ? 0 : blocks * owned * width * 4;
        x = z + 2 * z_bytes;
    }
};

// Where the next use of the slots is.
struct Ring {
    u32 slot = 0, parity = 0;
    __device__ __forceinline__ void next(u32 slots) {
        if (++slot == slots) {
            slot = 0;
            parity ^= 1;
        }
    }
};

__device__ __forceinline__ void descend(float& p, float& v, float g, const Scalars& s, const Rule& rule) {
    g = fmaf(rule.decay, p, g);
    v = fmaf(s.keep, v, s.fresh * g);
    p = fmaf(-s.lr, fmaf(rule.vshare, v, rule.gshare * g), p);
}

// Phases that the timed kernels tell apart.
enum Phase : u32 { LOADS, LAYER_1, LOGITS, LOSS, DZ, LAYER_2, GRADIENT, UPDATE, PHASES };
