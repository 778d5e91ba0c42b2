//@ arch: sm_80
#include "resident.cuh"

KILN_RESIDENT_GRID_PIXELS(terms::Bf16)
