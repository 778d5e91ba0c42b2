//! Launches of `kernels/optimizer.cu`, and the table of scalars that all updates read.

#![allow(unsafe_code)] // the layout of a row of scalars

use cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use super::kernels::{Launch, STRIDING_THREADS, striding_grid};
use super::{Dims, Gpu, Position, Region};
use crate::Error;
use crate::nvtx::range;

/// What changes from step to step, a row a step, in device memory: a schedule needs no new capture. Each family of kernels
/// has its own meaning of the four floats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C, align(16))]
pub(crate) struct Scalars([f32; 4]);

impl Scalars {
    /// For `weight_gradients.cuh`: learning rate, share of the velocity that is kept, share of the gradient that enters it.
    pub(crate) const fn sgd(lr: f32, keep: f32, fresh: f32) -> Self {
        Self([lr, keep, fresh, 0.0])
    }

    /// For `adamw`: learning rate, `1 / (1 - beta1^t)`, `1 / sqrt(1 - beta2^t)`.
    pub(crate) const fn adamw(lr: f32, correction1: f32, correction2: f32) -> Self {
        Self([lr, correction1, correction2, 0.0])
    }
}

// SAFETY: four floats in C's layout, as the kernels have it; no padding, no pointers.
unsafe impl DeviceRepr for Scalars {}
// SAFETY: four zeros are four floats.
unsafe impl ValidAsZeroBits for Scalars {}

/// AdamW's options, but for those that change from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamWOptions {
    /// 1 - beta1.
    pub(crate) fresh1: f32,
    /// 1 - beta2.
    pub(crate) fresh2: f32,
    pub(crate) eps: f32,
    pub(crate) weight_decay: f32,
}

/// AdamW's moments, as many values each as there are parameters.
#[derive(Clone, Copy)]
pub(crate) struct Moments<'b> {
    pub(crate) first: Region<'b, f32>,
    pub(crate) second: Region<'b, f32>,
}

/// SGD's options, but for those that change from step to step; see `weight_gradients.cuh`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SgdOptions {
    pub(crate) weight_decay: f32,
    pub(crate) gradient_share: f32,
    pub(crate) velocity_share: f32,
}

/// For an error's text alone: there is no batch, and all parameters are one row.
fn row(count: usize) -> Dims {
    Dims { b: 1, k: 1, n: u32::try_from(count).unwrap_or(u32::MAX) }
}

/// One step of SGD on all parameters `p`, with velocities or without, and their gradients `g`.
pub(crate) fn sgd(
    gpu: &Gpu,
    p: Region<'_, f32>,
    velocities: Option<Region<'_, f32>>,
    g: Region<'_, f32>,
    scalars: Region<'_, Scalars>,
    at: &Position<'_>,
    options: &SgdOptions,
) -> Result<(), Error> {
    let _range = range(format_args!("sgd"));
    let (count, values, rows) = (p.len(), p.len() as u64, at.slot as usize + 1);
    let name = if velocities.is_some() { "sgd_momentum" } else { "sgd_descent" };
    let mut launch = Launch::new(gpu, name, row(count)).pointer(&p, count);
    if let Some(v) = &velocities {
        launch = launch.pointer(v, count);
    }
    launch = launch
        .pointer(&g, count)
        .pointer(&scalars, rows)
        .pointer(&at.step, 1)
        .number(&at.slot)
        .number(&options.weight_decay);
    if velocities.is_some() {
        launch = launch.number(&options.gradient_share).number(&options.velocity_share);
    }
    launch.number(&values).submit(striding_grid(gpu, values), STRIDING_THREADS)
}

/// One step of AdamW on all parameters `p` with their gradients `g`.
pub(crate) fn adamw(
    gpu: &Gpu,
    p: Region<'_, f32>,
    moments: &Moments<'_>,
    g: Region<'_, f32>,
    scalars: Region<'_, Scalars>,
    at: &Position<'_>,
    options: &AdamWOptions,
) -> Result<(), Error> {
    let _range = range(format_args!("adamw"));
    let (count, values) = (p.len(), p.len() as u64);
    Launch::new(gpu, "adamw", row(count))
        .pointer(&p, count)
        .pointer(&moments.first, count)
        .pointer(&moments.second, count)
        .pointer(&g, count)
        .pointer(&scalars, at.slot as usize + 1)
        .pointer(&at.step, 1)
        .number(&at.slot)
        .number(&options.fresh1)
        .number(&options.fresh2)
        .number(&options.eps)
        .number(&options.weight_decay)
        .number(&values)
        .submit(striding_grid(gpu, values), STRIDING_THREADS)
}
