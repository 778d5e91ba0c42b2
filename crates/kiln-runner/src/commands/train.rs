//! `kiln train`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use kiln_data::{Dataset, Shuffle};
use kiln_engine::{Mlp, Optimizer, Samples, Schedule, Trained, Trainer};
use serde::Serialize;

use super::data;
use crate::cli::TrainArgs;
use crate::terminal::{bar, say};
use crate::{engine, files, model_file};

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize)]
struct Metrics {
    /// From 1.
    epoch: usize,
    /// Mean of the batch losses.
    train_loss: f64,
    test_loss: f64,
    /// A fraction.
    test_accuracy: Option<f64>,
    /// Of training alone.
    seconds: f64,
    /// The same by the device's clock, where the device trains whole epochs on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_seconds: Option<f64>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start {
        engine: &'a str,
        layers: &'a [usize],
        samples: usize,
        optimizer: String,
        schedule: String,
        batch: usize,
        epochs: usize,
        seed: u64,
    },
    Epoch(&'a Metrics),
    Summary {
        train_seconds: f64,
        steps: usize,
        us_per_step: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        device_us_per_step: Option<f64>,
        model: String,
        metrics: String,
    },
}

/// A run that was ended before its last epoch.
#[derive(Debug, thiserror::Error)]
#[error("ended after epoch {epoch} of {epochs}, as asked: what it came to is written")]
pub(crate) struct Interrupted {
    pub(super) epoch: usize,
    pub(super) epochs: usize,
}

impl Interrupted {
    /// What shells take for an end by Ctrl-C.
    pub(crate) const EXIT_CODE: u8 = 130;
}

/// Where the results go.
struct Output {
    model: PathBuf,
    metrics: PathBuf,
}

pub(crate) fn run(arguments: &TrainArgs) -> anyhow::Result<()> {
    let layers = arguments.widths();
    let model = Mlp::new(&layers, arguments.seed)?;
    let folder = arguments.folder();
    let output = Output { model: folder.join("model.safetensors"), metrics: folder.join("metrics.jsonl") };
    files::writable_folder(&folder, [&output.model, &output.metrics])?;

    let dataset = data::load_or_fetch(arguments.dataset, &arguments.data)?;
    let (train, test) = (data::samples(&dataset.train)?, data::samples(&dataset.test)?);
    let job = arguments.job(model, train)?;
    let (optimizer, schedule) = (job.optimizer, job.schedule);
    check_profile(arguments, train.len())?;
    let (trainer, line) =
        engine::trainer(job, Some(arguments.batch), &arguments.engine, arguments.profile_steps)?;
    start(arguments, &layers, &dataset, (&optimizer, &schedule), &line)?;
    epochs(arguments, trainer, &test, train.len(), &output)
}

/// Steps to profile are steps of this run.
fn check_profile(arguments: &TrainArgs, samples: usize) -> anyhow::Result<()> {
    let Some(range) = arguments.profile_steps else { return Ok(()) };
    let steps = samples.div_ceil(arguments.batch.get()).saturating_mul(arguments.epochs.get());
    ensure!(
        range.end <= steps,
        "--profile-steps {range}: expected steps of this run, which has {steps}, from 0"
    );
    Ok(())
}

fn start(
    arguments: &TrainArgs,
    layers: &[usize],
    dataset: &Dataset,
    (optimizer, schedule): (&Optimizer, &Schedule),
    engine: &str,
) -> anyhow::Result<()> {
    let (samples, batch, epochs) = (dataset.train.len(), arguments.batch.get(), arguments.epochs.get());
    if arguments.json {
        let (optimizer, schedule) = (optimizer.to_string(), schedule.to_string());
        let seed = arguments.seed;
        return say_json(&Event::Start { engine, layers, samples, optimizer, schedule, batch, epochs, seed });
    }
    say(engine)?;
    // The textbook's constant learning rate goes without saying.
    let scheduled =
        if *schedule == Schedule::default() { String::new() } else { format!("; schedule: {schedule}") };
    let widths: Vec<String> = layers.iter().map(usize::to_string).collect();
    say(&format!(
        "Job: {}, {samples} samples; layers {}; {}; {optimizer}{scheduled}; batch {batch}; {epochs} epochs; seed {}",
        arguments.dataset,
        widths.join("-"),
        arguments.loss,
        arguments.seed
    ))
}

