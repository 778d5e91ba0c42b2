//@ arch: sm_80
#include "linear_copies.cuh"

KILN_LINEAR_COPIES(bf16x3)
