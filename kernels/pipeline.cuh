// Products of matrices that lie in global memory as copies whose values are rounded to what tensor cores multiply, for models with
// wide layers.
//
//   c (M, N) = sum over k of a (M, k) b (N, k)
//
// A block makes one tile. Its warps share the sum in SLICES, where a small tile with a long sum would have too few, and the slices are
// added in shared memory, in order. A tile arrives by 16-byte cp.async from the copy to shared memory, with no register in between,
// STAGES - 1 stages ahead. So tiles may be large: of 128 x 128 each value that is read serves 128 multiply-adds, and a warp's
// share of 64 x 64 reads eight ldmatrix for 32 mma. (Of TF32 whose terms lie across the lines, 16 single words an operand.)
//
// A value is a `bf16` or a `tf32`: a float32 whose last 13 bits are zero. Copies (lines, width) have their lines begin at multiples
// of 16 bytes; `pitch` says how many values apart. The gap is never read: cp.async is told how many bytes lie inside and fills
// the rest of its 16 with zeros, and so it does for lines outside.
//
// A copy of format `bf16x3` holds float32 with no rounding at all, as three planes of bf16 one after the other, (lines, width) each:
// the first is the value rounded, the second what that leaves, rounded, and the third the rest, which is exact. A product of two such
// copies is six products of planes, or three where one of them has whole numbers up to 256, which its first plane holds: see Stages.
//
// Determinism: as in product.cuh. Shared memory: dynamic, T::SHARED bytes; the copies into it and the reads of fragments
// meet no bank conflicts, as product.cuh explains.
#pragma once
#include "product.cuh"

typedef __nv_bfloat16 bf16;
typedef float tf32;
struct bf16x3;

// What a format E has its copies made of.
template <class E>
struct Format {
    using Value = E;
    static constexpr u32 PLANES = 1;
};
template <>
struct Format<bf16x3> {
    using Value = bf16;
    static constexpr u32 PLANES = 3;
};
template <class E>
using Value = typename Format<E>::Value;

