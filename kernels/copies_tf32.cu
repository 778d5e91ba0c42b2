//@ arch: sm_80
#include "copies.cuh"

KILN_COPIES(tf32)
