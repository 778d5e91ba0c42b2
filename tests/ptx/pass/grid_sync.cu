//@ arch: sm_80
// A cooperative kernel: all blocks meet at grid-wide barriers (cooperative groups).
//
// x (n) is smoothed `steps` times, each time from one buffer to the other: y[i] = x[i-1] + x[i] + x[i+1] (mod 2^32, ring).

#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void smooth(unsigned* x, unsigned* y, unsigned n, unsigned steps) { // x, y (n)
    cg::grid_group grid = cg::this_grid();
    for (unsigned step = 0; step < steps; ++step) {
        for (unsigned long long i = grid.thread_rank(); i < n; i += grid.size())
            y[i] = x[i == 0 ? n - 1 : i - 1] + x[i] + x[i + 1 == n ? 0 : i + 1];
        grid.sync();
        unsigned* swap = x;
        x = y;
        y = swap;
    }
}