// A value of a copy, rounded to nearest: ties to even in bfloat16, away from zero in TF32.
template <class V>
__device__ __forceinline__ V value_of(float x);
template <>
__device__ __forceinline__ bf16 value_of<bf16>(float x) {
    return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ tf32 value_of<tf32>(float x) {
    return Tf32::rounded(x);
}

// The same, and what it leaves, which is exact.
template <class V>
__device__ __forceinline__ V taken_from(float& x) {
    const V value = value_of<V>(x);
    x = __fsub_rn(x, (float)value);
    return value;
}

// Tiles of 128 x 128, 64 x 64 and 32 x 32, of stages of 64 bytes a line, or 128 in the smallest. Four warps each; of the smallest
// tile each has a quarter of the sum. Registers leave room for BLOCKS a multiprocessor, and so does its shared memory where it has
// 164 KiB or more.
constexpr int STAGES = 4;
template <class E>
struct Tile128 : Tile<128, 128, 2, 2, 1, 64 / sizeof(Value<E>)> {
    static constexpr int BLOCKS = 2, SHARED = 80 << 10;
};
template <class E>
struct Tile64 : Tile<64, 64, 2, 2, 1, 64 / sizeof(Value<E>)> {
    static constexpr int BLOCKS = 4, SHARED = 40 << 10;
};
template <class E>
struct Tile32 : Tile<32, 32, 1, 1, 4, 32 / sizeof(Value<E>)> {
    static constexpr int BLOCKS = 4, SHARED = 40 << 10;
};

// Values of 16 bytes.
template <class V>
constexpr u32 CHUNK = 16 / sizeof(V);

template <class V>
__device__ __forceinline__ size_t pitch(u32 width) {
    return ((size_t)width + CHUNK<V> - 1) / CHUNK<V> * CHUNK<V>;
}

// Values from a plane of a copy to the next.
template <class E>
__device__ __forceinline__ size_t plane_size(u32 lines, u32 width) {
    return Format<E>::PLANES == 1 ? 0 : lines * pitch<Value<E>>(width);
}

// A copy that is read. `planes` of it are not zero.
template <class E>
struct Copy {
    const Value<E>* data;
    u32 lines, width;
    u32 planes = Format<E>::PLANES;
    __device__ __forceinline__ const Value<E>* line(u32 at) const { return data + at * pitch<Value<E>>(width); }
    __device__ __forceinline__ size_t plane() const { return plane_size<E>(lines, width); }
};

// One that is made.
template <class E>
struct NewCopy {
    Value<E>* data;
    u32 lines, width;
    __device__ __forceinline__ void put(u32 line, u32 at, float x) const {
        Value<E>* place = data + line * pitch<Value<E>>(width) + at;
#pragma unroll
        for (u32 plane = 0; plane < Format<E>::PLANES; plane++)
            place[plane * plane_size<E>(lines, width)] = taken_from<Value<E>>(x);
    }
};

// The stages of a sum of products, DEPTH terms at a time: all terms, for one pair of planes after the other. Of three planes and three,
// pairs whose numbers, from 0, add up to more than two are left out: they weigh less than 2^-23 of a product. The least come first, so that
// what tensor cores cut off of a sum is cut off of a small one until the last pair.
template <class E, int DEPTH>
struct Stages {
    u32 term, terms, pairs, left; // pairs, four bits each: the plane of a, and above it that of b

    __device__ __forceinline__ Stages(const Copy<E>& a, const Copy<E>& b, u32 terms) : term(0), terms(terms), pairs(0), left(1) {
        if constexpr (Format<E>::PLANES == 1) return;
        // (2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0), or those of them that one plane leaves.
        pairs = a.planes == 1 ? 0x048 : b.planes == 1 ? 0x012 : 0x041852;
        left = a.planes == 1 || b.planes == 1 ? 3 : 6;
    }
    __device__ __forceinline__ u32 count() const { return (terms + DEPTH - 1) / DEPTH * left; }
    __device__ __forceinline__ bool more() const { return term < terms; }
    __device__ __forceinline__ void next() {
        term += DEPTH;
        if constexpr (Format<E>::PLANES == 1) return;
        if (term < terms || left == 1) return;
        term = 0;
        pairs >>= 4;
        left--;
    }
    __device__ __forceinline__ u32 plane_a() const { return Format<E>::PLANES == 1 ? 0 : pairs & 3; }
    __device__ __forceinline__ u32 plane_b() const { return Format<E>::PLANES == 1 ? 0 : pairs >> 2 & 3; }
};

// Copies the first `bytes` of 16, and zeros for the rest.
__device__ __forceinline__ void copy_chunk(void* to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void end_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All stages but the newest PENDING have arrived, of those that this thread copies.
template <int PENDING>
__device__ __forceinline__ void await_stages() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Of the 16 bytes from value `at` on, those that lie before `end`.
template <class V>
__device__ __forceinline__ u32 bytes_inside(u32 at, u32 end) {
    return at < end ? sizeof(V) * min(end - at, CHUNK<V>) : 0;
}

// Which chunk of 16 bytes of which line of a stage a thread copies, where a line has ACROSS chunks. Eight threads that write to shared
// memory together should meet in no bank: with four chunks a line, and a gap of one, that are eight chunks in a column.
template <int ACROSS>
struct Share {
    static constexpr bool COLUMNS = ACROSS == 4;
    static __device__ __forceinline__ u32 line() {
        return COLUMNS ? threadIdx.x / 32 * 8 + threadIdx.x % 8 : threadIdx.x / ACROSS;
    }
    static __device__ __forceinline__ u32 chunk() { return COLUMNS ? threadIdx.x / 8 % 4 : threadIdx.x % ACROSS; }
};

// The terms of the sum lie along the lines of the copy. A thread copies 16 bytes of CHUNKS rows STEP apart. Base says where they go.
template <class T, class E, int ROWS, class Base = AlongTerms<T, Value<E>, ROWS>>
struct CopyAlong : Base {
    using V = Value<E>;
    static constexpr int ACROSS = T::DEPTH / CHUNK<V>, STEP = T::THREADS / ACROSS, CHUNKS = ROWS / STEP;
    static_assert(T::THREADS % ACROSS == 0 && ROWS % STEP == 0, "threads share a stage evenly");

    struct Loader {
        const V* line[CHUNKS]; // of the first plane
        size_t plane;
        u32 row, term, terms;

        __device__ __forceinline__ Loader(const Copy<E>& from, u32 row0)
            : plane(from.plane()), row(Share<ACROSS>::line()), term(Share<ACROSS>::chunk() * CHUNK<V>), terms(from.width) {
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) line[i] = from.line(min(row0 + row + i * STEP, from.lines - 1));
        }
        __device__ __forceinline__ void load(V* tile, u32 term0, u32 of_plane) const {
            const u32 at = term0 + term, bytes = bytes_inside<V>(at, terms);
            const size_t safe = of_plane * plane + (bytes ? at : 0);
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) copy_chunk(tile + Base::at(row + i * STEP, term), line[i] + safe, bytes);
        }
    };
};

