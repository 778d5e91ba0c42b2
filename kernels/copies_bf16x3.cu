//@ arch: sm_80
#include "copies.cuh"

KILN_COPIES(bf16x3)
