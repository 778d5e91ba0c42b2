//! `kiln train`.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kiln_data::{Shuffle, Source, WholeFile};
use kiln_engine::{Evaluation, Job, Loss, Mlp, Samples, Schedule, Trained, Trainer, TrainingState};
use serde::Serialize;

use super::data;
use crate::checkpoint::{self, Checkpoint, Settings};
use crate::cli::{TrainArgs, TrainCommand, Usage};
use crate::terminal::{bar, plural, say};
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

impl Metrics {
    fn new(epoch: usize, trained: &Trained, tested: &Evaluation) -> Self {
        Self {
            epoch,
            train_loss: trained.epoch.loss,
            test_loss: tested.loss,
            test_accuracy: tested.accuracy,
            seconds: trained.seconds,
            device_seconds: trained.device_seconds,
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start {
        engine: &'a str,
        layers: &'a [NonZeroUsize],
        samples: usize,
        optimizer: String,
        schedule: String,
        batch: usize,
        epochs: usize,
        /// Epochs of them that were done before.
        done: usize,
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
        checkpoint: String,
        metrics: String,
    },
}

/// A run that was ended before its last epoch.
#[derive(Debug, thiserror::Error)]
#[error("ended after epoch {epoch} of {epochs}, as asked: what it came to is written")]
pub(crate) struct Interrupted {
    pub(super) epoch: usize,
    pub(super) epochs: usize,
    /// What it can go on from, if there is anything.
    pub(crate) resume: Option<PathBuf>,
}

impl Interrupted {
    /// What shells take for an end by Ctrl-C.
    pub(crate) const EXIT_CODE: u8 = 130;
}

/// Where the results go.
struct Output {
    model: PathBuf,
    checkpoint: PathBuf,
    metrics: PathBuf,
}

impl Output {
    fn in_folder(folder: &Path) -> Self {
        let [model, checkpoint, metrics] =
            ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl"].map(|name| folder.join(name));
        Self { model, checkpoint, metrics }
    }
}

/// A run, or the rest of one.
struct Run<'a> {
    settings: Settings,
    /// Epochs that are done.
    done: usize,
    /// Their lines of `metrics.jsonl`.
    metrics: String,
    train: Samples<'a>,
    test: Samples<'a>,
    /// What the last of the epochs came to, where it is not written yet, and when those before were.
    unsaved: Option<TrainingState>,
    saved: Option<Instant>,
    json: bool,
    output: Output,
}

/// Time from one writing of results to the next, at least: an epoch may take milliseconds, and so does a disk.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What the epochs of this process took.
#[derive(Debug, Default)]
struct Totals {
    train_seconds: f64,
    /// The same by the device's clock; 0 where it tells none.
    device_seconds: f64,
    steps: usize,
}

impl Totals {
    fn add(&mut self, trained: &Trained) {
        self.train_seconds += trained.seconds;
        self.device_seconds += trained.device_seconds.unwrap_or(0.0);
        self.steps += trained.epoch.steps;
    }
}

pub(crate) fn run(TrainCommand { mut train, resume }: TrainCommand) -> anyhow::Result<()> {
    let from = resume.as_deref().map(|path| resumed(path, &mut train)).transpose()?;
    let arguments = &train;
    let layers = arguments.widths();
    let initial = match &from {
        Some(checkpoint) => checkpoint.state.model.clone(),
        None => Mlp::new(&layers, arguments.seed)?,
    };
    let folder = arguments.folder();
    let output = Output::in_folder(&folder);
    files::writable_folder(&folder, [&output.model, &output.checkpoint, &output.metrics])?;

    let dataset = data::load_or_fetch(arguments.dataset, &arguments.data)?;
    let (train, test) = (data::samples(&dataset.train)?, data::samples(&dataset.test)?);
    let job = match &from {
        Some(Checkpoint { settings, .. }) => {
            let Settings { loss, optimizer, schedule, .. } = *settings;
            Job { model: initial, loss, optimizer, schedule, train }
        }
        None => arguments.job(initial, train)?,
    };
    let settings = settings(arguments, &job);
    let (done, metrics) = from.as_ref().map_or((0, String::new()), |from| (from.epoch, from.metrics.clone()));
    check_profile(arguments, train.len(), done)?;
    let (mut trainer, line) =
        engine::trainer(job, Some(arguments.batch), &arguments.engine, arguments.profile_steps)?;
    if let (Some(from), Some(path)) = (&from, &resume) {
        trainer.restore(&from.state).with_context(|| path.display().to_string())?;
    }
    let (unsaved, saved, json) = (None, None, arguments.json);
    let run = Run { settings, done, metrics, train, test, unsaved, saved, json, output };
    run.start(&line, resume.as_deref())?;
    run.epochs(trainer)
}

/// The checkpoint of a run that is to go on, whose flags the arguments then have.
fn resumed(path: &Path, arguments: &mut TrainArgs) -> anyhow::Result<Checkpoint> {
    let mut from = Checkpoint::load(path)?;
    let settings = &mut from.settings;
    settings.epochs = arguments.epochs.unwrap_or(settings.epochs);
    ensure!(
        settings.epochs.get() >= from.epoch,
        Usage::new(format!(
            "--epochs {}: {} has {} epochs behind it",
            settings.epochs,
            path.display(),
            from.epoch
        ))
    );
    arguments.layers = settings.layers.clone();
    (arguments.dataset, arguments.loss) = (settings.dataset, settings.loss);
    (arguments.batch, arguments.seed) = (settings.batch, settings.seed);
    arguments.epochs = Some(settings.epochs);
    arguments.engine.gpu.precision.get_or_insert(settings.precision);
    arguments.out.get_or_insert_with(|| WholeFile::folder_of(path).to_path_buf());
    Ok(from)
}

/// What the run of a job is.
fn settings(arguments: &TrainArgs, job: &Job<'_>) -> Settings {
    Settings {
        dataset: arguments.dataset,
        layers: arguments.layers.clone(),
        loss: job.loss,
        optimizer: job.optimizer,
        schedule: job.schedule,
        batch: arguments.batch,
        epochs: arguments.epochs(),
        seed: arguments.seed,
        precision: arguments.engine.gpu.precision(),
    }
}

/// Steps to profile are steps of this run that are still to come.
fn check_profile(arguments: &TrainArgs, samples: usize, done: usize) -> anyhow::Result<()> {
    let Some(range) = arguments.profile_steps else { return Ok(()) };
    let epoch = samples.div_ceil(arguments.batch.get());
    let [first, end] = [done, arguments.epochs().get()].map(|epochs| epoch.saturating_mul(epochs));
    ensure!(
        first <= range.first && range.end <= end,
        "--profile-steps {range}: expected steps of this run, which has {end}, from {first}"
    );
    Ok(())
}

impl Run<'_> {
    fn start(&self, engine: &str, resume: Option<&Path>) -> anyhow::Result<()> {
        let Settings { dataset, layers, loss, optimizer, schedule, batch, epochs, seed, .. } = &self.settings;
        let (samples, done) = (self.train.len(), self.done);
        if self.json {
            let (optimizer, schedule) = (optimizer.to_string(), schedule.to_string());
            let (batch, epochs, seed) = (batch.get(), epochs.get(), *seed);
            let start =
                Event::Start { engine, layers, samples, optimizer, schedule, batch, epochs, done, seed };
            return say_json(&start);
        }
        say(engine)?;
        // The textbook's constant learning rate goes without saying.
        let scheduled =
            if *schedule == Schedule::default() { String::new() } else { format!("; schedule: {schedule}") };
        let widths: Vec<String> = layers.iter().map(NonZeroUsize::to_string).collect();
        let widths = widths.join("-");
        say(&format!(
            "Job: {dataset}, {samples} samples; layers {widths}; {loss}; {optimizer}{scheduled}; batch {batch}; {}; seed {seed}",
            plural(epochs.get(), "epoch"),
        ))?;
        match resume {
            Some(path) => say(&format!("Resumed after epoch {done} from {}", path.display())),
            None => Ok(()),
        }
    }