// The lines of the copy are the terms of the sum. A thread copies 16 bytes of CHUNKS terms STEP apart.
template <class T, class E, int ROWS, class Base = AcrossTerms<T, Value<E>, ROWS>>
struct CopyAcross : Base {
    using V = Value<E>;
    static constexpr int ACROSS = ROWS / CHUNK<V>, STEP = T::THREADS / ACROSS, CHUNKS = T::DEPTH / STEP;
    static_assert(T::THREADS % ACROSS == 0 && T::DEPTH % STEP == 0, "threads share a stage evenly");

    struct Loader {
        const V* rows; // of the first term, in the first plane
        size_t apart, plane;
        u32 row, term, terms, bytes;

        __device__ __forceinline__ Loader(const Copy<E>& from, u32 row0)
            : apart(pitch<V>(from.width)), plane(from.plane()), row(Share<ACROSS>::chunk() * CHUNK<V>), term(Share<ACROSS>::line()),
              terms(from.lines), bytes(bytes_inside<V>(row0 + row, from.width)) {
            rows = from.data + (bytes ? row0 + row : 0);
        }
        __device__ __forceinline__ void load(V* tile, u32 term0, u32 of_plane) const {
            const V* line = rows + of_plane * plane + (term0 + term) * apart;
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) {
                const bool inside = term0 + term + i * STEP < terms;
                copy_chunk(tile + Base::at(row, term + i * STEP), inside ? line : rows, inside ? bytes : 0);
                line += STEP * apart;
            }
        }
    };
};

// Copies the stages of a product, one after the other, each the terms of a's rows from m0 on and then those of b's from n0 on.
template <class T, class SA, class SB, class E>
struct Feed {
    const typename SA::Loader from_a;
    const typename SB::Loader from_b;
    Stages<E, T::DEPTH> ahead; // those that are not copied yet

    __device__ __forceinline__ Feed(const Copy<E>& a, const Copy<E>& b, u32 m0, u32 n0, u32 terms)
        : from_a(a, m0), from_b(b, n0), ahead(a, b, terms) {}
    // Begins to copy the next stage. One that is beyond the last is empty and counts, so that as many are pending at every stage.
    __device__ __forceinline__ void stage(Value<E>* to) {
        if (ahead.more()) {
            from_a.load(to, ahead.term, ahead.plane_a());
            from_b.load(to + SA::SIZE, ahead.term, ahead.plane_b());
            ahead.next();
        }
        end_stage();
    }
};

// Multiplies TF32 that is staged as it is. Its fragments are read by ldmatrix too, but for terms across the lines, which that
// cannot turn.
struct RoundedTf32 : TensorCores {
    // 8 terms of 16 rows, in four blocks of 8 rows and 4 terms.
    template <class S, int ROWS_BIT>
    static __device__ __forceinline__ void fragment(const tf32* tile, int row0, int term0, u32 (&r)[4]) {
        if constexpr (!S::VECTORS_OF_ROWS) {
            const int2 at = block_at<ROWS_BIT, 4>(lane() / 8, row0, term0);
            load_blocks<false>(tile + S::at(at.x + lane() % 8, at.y), r);
        } else {
#pragma unroll
            for (int block = 0; block < 4; block++) {
                const int2 at = block_at<ROWS_BIT, 4>(block, row0, term0);
                r[block] = __float_as_uint(tile[S::at(at.x + lane() / 4, at.y + lane() % 4)]);
            }
        }
    }

