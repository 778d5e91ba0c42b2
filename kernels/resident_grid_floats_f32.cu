//@ arch: sm_80
#include "resident.cuh"

KILN_RESIDENT_GRID_FLOATS(terms::F32)
