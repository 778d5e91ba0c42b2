//! The rungs of `kernels/ladder` and the resident engine that they lead up to, on the same jobs, alternating in one run.
//!
//! Every line is a model and what trains it, with its median time a step and the ratio to the resident engine in float32.

#![allow(unsafe_code)] // launches

mod common;

use std::ffi::c_void;
use std::process::ExitCode;
use std::ptr::{from_ref, null_mut};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::{Data, Measured, alternate, end, report};
use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use cudarc::nvrtc::Ptx;
use kiln_engine::{GpuInfo, Precision, ResidentOptions, Trainer, probe};
use serde_json::json;

#[path = "../kernels/ladder/rungs.rs"]
mod rungs;

use rungs::{RUNGS, Rung, THREADS, arena};

#[derive(Parser)]
#[command(about = "Measures the rungs of kernels/ladder beside the resident engine")]
struct Arguments {
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Epochs that each is measured for
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A JSON object a line, in place of the table
    #[arg(long)]
    json: bool,
    /// A tiny model, which tells nothing of speed: that all of it runs
    #[arg(long)]
    quick: bool,
}

/// The textbook job's model, which one block has no shared memory for, and one of its width that all rungs take.
const MODELS: [[u32; 3]; 2] = [[784, 128, 10], [784, 16, 10]];
const TINY: [[u32; 3]; 1] = [[21, 18, 5]];
/// How far an epoch's loss may be from that of the resident engine in float32: lower precision's roundings, and no other training.
const LOSS_BOUND: f64 = 1e-2;

/// An epoch of samples.
struct Epoch {
    layers: [u32; 3],
    batch: u32,
    data: Data,
    order: Vec<u32>,
}

impl Epoch {
    fn new(layers: [u32; 3], rows: u32, batch: u32) -> Self {
        let data = Data::new(rows as usize, &layers.map(|width| width as usize));
        Self { layers, batch, data, order: (0..rows).rev().collect() }
    }

    fn steps(&self) -> usize {
        self.order.len().div_ceil(self.batch as usize)
    }
}

/// What trains an epoch.
enum Runner<'d> {
    Rung(Box<Launched<'d>>),
    Resident(Box<Trainer<'d>>),
}

impl Runner<'_> {
    /// Trains an epoch; its loss.
    fn train(&mut self, epoch: &Epoch) -> Result<f64> {
        match self {
            Runner::Rung(rung) => rung.train(),
            Runner::Resident(trainer) => Ok(trainer.epoch(&epoch.order, epoch.batch as usize)?.loss),
        }
    }
}

/// A rung on the device, and what it trains.
struct Launched<'d> {
    rung: &'static Rung,
    epoch: &'d Epoch,
    stream: Arc<CudaStream>,
    function: CudaFunction,
    x: CudaSlice<u8>,
    labels: CudaSlice<u8>,
    order: CudaSlice<u32>,
    parameters: CudaSlice<f32>,
    velocities: CudaSlice<f32>,
    losses: CudaSlice<f32>,
}

impl<'d> Launched<'d> {
    fn new(rung: &'static Rung, epoch: &'d Epoch, arguments: &Arguments, gpu: &GpuInfo) -> Result<Self> {
        ensure!(rung.blocks == 1 || gpu.clusters, "needs clusters: sm_90 or newer");
        let bytes = rung.shared_bytes(epoch.layers, epoch.batch);
        let most = gpu.shared_bytes;
        ensure!(bytes <= most, "needs {bytes} bytes of shared memory a block, of {most}");
        let context = CudaContext::new(arguments.device)?;
        // SAFETY: cudarc's events order the use of a buffer on several streams; here there is one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.default_stream();
        let module = stream.context().load_module(Ptx::from_src(rung.ptx))?;
        let function = module.load_function(rung.kernel)?;
        function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes as i32)?;