fn epochs(
    arguments: &TrainArgs,
    mut trainer: Trainer<'_>,
    test: &Samples<'_>,
    samples: usize,
    output: &Output,
) -> anyhow::Result<()> {
    let shuffle = Shuffle::new(samples, arguments.seed);
    let stop = interrupted()?;
    let mut lines = String::new();
    let (mut train_seconds, mut on_device, mut steps, mut epoch) = (0.0, 0.0, 0, 0);
    let mut epochs = trainer
        .epochs(arguments.epochs.get(), arguments.batch.get(), |epoch| shuffle.epoch(epoch as u64))
        .evaluating(test)
        .context("the test set cannot be evaluated")?;
    loop {
        let next = epoch + 1;
        let progress = bar(samples as u64, "{msg} {bar:30} {pos}/{len} samples, {per_sec}");
        let trained = epochs.next_with(stop, &mut |now| {
            progress.set_position(now.samples as u64);
            progress.set_message(format!("Epoch {next}: loss {:.3}", now.loss));
        });
        progress.finish_and_clear();
        let Some(Trained { epoch: trained, seconds, device_seconds }) =
            trained.with_context(|| format!("epoch {next}"))?
        else {
            break;
        };
        epoch = next;
        let tested = epochs.evaluate(test).with_context(|| format!("test after epoch {epoch}"))?;
        let metrics = Metrics {
            epoch,
            train_loss: trained.loss,
            test_loss: tested.loss,
            test_accuracy: tested.accuracy,
            seconds,
            device_seconds,
        };
        train_seconds += seconds;
        on_device += device_seconds.unwrap_or(0.0);
        steps += trained.steps;
        report(arguments, &metrics)?;
        lines.push_str(&serde_json::to_string(&metrics)?);
        lines.push('\n');
        let model = model_file::bytes(&epochs.model()?, metadata(arguments, epoch))?;
        files::replace([(&output.model, &model), (&output.metrics, lines.as_bytes())])?;
    }
    if steps > 0 {
        let on_device = (on_device > 0.0).then_some(on_device);
        summary(arguments, train_seconds, on_device, steps, output)?;
    }
    if epoch < arguments.epochs.get() {
        return Err(Interrupted { epoch, epochs: arguments.epochs.get() }.into());
    }
    Ok(())
}

/// Whether someone has asked for an end, by Ctrl-C or a signal to terminate: it comes after the epoch that is under way. Asked
/// twice, the process ends at once.
pub(super) fn interrupted() -> anyhow::Result<&'static AtomicBool> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(Interrupted::EXIT_CODE.into());
        }
    })
    .context("Ctrl-C cannot be listened for")?;
    Ok(&ASKED)
}

fn report(arguments: &TrainArgs, metrics: &Metrics) -> anyhow::Result<()> {
    if arguments.json {
        return say_json(&Event::Epoch(metrics));
    }
    let Metrics { epoch, train_loss, test_loss, test_accuracy, seconds, .. } = metrics;
    let accuracy = test_accuracy.map_or(String::new(), |a| format!(", Test accuracy: {:.2}%", 100.0 * a));
    say(&format!(
        "Epoch: {epoch}, Loss: {train_loss:.3}, Test loss: {test_loss:.3}{accuracy}, Time: {seconds:.2} s"
    ))
}

fn summary(
    arguments: &TrainArgs,
    train_seconds: f64,
    on_device: Option<f64>,
    steps: usize,
    output: &Output,
) -> anyhow::Result<()> {
    let us_per_step = train_seconds * 1e6 / steps as f64;
    let device_us_per_step = on_device.map(|seconds| seconds * 1e6 / steps as f64);
    let (model, metrics) = (output.model.display().to_string(), output.metrics.display().to_string());
    if arguments.json {
        let summary =
            Event::Summary { train_seconds, steps, us_per_step, device_us_per_step, model, metrics };
        return say_json(&summary);
    }
    let device =
        device_us_per_step.map_or_else(String::new, |us| format!(", {us:.2} µs by the device's clock"));
    say(&format!("Trained {steps} steps in {train_seconds:.2} s, {us_per_step:.1} µs a step{device}"))?;
    say(&format!("Wrote {model} and {metrics}"))
}

/// What a reader of the model file may want to know of its making.
pub(super) fn metadata(arguments: &TrainArgs, epoch: usize) -> HashMap<String, String> {
    let pairs = [
        ("dataset", arguments.dataset.to_string()),
        ("loss", arguments.loss.to_string()),
        ("seed", arguments.seed.to_string()),
        ("epoch", epoch.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

fn say_json(event: &Event<'_>) -> anyhow::Result<()> {
    say(&serde_json::to_string(event)?)
}
