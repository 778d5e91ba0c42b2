//@ arch: sm_80
// A pipeline of cp.async that leaves one group pending in its last round too, where no group comes after it.
//@ kernel: k
//@ block: 32
//@ arg: buffer u32 128 iota
//@ arg: buffer u32 128 uninit

__device__ unsigned address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

extern "C" __global__ void k(const int* x, int* out) { // x, out (4, 32)
    __shared__ int tile[2][32];
    const unsigned t = threadIdx.x;
    for (int round = 0; round < 5; ++round) {
        if (round < 4)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address(&tile[round % 2][t])), "l"(__cvta_generic_to_global(x + round * 32 + t)) : "memory"); //~ race
        if (round < 4) asm volatile("cp.async.commit_group;" ::: "memory");
        if (round == 0) continue;
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncwarp();
        const int value = tile[(round - 1) % 2][31 - t]; //~ race
        __syncwarp();
        out[(round - 1) * 32 + t] = value;
    }
}