        let data = &epoch.data;
        let (places, values) = arena(epoch.layers);
        let mut parameters = vec![0.0; values];
        for (place, tensor) in places.into_iter().zip(data.job()?.model.tensors()) {
            parameters[place].copy_from_slice(&tensor.data);
        }
        Ok(Self {
            rung,
            epoch,
            function,
            x: stream.clone_htod(&rung.padded(&data.pixels, epoch.layers[0]))?,
            labels: stream.clone_htod(&data.labels)?,
            order: stream.clone_htod(&epoch.order)?,
            parameters: stream.clone_htod(&parameters)?,
            velocities: stream.alloc_zeros(values)?,
            losses: stream.alloc_zeros(epoch.order.len())?,
            stream,
        })
    }

    fn train(&mut self) -> Result<f64> {
        let Epoch { layers, batch, ref order, .. } = *self.epoch;
        let ([k, h, c], stream) = (layers, &self.stream);
        let data =
            [self.x.device_ptr(stream).0, self.labels.device_ptr(stream).0, self.order.device_ptr(stream).0];
        let state = [&mut self.parameters, &mut self.velocities, &mut self.losses];
        let state = state.map(|values| values.device_ptr_mut(stream).0);
        let numbers = [k, self.rung.pitch(k), h, c, batch, order.len() as u32, 1]; // one epoch
        let options = [Data::LR, Data::MOMENTUM];
        let pointers = [data, state];
        let mut arguments: Vec<*mut c_void> = pointers.as_flattened().iter().map(address).collect();
        arguments.extend(numbers.iter().map(address));
        arguments.extend(options.iter().map(address));

        let blocks = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: self.rung.blocks, y: 1, z: 1 };
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { clusterDim: blocks },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.rung.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: THREADS,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.rung.shared_bytes(layers, batch),
            hStream: stream.cu_stream(),
            attrs: &mut attribute,
            numAttrs: u32::from(self.rung.blocks > 1),
        };
        let (function, arguments) = (self.function.cu_function(), arguments.as_mut_ptr());
        // SAFETY: these are the parameters that `kernels/ladder/ptx/abi.tsv` has for every rung, and all that is pointed at lives until
        // the driver has copied it, and on the device until the losses are there, below. Rows of x are `pitch` bytes apart, from a multiple
        // of 16 on, one for each sample; `order` names samples, each below their number; labels are below c; the arenas are as long as
        // `arena` says, and the losses as the order; batch is at most 8 THREADS. Blocks and shared memory are as the rung wants them, and the
        // context has been bound to this thread by what was copied.
        unsafe { sys::cuLaunchKernelEx(&config, function, arguments, null_mut()) }
            .result()
            .context("launching")?;
        let losses = self.stream.clone_dtoh(&self.losses)?; // waits
        let steps = losses.chunks(batch as usize);
        let of_step = |rows: &[f32]| rows.iter().copied().map(f64::from).sum::<f64>() / rows.len() as f64;
        Ok(steps.map(of_step).sum::<f64>() / self.epoch.steps() as f64)
    }
}

/// Where an argument lies, as a launch wants it.
fn address<T>(argument: &T) -> *mut c_void {
    from_ref(argument).cast_mut().cast()
}

/// The resident engine in each precision, and the rungs, on one model.
fn measure(arguments: &Arguments, gpu: &GpuInfo, epoch: &Epoch) -> Vec<Measured> {
    let resident = |precision| -> Result<Runner<'_>> {
        let options = ResidentOptions {
            device: arguments.device,
            precision,
            batch: epoch.batch as usize,
            team: None,
            blocks: None,
            epochs: None,
        };
        Ok(Runner::Resident(Box::new(Trainer::resident(epoch.data.job()?, &options)?)))
    };
    let residents = Precision::ALL.map(|precision| (format!("resident, {precision}"), resident(precision)));
    let rungs = RUNGS.iter().map(|rung| {
        let launched = Launched::new(rung, epoch, arguments, gpu);
        (rung.name.to_owned(), launched.map(|launched| Runner::Rung(Box::new(launched))))
    });
    let all = residents.into_iter().chain(rungs).collect();
    // All train the same model on the same batches, epoch after epoch: before a figure counts, so must the loss.
    let mut losses = Vec::new();
    alternate(arguments.rounds, all, |round, runner| {
        let loss = runner.train(epoch)?;
        if losses.len() == round as usize {
            losses.push(loss);
        }
        let expected = losses[round as usize];
        ensure!(
            (loss - expected).abs() <= LOSS_BOUND,
            "loss of epoch {}: expected {expected}, found {loss}",
            round + 1
        );
        Ok(epoch.steps())
    })
}

fn run(arguments: &Arguments) -> Result<()> {
    let gpu = probe(arguments.device)?;
    let (rows, batch) = if arguments.quick { (30, 8) } else { (60_000, 64) };
    match arguments.json {
        true => println!("{}", json!({"device": gpu.to_string(), "simulated": gpu.is_simulator()})),
        false => println!("{gpu}, batch {batch}"),
    }
    for layers in if arguments.quick { &TINY[..] } else { &MODELS } {
        let model = layers.map(|width| width.to_string()).join("-");
        let epoch = Epoch::new(*layers, rows, batch);
        let columns = [("model", model.as_str(), 12)];
        report(arguments.json, &columns, 16, &measure(arguments, &gpu, &epoch));
    }
    Ok(())
}

fn main() -> ExitCode {
    end("ladder", run(&Arguments::parse()))
}
