//@ arch: sm_80
#include "resident.cuh"

KILN_RESIDENT_GRID_PIXELS_TIMED(terms::Bf16)
