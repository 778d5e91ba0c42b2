//@ arch: sm_80
#include "linear.cuh"

KILN_LINEAR(Fma)
