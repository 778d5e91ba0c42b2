//@ arch: sm_90a
// Linear layers on copies in bf16x3 (linear_copies.cuh), by warpgroups (warpgroups.cuh): tiles of 128 x 256 and 128 x 128, 256 threads.
#include "warpgroups.cuh"

#include "linear_copies.cuh"
KILN_LINEAR_COPIES_TILE(bf16x3, Warpgroups<256>, warpgroups_256)
KILN_LINEAR_COPIES_TILE(bf16x3, Warpgroups<128>, warpgroups_128)
