//! The textbook job in candle: autograd, data in memory, momentum by hand (candle's SGD has none).

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use clap::Parser;
use kiln_data::{Shuffle, Source, Split};

/// What every peer takes.
#[derive(Parser)]
struct Arguments {
    /// The folder that holds mnist/
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, default_value_t = 128)]
    hidden: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads of candle's matrix products
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let mnist = kiln_data::load(Source::Mnist, &arguments.data_dir)?;
    let (x, y) = tensors(&mnist.train)?;
    let parameters = parameters(&[x.dim(1)?, arguments.hidden, mnist.classes])?;
    let mut velocities: Vec<Tensor> =
        parameters.iter().map(|var| var.as_tensor().zeros_like()).collect::<Result<_>>()?;
    let shuffle = Shuffle::new(mnist.train.len(), arguments.seed);
    let setup_seconds = started.elapsed().as_secs_f64();

    let (mut seconds, mut losses, mut all_steps) = (Vec::new(), Vec::new(), 0);
    for epoch in 0..arguments.epochs {
        let started = Instant::now();
        let (mut sum, mut steps) = (0.0, 0);
        for rows in shuffle.epoch(epoch).chunks(arguments.batch) {
            let rows = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
            let z = forward(&parameters, &x.index_select(&rows, 0)?)?;
            let loss = candle_nn::loss::cross_entropy(&z, &y.index_select(&rows, 0)?)?;
            let gradients = loss.backward()?;
            for (var, velocity) in parameters.iter().zip(&mut velocities) {
                let gradient = gradients.get(var).expect("the loss depends on every parameter");
                *velocity = ((&*velocity * 0.9)? + gradient.detach())?;
                var.set(&(var.as_tensor() - (&*velocity * 0.01)?)?)?;
            }
            sum += f64::from(loss.to_scalar::<f32>()?);
            steps += 1;
        }
        losses.push(sum / f64::from(steps));
        all_steps += steps;
        seconds.push(started.elapsed().as_secs_f64());
    }

    let (x, y) = tensors(&mnist.test)?;
    let hits = forward(&parameters, &x)?.argmax(D::Minus1)?.eq(&y)?.to_dtype(DType::F32)?;
    let result = serde_json::json!({
        "name": "candle", "versions": { "candle-core": locked("candle-core") }, "device": "cpu", "threads": arguments.threads,
        "setup_seconds": setup_seconds, "epoch_seconds": seconds, "epoch_losses": losses,
        "us_per_step": seconds.iter().sum::<f64>() * 1e6 / f64::from(all_steps),
        "test_accuracy": hits.mean_all()?.to_scalar::<f32>()?,
    });
    println!("{result}");
    Ok(())
}

/// The version of a package that this was built with.
fn locked(package: &str) -> Option<&'static str> {
    let (_, found) =
        include_str!("../../Cargo.lock").split_once(&format!("name = \"{package}\"\nversion = \""))?;
    found.split('"').next()
}

/// Pixels / 255 (samples, 784) and labels (samples).
fn tensors(split: &Split) -> Result<(Tensor, Tensor)> {
    let shape = (split.len(), split.width());
    let x = Tensor::from_slice(&split.images.pixels, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
    let y = Tensor::from_slice(&split.labels, split.len(), &Device::Cpu)?.to_dtype(DType::U32)?;
    Ok(((x / 255.0)?, y))
}

/// Weight and bias of each layer, with PyTorch's initial distribution.
fn parameters(widths: &[usize]) -> Result<Vec<Var>> {
    let mut vars = Vec::new();
    for width in widths.windows(2) {
        let bound = 1.0 / (width[0] as f64).sqrt();
        vars.push(Var::rand_f64(-bound, bound, (width[1], width[0]), DType::F32, &Device::Cpu)?);
        vars.push(Var::rand_f64(-bound, bound, width[1], DType::F32, &Device::Cpu)?);
    }
    Ok(vars)
}

fn forward(parameters: &[Var], x: &Tensor) -> Result<Tensor> {
    let linear = |x: &Tensor, i: usize| {
        x.matmul(&parameters[i].as_tensor().t()?)?.broadcast_add(parameters[i + 1].as_tensor())
    };
    linear(&linear(x, 0)?.relu()?, 2)
}
