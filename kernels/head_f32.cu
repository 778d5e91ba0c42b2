//@ arch: sm_80
#include "head.cuh"

KILN_HEAD(Fma)
