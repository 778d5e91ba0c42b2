//@ arch: sm_80
// Threads that wait for each other through memory: acquire and release, and locks.

__device__ unsigned* global(unsigned* p) { return (unsigned*)__cvta_generic_to_global(p); }

__device__ void store_release(unsigned* flag, unsigned value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(global(flag)), "r"(value) : "memory");
}

__device__ unsigned load_acquire(unsigned* flag) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(global(flag)) : "memory");
    return value;
}

__device__ unsigned load_relaxed(unsigned* flag) {
    unsigned value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(global(flag)) : "memory");
    return value;
}

__device__ void lock(unsigned* word) {
    unsigned old;
    do asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], 0, 1;" : "=r"(old) : "l"(global(word)) : "memory");
    while (old != 0);
}

// Blocks hand a number down the line: each adds its x. flags (gridDim.x), number (gridDim.x) start as zeros; one thread a
// block; all blocks must run at once (cooperative launch).
extern "C" __global__ void relay(const unsigned* x, unsigned* number, unsigned* flags) {
    const unsigned b = blockIdx.x;
    unsigned sum = 0;
    if (b > 0) {
        while (load_acquire(flags + b - 1) == 0) {}
        sum = number[b - 1];
    }
    number[b] = sum + x[b];
    store_release(flags + b, 1);
}

// The same with fences and relaxed accesses.
extern "C" __global__ void relay_fences(const unsigned* x, unsigned* number, unsigned* flags) {
    const unsigned b = blockIdx.x;
    unsigned sum = 0;
    if (b > 0) {
        while (load_relaxed(flags + b - 1) == 0) {}
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        sum = number[b - 1];
    }
    number[b] = sum + x[b];
    __threadfence();
    atomicExch(flags + b, 1u);
}

// Three lanes of one warp, each in code of its own: one waits for another, that for the third, whose code the compiler lays between
// theirs. flags (2), numbers (3) zero.
extern "C" __global__ void lanes_in_line(unsigned* flags, unsigned* numbers) {
    if (threadIdx.x == 0) {
        numbers[2] = 1;
        store_release(flags + 1, 1);
    } else if (threadIdx.x == 1) {
        while (load_acquire(flags) == 0) {}
        numbers[0] = numbers[1] + 1;
    } else {
        while (load_acquire(flags + 1) == 0) {}
        numbers[1] = numbers[2] + 1;
        store_release(flags, 1);
    }
}

// Every thread of every block adds to a plain counter under a lock, lanes of one warp too. word (1), counter (2) zero.
extern "C" __global__ void spin_lock(unsigned* word, unsigned* counter) {
    for (bool done = false; !done;) {
        unsigned old;
        asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], 0, 1;" : "=r"(old) : "l"(global(word)) : "memory");
        if (old == 0) {
            counter[0] += 1;
            counter[1] += threadIdx.x;
            store_release(word, 0);
            done = true;
        }
    }
}

// A ticket lock, one thread a block: next (1), serving (1), order (gridDim.x), length (1) start as zeros.
extern "C" __global__ void ticket_lock(unsigned* next, unsigned* serving, unsigned* order, unsigned* length) {
    const unsigned ticket = atomicAdd(next, 1u);
    while (load_acquire(serving) != ticket) {}
    order[*length] = blockIdx.x;
    *length += 1;
    store_release(serving, ticket + 1);
}

// Spinning inside one block, in shared memory: warp 0 waits for warp 1, which waits for warp 0.
extern "C" __global__ void ping_pong(unsigned* out, unsigned rounds) { // out (2)
    __shared__ unsigned turn, value;
    if (threadIdx.x == 0) turn = value = 0;
    __syncthreads();
    if (threadIdx.x % 32 != 0) return;
    const unsigned me = threadIdx.x / 32;
    const unsigned address = (unsigned)__cvta_generic_to_shared(&turn);
    for (unsigned round = 0; round < rounds; ++round) {
        unsigned seen;
        do asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(seen) : "r"(address) : "memory");
        while (seen != 2 * round + me);
        value = value * 3 + me + 1;
        asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(address), "r"(seen + 1) : "memory");
    }
    if (me == 1) out[0] = value, out[1] = rounds;
}