    fn epochs(mut self, trainer: Trainer<'_>) -> anyhow::Result<()> {
        let mut totals = Totals::default();
        let trained = self.train(trainer, &mut totals);
        // Whatever ended it, the epochs before are good.
        let saved = self.save();
        trained.and(saved)?;
        if totals.steps > 0 {
            self.summary(&totals)?;
        }
        let (epoch, epochs) = (self.done, self.settings.epochs.get());
        if epoch < epochs {
            let resume = (epoch > 0).then_some(self.output.checkpoint);
            return Err(Interrupted { epoch, epochs, resume }.into());
        }
        if totals.steps == 0 && !self.json {
            let all = plural(epochs, "epoch");
            say(&format!("All {all} are done: --epochs N, N in all, makes the run longer"))?;
        }
        Ok(())
    }

    /// Trains until the last epoch is done, or a wish to end it is heard.
    fn train(&mut self, mut trainer: Trainer<'_>, totals: &mut Totals) -> anyhow::Result<()> {
        let Settings { epochs: all, batch, seed, .. } = self.settings;
        let (samples, first, test) = (self.train.len(), self.done, self.test);
        let shuffle = Shuffle::new(samples, seed);
        let stop = interrupted()?;
        let mut epochs = trainer
            .epochs(all.get() - first, batch.get(), |epoch| shuffle.epoch((first + epoch) as u64))
            .evaluating(&test)
            .context("the test set cannot be evaluated")?;
        loop {
            let next = self.done + 1;
            let progress = bar(samples as u64, "{msg} {bar:30} {pos}/{len} samples, {per_sec}");
            let trained = epochs.next_with(stop, &mut |now| {
                progress.set_position(now.samples as u64);
                progress.set_message(format!("Epoch {next}: loss {:.3}", now.loss));
            });
            progress.finish_and_clear();
            let Some(trained) = trained.with_context(|| format!("epoch {next}"))? else { return Ok(()) };
            let tested = epochs.evaluate(&test).with_context(|| format!("test after epoch {next}"))?;
            let metrics = Metrics::new(next, &trained, &tested);
            self.unsaved = Some(epochs.state()?);
            self.done = next;
            self.metrics.push_str(&serde_json::to_string(&metrics)?);
            self.metrics.push('\n');
            totals.add(&trained);
            self.report(&metrics)?;
            if self.saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY) {
                self.save()?;
            }
        }
    }

    /// Writes what the run has come to, from which it can go on, if it is not written yet.
    fn save(&mut self) -> anyhow::Result<()> {
        let Some(state) = self.unsaved.take() else { return Ok(()) };
        let Output { model, checkpoint, metrics } = &self.output;
        let Settings { dataset, loss, seed, .. } = self.settings;
        let metadata = metadata(dataset, loss, seed, self.done);
        files::replace([
            (model, &model_file::bytes(&state.model, metadata)?),
            (checkpoint, &checkpoint::bytes(&self.settings, self.done, &self.metrics, &state)?),
            (metrics, self.metrics.as_bytes()),
        ])?;
        self.saved = Some(Instant::now());
        Ok(())
    }

    fn report(&self, metrics: &Metrics) -> anyhow::Result<()> {
        if self.json {
            return say_json(&Event::Epoch(metrics));
        }
        let Metrics { epoch, train_loss, test_loss, test_accuracy, seconds, .. } = metrics;
        let accuracy = test_accuracy.map_or(String::new(), |a| format!(", Test accuracy: {:.2}%", 100.0 * a));
        say(&format!(
            "Epoch: {epoch}, Loss: {train_loss:.3}, Test loss: {test_loss:.3}{accuracy}, Time: {seconds:.2} s"
        ))
    }

    fn summary(&self, &Totals { train_seconds, device_seconds, steps }: &Totals) -> anyhow::Result<()> {
        let us_per_step = train_seconds * 1e6 / steps as f64;
        let device_us_per_step = (device_seconds > 0.0).then_some(device_seconds * 1e6 / steps as f64);
        let Output { model, checkpoint, metrics } = &self.output;
        let [model, checkpoint, metrics] =
            [model, checkpoint, metrics].map(|path| path.display().to_string());
        if self.json {
            let summary = Event::Summary {
                train_seconds,
                steps,
                us_per_step,
                device_us_per_step,
                model,
                checkpoint,
                metrics,
            };
            return say_json(&summary);
        }
        let device =
            device_us_per_step.map_or_else(String::new, |us| format!(", {us:.2} µs by the device's clock"));
        say(&format!("Trained {steps} steps in {train_seconds:.2} s, {us_per_step:.1} µs a step{device}"))?;
        say(&format!("Wrote {model}, {checkpoint} and {metrics}"))
    }
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

/// What a reader of the model file may want to know of its making.
pub(super) fn metadata(dataset: Source, loss: Loss, seed: u64, epoch: usize) -> HashMap<String, String> {
    let pairs = [
        ("dataset", dataset.to_string()),
        ("loss", loss.to_string()),
        ("seed", seed.to_string()),
        ("epoch", epoch.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

fn say_json(event: &Event<'_>) -> anyhow::Result<()> {
    say(&serde_json::to_string(event)?)
}
