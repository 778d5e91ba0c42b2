//@ arch: sm_80
#include "weight_gradient.cuh"

KILN_WEIGHT_GRADIENT(Bf16)