    template <class T, class SA, class SB>
    static __device__ __forceinline__ void multiply(const tf32* a, const tf32* b, int m0, int n0, int term0, float (&sums)[T::SUMS]) {
#pragma unroll
        for (int k = term0; k < term0 + T::SLICE_DEPTH; k += 8) {
            u32 fb[T::WN / 16][4];
#pragma unroll
            for (int j = 0; j < T::WN / 16; j++) fragment<SB, 1>(b, n0 + 16 * j, k, fb[j]);
#pragma unroll
            for (int i = 0; i < T::WM / 16; i++) {
                u32 fa[4];
                fragment<SA, 0>(a, m0 + 16 * i, k, fa);
#pragma unroll
                for (int j = 0; j < T::WN / 8; j++)
                    Tf32::mma(&sums[4 * (i * (T::WN / 8) + j)], fa, fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
};

// How values are multiplied.
template <class E>
struct Multiplied;
template <>
struct Multiplied<bf16> {
    using Math = Bf16;
};
template <>
struct Multiplied<tf32> {
    using Math = RoundedTf32;
};
template <>
struct Multiplied<bf16x3> {
    using Math = Bf16;
};

// The tile of this block: tiles are taken in bands of BAND along the first dimension, so that those that run at the same time
// share operands in both and the L2 cache holds what they read.
struct Place {
    u32 m, n;
    __device__ __forceinline__ Place() {
        constexpr u32 BAND = 16;
        const u32 id = blockIdx.y * gridDim.x + blockIdx.x, of_band = BAND * gridDim.y;
        const u32 first = id / of_band * BAND, high = min(gridDim.x - first, BAND), at = id % of_band;
        m = first + at % high;
        n = at / high;
    }
};

extern __shared__ unsigned char shared_memory[]; // begins at 16 bytes

// Makes the tile at (m0, n0), and gives its sums to the epilogue.
template <class T, class SA, class SB, class E, class Epilogue>
__device__ __forceinline__ void pipelined(const Copy<E>& a, const Copy<E>& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms, Epilogue& epilogue) {
    using Math = typename Multiplied<E>::Math;
    using V = Value<E>;
    constexpr int STAGE = SA::SIZE + SB::SIZE;
    static_assert(STAGES * STAGE * sizeof(V) <= T::SHARED && T::SLICES * T::TM * (T::TN + 1) * sizeof(float) <= T::SHARED, "");
    static_assert(SA::SIZE % CHUNK<V> == 0 && SB::SIZE % CHUNK<V> == 0, "tiles begin at 16 bytes");
    V* stages = reinterpret_cast<V*>(shared_memory);

    const int warp = threadIdx.x / 32;
    const int slice = warp / (T::WARPS_M * T::WARPS_N);
    const int wm = warp / T::WARPS_N % T::WARPS_M * T::WM, wn = warp % T::WARPS_N * T::WN;

    float sums[T::SUMS] = {};
    Feed<T, SA, SB, E> feed(a, b, m0, n0, terms);
    const u32 count = feed.ahead.count();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) feed.stage(stages + s * STAGE);
    int buffer = 0;
    for (u32 done = 0; done < count; done++) {
        await_stages<STAGES - 2>();
        // Every thread's copies of this stage have arrived, and every warp has read the stage before, which the next copies
        // overwrite.
        __syncthreads();
        feed.stage(stages + (buffer + STAGES - 1) % STAGES * STAGE);
        const V* tile = stages + buffer * STAGE;
        Math::template multiply<T, SA, SB>(tile, tile + SA::SIZE, wm, wn, slice * T::SLICE_DEPTH, sums);
        buffer = (buffer + 1) % STAGES;
    }

    __syncthreads(); // the stages are read; their memory now gathers the slices' sums
    float* gathered = reinterpret_cast<float*>(shared_memory);
    float* gather = gathered + slice * T::TM * (T::TN + 1);
#pragma unroll
    for (int s = 0; s < T::SUMS; s++) {
        const int2 at = Math::template place<T, SA, SB>(s);
        gather[(wm + at.x) * (T::TN + 1) + wn + at.y] = sums[s];
    }
    __syncthreads();
    store_tile<T, T::TN + 1>(gathered, m0, n0, M, N, epilogue);
}

// How tiles of a kind T are staged, and made. (warpgroups.cuh has others.)
template <class T, class E>
struct Product {
    template <int ROWS>
    using Along = CopyAlong<T, E, ROWS>;
    template <int ROWS>
    using Across = CopyAcross<T, E, ROWS>;
    template <class SA, class SB, class Epilogue>
    static __device__ __forceinline__ void tile(const Copy<E>& a, const Copy<E>& b, u32 m0, u32 n0, u32 M, u32 N, u32 terms,
                                                Epilogue& epilogue) {
        pipelined<T, SA, SB>(a, b, m0, n0, M, N, terms, epilogue);
    }
};

// Adds what the threads of each of COLUMNS columns have, and gives it to the first of them: threads below COLUMNS.
template <class T, int COLUMNS>
__device__ __forceinline__ float sum_of_column(float share) {
    constexpr int SHARES = T::THREADS / COLUMNS;
    if constexpr (SHARES == 1) return share;
    float* shares = reinterpret_cast<float*>(shared_memory);
    __syncthreads(); // the memory has been read
    shares[threadIdx.x] = share;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x < COLUMNS)
#pragma unroll
        for (int i = 0; i < SHARES; i++) sum += shares[threadIdx.x + i * COLUMNS];
    return sum;
}
