//@ arch: sm_80
#include "linear.cuh"

KILN_LINEAR(Fma)
KILN_LINEAR_TILE(Fma, Tiny, tiny)
