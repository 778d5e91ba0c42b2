//@ arch: sm_90
#include "resident.cuh"

KILN_RESIDENT_PIXELS_TIMED(terms::F32)
