//@ arch: sm_90a
// Gradients of linear layers on copies in bf16x3 (weight_gradient_copies.cuh), by warpgroups (warpgroups.cuh): tiles of 128 x 256 and
// 128 x 128, 256 threads.
#include "warpgroups.cuh"

#include "weight_gradient_copies.cuh"
KILN_WEIGHT_GRADIENT_COPIES_TILE(bf16x3, Warpgroups<256>, warpgroups_256)
KILN_WEIGHT_GRADIENT_COPIES_TILE(bf16x3, Warpgroups<128>, warpgroups_128)
