//! Launches of the kernels of `cublaslt.cu`.

use anyhow::Result;

use crate::device::Argument::{Address, Count, Number};
use crate::device::Device;
use crate::memory::{LOSS_ROWS, Memory, Sizes};
use crate::plan::MOMENTUM;

/// Threads of a block of the kernels that have a thread for each element or row.
const THREADS: u32 = 256;

/// Rows of the training batch.
pub(crate) fn gather_batch(device: &Device, sizes: &Sizes, memory: &Memory, rows: usize) -> Result<()> {
    gather(device, sizes, memory, [device.address(&memory.pixels), device.address(&memory.order)], rows)
}

/// Rows of a batch of the samples whose pixels and order lie there.
pub(crate) fn gather(
    device: &Device,
    sizes: &Sizes,
    memory: &Memory,
    [pixels, order]: [u64; 2],
    rows: usize,
) -> Result<()> {
    let arguments = [
        Address(pixels),
        Address(order),
        Address(device.address(&memory.step)),
        Count(sizes.batch as u32),
        Count(sizes.width as u32),
        Address(device.address(&memory.inputs[0])),
        Count(sizes.layers[0] as u32),
    ];
    device.launch("gather", rows as u32, (THREADS, 1), &arguments)
}

pub(crate) fn loss(device: &Device, sizes: &Sizes, memory: &Memory, rows: usize) -> Result<()> {
    let last = sizes.depth() - 1;
    let arguments = [
        Address(device.address(&memory.outputs)),
        Address(device.address(&memory.labels)),
        Address(device.address(&memory.order)),
        Address(device.address(&memory.step)),
        Count(sizes.batch as u32),
        Address(device.address(&memory.output_gradients[last])),
        Address(device.address(&memory.losses)),
        Count(sizes.places() as u32),
        Count(rows as u32),
        Count(sizes.classes as u32),
        Count(sizes.layers[last + 1] as u32),
    ];
    device.launch("loss", (rows as u32).div_ceil(LOSS_ROWS), (LOSS_ROWS, 1), &arguments)
}

/// The ReLU below a layer, backwards.
pub(crate) fn relu_backward(
    device: &Device,
    sizes: &Sizes,
    memory: &Memory,
    layer: usize,
    rows: usize,
) -> Result<()> {
    let count = (rows * sizes.layers[layer]) as u32;
    let arguments = [
        Address(device.address(&memory.output_gradients[layer - 1])),
        Address(device.address(&memory.inputs[layer])),
        Count(count),
    ];
    device.launch("relu_backward", count.div_ceil(THREADS), (THREADS, 1), &arguments)
}

/// Bias gradients of a layer.
pub(crate) fn column_sums(
    device: &Device,
    sizes: &Sizes,
    memory: &Memory,
    layer: usize,
    rows: usize,
) -> Result<()> {
    let columns = sizes.layers[layer + 1] as u32;
    let arguments = [
        Address(device.address(&memory.output_gradients[layer])),
        Address(device.address(&memory.gradients) + 4 * sizes.biases[layer] as u64),
        Count(rows as u32),
        Count(columns),
    ];
    device.launch("column_sums", columns / 16, (16, 64), &arguments)
}

/// Moves the parameters and the step on. The gradients of the first `low_count` biases are operands.
pub(crate) fn update(
    device: &Device,
    sizes: &Sizes,
    memory: &Memory,
    low_count: usize,
    lr: f32,
) -> Result<()> {
    let arguments = [
        Address(device.address(&memory.parameters)),
        Address(device.address(&memory.velocities)),
        Address(device.address(&memory.low)),
        Address(device.address(&memory.low_gradients)),
        Address(device.address(&memory.gradients)),
        Address(device.address(&memory.step)),
        Count(sizes.weights_end as u32),
        Count(sizes.parameters as u32),
        Count(low_count as u32),
        Number(lr),
        Number(MOMENTUM),
    ];
    device.launch("update", (sizes.parameters as u32).div_ceil(4 * THREADS), (THREADS, 1), &arguments)
}

/// Adds up the hits of a batch of `total` samples whose labels lie there.
pub(crate) fn count_hits(
    device: &Device,
    sizes: &Sizes,
    memory: &Memory,
    labels: u64,
    total: usize,
    hits: u64,
) -> Result<()> {
    let arguments = [
        Address(device.address(&memory.outputs)),
        Address(labels),
        Address(device.address(&memory.step)),
        Count(sizes.batch as u32),
        Count(total as u32),
        Address(hits),
        Count(sizes.classes as u32),
        Count(sizes.layers[sizes.depth()] as u32),
    ];
    device.launch("count_hits", (sizes.batch as u32).div_ceil(THREADS), (THREADS, 1), &arguments)
}
