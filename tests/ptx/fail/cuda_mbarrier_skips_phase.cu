//@ arch: sm_80
// One warp hands rows to another, which skips a phase: it waits for the row before, and reads its row too early, or it
// waits for a phase that never ends, if it comes too late.
//@ kernel: k
//@ block: 64
//@ arg: buffer u32 32 iota
//@ arg: buffer u32 32 zero

extern "C" __global__ void k(const int* x, int* out) { // x, out (32)
    __shared__ int row[32];
    __shared__ alignas(8) unsigned long long full;
    const unsigned barrier = (unsigned)__cvta_generic_to_shared(&full), t = threadIdx.x;
    if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], 32;" ::"r"(barrier) : "memory");
    __syncthreads();
    if (t < 32) {
        row[t] = x[t]; //~ race
        asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(barrier) : "memory");
    } else {
        unsigned done;
        do asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], 1; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(barrier) : "memory"); //~ deadlock
        while (!done); //~ deadlock
        out[t - 32] = row[63 - t]; //~ race, uninitialised
    }
}
