//! Kernels that leave results in rows: `out[k * n + i]` is the k-th result of element i.

use crate::gpu::{Argument, Buffer, Element, Gpu, linear};

/// Launches such a kernel over inputs of `n` elements; the rows of its output.
pub(crate) fn rows<T: Element>(
    gpu: &mut Gpu,
    kernel: &str,
    inputs: &[&dyn Argument],
    count: usize,
    n: usize,
) -> Vec<Vec<T>> {
    let out: Buffer<T> = gpu.space(count * n);
    let length = n as u32;
    let mut arguments = inputs.to_vec();
    arguments.extend([&out as &dyn Argument, &length]);
    gpu.launch(kernel, &linear(n.div_ceil(64), 64), &arguments);
    gpu.get(out).chunks(n).map(<[T]>::to_vec).collect()
}
