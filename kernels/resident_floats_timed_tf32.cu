//@ arch: sm_90
#include "resident.cuh"

KILN_RESIDENT_FLOATS_TIMED(terms::Tf32)
