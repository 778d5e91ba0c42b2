//! The textbook job on cuBLASLt, as an engineer who knows it writes it: epilogues for bias, ReLU, its mask and the bias gradients,
//! momentum added up by the product, algorithms chosen by measurement, steps captured in CUDA graphs, the data on the device, and
//! one read-back an epoch. What cuBLASLt does not do is in `cublaslt.cu`. It starts from kiln's parameters and takes its batches.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use kiln_data::{Shuffle, Source};
use kiln_engine::Mlp;
use serde_json::{Value, json};

#[path = "cublaslt/device.rs"]
mod device;
#[path = "cublaslt/launches.rs"]
mod launches;
#[path = "cublaslt/lt.rs"]
mod lt;
#[path = "cublaslt/memory.rs"]
mod memory;
#[path = "cublaslt/net.rs"]
mod net;
#[path = "cublaslt/plan.rs"]
mod plan;

use device::Device;
use lt::{Library, Precision};
use net::Net;
use plan::Fusion;

/// What every peer takes, and more.
#[derive(Parser)]
struct Arguments {
    /// The folder that holds mnist/
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Widths of the model: inputs, hidden.., classes
    #[arg(long, value_delimiter = ',', default_value = "784,128,10")]
    layers: Vec<usize>,
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Epilogues of the backward pass; `auto` measures all and takes the fastest
    #[arg(long, value_enum, default_value = "auto")]
    epilogues: Epilogues,
}

/// See [`Fusion`].
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Epilogues {
    Auto,
    MaskSums,
    Mask,
    Sums,
    None,
}

impl Epilogues {
    fn fusions(self) -> Vec<Fusion> {
        let name = self.to_possible_value().expect("no value is hidden");
        let meant = |fusion: &Fusion| self == Epilogues::Auto || name.get_name() == fusion.to_string();
        Fusion::ALL.into_iter().filter(meant).collect()
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("peer-cublaslt: {error:#}"); // one line, which scripts/bench gives as the reason
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Trains; the report.
fn run(arguments: &Arguments) -> Result<Value> {
    let started = Instant::now();
    let operand = match arguments.precision {
        Precision::F32 | Precision::Tf32 => "float",
        Precision::Bf16 => "bf16",
    };
    let device = Device::open(operand)?;
    let library = Rc::new(Library::open(&device)?);

    let mnist = kiln_data::load(Source::Mnist, &arguments.data_dir)?;
    let model = Mlp::new(&arguments.layers, arguments.seed)?;
    let (inputs, outputs) = (arguments.layers[0], arguments.layers[model.depth()]);
    let width = mnist.train.width();
    ensure!(inputs == width, "--layers has {inputs} inputs; expected {width}, the pixels of a sample");
    ensure!(
        outputs >= mnist.classes,
        "--layers has {outputs} outputs; expected {} or more, one a class",
        mnist.classes
    );
    let fusions = arguments.epilogues.fusions();
    let batch = arguments.batch as usize;
    let (mut net, tried) =
        Net::new(&device, &library, arguments.precision, &model, &mnist.train, batch, &fusions)?;
    let shuffle = Shuffle::new(mnist.train.len(), arguments.seed);
    let mut order = shuffle.epoch(0);
    let setup_seconds = started.elapsed().as_secs_f64();

    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for epoch in 0..arguments.epochs {
        let started = Instant::now();
        let mut next = Vec::new();
        losses.push(net.epoch(&order, || next = shuffle.epoch(epoch + 1))?);
        order = next;
        seconds.push(started.elapsed().as_secs_f64());
    }

    let steps = net.steps() as f64 * arguments.epochs as f64;
    let tried: serde_json::Map<String, Value> = tried
        .into_iter()
        .map(|(fusion, tried)| (fusion.to_string(), tried.map_or_else(Value::from, Value::from)))
        .collect();
    Ok(json!({
        "name": "cublaslt", "versions": { "cublasLt": library.version() }, "device": "cuda", "gpu": device.name, "threads": 1,
        "layers": arguments.layers, "precision": arguments.precision.to_possible_value().expect("none is hidden").get_name(),
        "epilogues": net.fusion().to_string(), "epilogues_us": tried,
        "setup_seconds": setup_seconds, "epoch_seconds": seconds, "epoch_losses": losses,
        "us_per_step": seconds.iter().sum::<f64>() * 1e6 / steps,
        "test_accuracy": net.accuracy(&mnist.test)?,
    }))
}
