//@ arch: sm_80
#include "weight_gradients.cuh"

KILN_WEIGHT_GRADIENTS(Fma)
