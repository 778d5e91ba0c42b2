//@ arch: sm_80
#include "weight_gradient_copies.cuh"

KILN_WEIGHT_GRADIENT_COPIES(bf16x3)
