//@ arch: sm_90
#include "resident.cuh"

KILN_RESIDENT_PIXELS(terms::Tf32)
