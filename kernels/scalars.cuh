// What changes from step to step of SGD: a row of the table of scalars, 16 bytes.
#pragma once

struct alignas(16) Scalars {
    float lr, keep, fresh, unused;
};
