//! The epochs of a run: trained, tested, told, and written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use kiln_data::Shuffle;
use kiln_engine::{Curve, Evaluation, Samples, Schedule, Trained, Trainer, TrainingState};
use serde::Serialize;

use super::metadata;
use crate::checkpoint::{self, Checkpoint};
use crate::files::{Pace, Replacement};
use crate::settings::{Described, Settings};
use crate::stop::Interrupted;
use crate::terminal::{EpochBar, plural, say, say_json};
use crate::{help, model_file};

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
    /// The learning rate of its last step.
    lr: f64,
    /// Of training alone.
    seconds: f64,
    /// The same by the device's clock, where the device trains whole epochs on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_seconds: Option<f64>,
}

impl Metrics {
    fn new(epoch: usize, trained: &Trained, tested: &Evaluation, lr: f64) -> Self {
        Self {
            epoch,
            train_loss: trained.epoch.loss,
            test_loss: tested.loss,
            test_accuracy: tested.accuracy,
            lr,
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
        #[serde(flatten)]
        settings: Described<'a>,
        /// Epochs of them that were done before.
        done: usize,
        seed: u64,
    },
    Epoch(&'a Metrics),
    Summary {
        train_seconds: f64,
        steps: usize,
        /// None where all epochs were done before.
        us_per_step: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device_us_per_step: Option<f64>,
        /// Of each epoch by the host's clock, from the end of the one before to its own: what was done between them is in it.
        epoch_wall_seconds: &'a [f64],
        model: String,
        checkpoint: String,
        metrics: String,
    },
}

/// Where the results go.
pub(super) struct Output {
    pub(super) model: PathBuf,
    pub(super) checkpoint: PathBuf,
    pub(super) metrics: PathBuf,
}

impl Output {
    pub(super) fn in_folder(folder: &Path) -> Self {
        let [model, checkpoint, metrics] =
            ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl"].map(|name| folder.join(name));
        Self { model, checkpoint, metrics }
    }
}

/// A run, or the rest of one.
pub(super) struct Run<'a> {
    settings: Settings,
    data_sha256: String,
    /// Epochs that are done.
    done: usize,
    /// Their lines of `metrics.jsonl`.
    metrics: String,
    /// What it runs on.
    engine: String,
    train: Samples<'a>,
    test: Samples<'a>,
    /// What the last of the epochs came to, where it is not written yet.
    unsaved: Option<TrainingState>,
    pace: Pace,
    /// Whether someone has asked for its end.
    stop: Arc<AtomicBool>,
    json: bool,
    output: Output,
}

/// What the epochs of this process took.
#[derive(Debug, Default)]
struct Totals {
    train_seconds: f64,
    /// The same by the device's clock; 0 where it tells none.
    device_seconds: f64,
    /// Of each epoch, from the end of the one before to its own.
    wall_seconds: Vec<f64>,
    steps: usize,
}

impl Totals {
    fn add(&mut self, trained: &Trained) {
        self.train_seconds += trained.seconds;
        self.device_seconds += trained.device_seconds.unwrap_or(0.0);
        self.steps += trained.epoch.steps;
    }
}

impl<'a> Run<'a> {
    /// A run that begins.
    pub(super) fn new(
        settings: Settings,
        data_sha256: String,
        train: Samples<'a>,
        test: Samples<'a>,
        output: Output,
        stop: Arc<AtomicBool>,
        json: bool,
    ) -> Self {
        let (metrics, engine, unsaved, pace) = (String::new(), String::new(), None, Pace::default());
        Self {
            settings,
            data_sha256,
            done: 0,
            metrics,
            engine,
            train,
            test,
            unsaved,
            pace,
            stop,
            json,
            output,
        }
    }

    /// The rest of a run. Its results so far are written, too: they may have come from elsewhere, or be ahead of the files beside them.
    pub(super) fn resumed(self, checkpoint: Checkpoint) -> Self {
        let Checkpoint { epoch, metrics, state, .. } = checkpoint;
        Self { done: epoch, metrics, unsaved: Some(state), ..self }
    }

    /// Says what it is.
    pub(super) fn start(self, engine: &str, resume: Option<&Path>) -> anyhow::Result<Self> {
        let (settings, done) = (&self.settings, self.done);
        if self.json {
            let seed = settings.seed;
            say_json(&Event::Start { engine, settings: settings.described(), done, seed })?;
            return Ok(self);
        }
        say(&format!("Engine: {engine}"))?;
        say(&format!("Job: {settings}; seed {}", settings.seed))?;
        if resume.is_none()
            && let Ok(metrics) = std::fs::read_to_string(&self.output.metrics)
        {
            let (there, of) = (plural(metrics.lines().count(), "epoch"), self.output.metrics.display());
            say(&format!("Replaces a run of {there} once an epoch is done: {of} and what is beside it"))?;
        }
        if let Some(path) = resume {
            say(&format!("Resumed after epoch {done} from {}", path.display()))?;
            let steps = settings.epoch_steps().saturating_mul(settings.epochs.get() as u64);
            if let Some((span, then)) = span(&settings.schedule).filter(|&(span, _)| span < steps) {
                say(&format!(
                    "Schedule: set for {span} steps when the run began, which has {steps} now; {then}"
                ))?;
            }
        }
        Ok(self)
    }

    pub(super) fn epochs(mut self, trainer: Trainer<'_>) -> anyhow::Result<()> {
        let mut totals = Totals::default();
        self.engine = trainer.describe();
        let trained = self.train(trainer, &mut totals).map_err(|error| self.with_older_model(error));
        // Whatever ended it, the epochs before are good.
        let saved = self.save();
        help::ended(trained, saved)?;
        let (epoch, epochs) = (self.done, self.settings.epochs.get());
        if epoch > 0 {
            self.summary(&totals)?;
        }
        if epoch == epochs {
            return Ok(());
        }
        let resume = (epoch > 0).then_some(self.output.checkpoint);
        Err(Interrupted { what: "epoch", done: epoch, all: epochs, resume }.into())
    }

    /// Says of a run that came to no epoch that the model that is there is not its own.
    fn with_older_model(&self, error: anyhow::Error) -> anyhow::Error {
        let model = &self.output.model;
        if self.done == 0 && model.exists() {
            return error.context(format!("no epoch is done, and {} is of an earlier run", model.display()));
        }
        error
    }

    /// Trains until the last epoch is done, or a wish to end it is heard.
    fn train(&mut self, mut trainer: Trainer<'_>, totals: &mut Totals) -> anyhow::Result<()> {
        let Settings { epochs: all, batch, seed, .. } = self.settings;
        let (samples, first, test) = (self.train.len(), self.done, self.test);
        let shuffle = Shuffle::new(samples, seed);
        let stop = self.stop.clone();
        let mut epochs = trainer
            .epochs(all.get() - first, batch.get(), |epoch| shuffle.epoch((first + epoch) as u64))
            .evaluating(&test)
            .context("the test set cannot be evaluated")?;
        let mut ended = Instant::now();
        loop {
            let next = self.done + 1;
            let bar = EpochBar::new(format!("Epoch {next}"), samples, &stop);
            let trained = epochs.next_with(&stop, &mut |now| bar.show(now));
            drop(bar);
            let Some(trained) = trained.with_context(|| format!("epoch {next}"))? else { return Ok(()) };
            totals.wall_seconds.push(ended.elapsed().as_secs_f64());
            ended = Instant::now();
            let tested = epochs.evaluate(&test).with_context(|| format!("test after epoch {next}"))?;
            let state = epochs.state()?;
            let metrics = Metrics::new(next, &trained, &tested, self.settings.lr(state.steps - 1));
            // What could be written and not be read again.
            state.model.check_finite().with_context(|| format!("epoch {next}: the run has diverged"))?;
            self.unsaved = Some(state);
            self.done = next;
            self.metrics.push_str(&serde_json::to_string(&metrics)?);
            self.metrics.push('\n');
            totals.add(&trained);
            self.report(&metrics)?;
            if self.pace.is_due() {
                self.save()?;
            }
        }
    }

    /// Writes what the run has come to, from which it can go on, if it is not written yet.
    fn save(&mut self) -> anyhow::Result<()> {
        let Some(state) = self.unsaved.take() else { return Ok(()) };
        let Output { model, checkpoint, metrics } = &self.output;
        let Settings { dataset, loss, seed, .. } = self.settings;
        let metadata = metadata(&self.engine, dataset, loss, seed, self.done);
        let mut results = Replacement::default();
        results.add(model, &model_file::bytes(&state.model, metadata)?)?;
        let Self { settings, data_sha256, done, .. } = &*self;
        let bytes = checkpoint::bytes(settings, data_sha256, *done, &self.metrics, &state)?;
        results.add(checkpoint, &bytes)?;
        results.add(metrics, self.metrics.as_bytes())?;
        results.finish()?;
        self.pace.written();
        Ok(())
    }

    fn report(&self, metrics: &Metrics) -> anyhow::Result<()> {
        if self.json {
            return say_json(&Event::Epoch(metrics));
        }
        let Metrics { epoch, train_loss, test_loss, test_accuracy, lr, seconds, .. } = metrics;
        let accuracy = test_accuracy.map_or(String::new(), |a| format!(", Test accuracy: {:.2}%", 100.0 * a));
        let rate =
            if self.settings.is_scheduled() { format!(", Learning rate: {lr:.3e}") } else { String::new() };
        say(&format!(
            "Epoch: {epoch}, Loss: {train_loss:.3}, Test loss: {test_loss:.3}{accuracy}{rate}, Time: {seconds:.2} s"
        ))
    }

    fn summary(&self, totals: &Totals) -> anyhow::Result<()> {
        let &Totals { train_seconds, device_seconds, steps, .. } = totals;
        let us_per_step = (steps > 0).then_some(train_seconds * 1e6 / steps as f64);
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
                epoch_wall_seconds: &totals.wall_seconds,
                model,
                checkpoint,
                metrics,
            };
            return say_json(&summary);
        }
        let device =
            device_us_per_step.map_or_else(String::new, |us| format!(", {us:.2} µs by the device's clock"));
        say(&match us_per_step {
            Some(us) => {
                let steps = plural(steps, "step");
                format!("Trained {steps} in {train_seconds:.2} s, {us:.1} µs a step{device}")
            }
            None if self.done == self.settings.epochs.get() => {
                "No epoch is left to train: --epochs N, N in all, makes the run longer".to_owned()
            }
            None => "No epoch was trained".to_owned(),
        })?;
        say(&format!("Wrote {model}, {checkpoint} and {metrics}"))
    }
}

/// Steps until a schedule is where it was to end, if it was, and what it does then.
fn span(schedule: &Schedule) -> Option<(u64, &'static str)> {
    let (curve, then) = match schedule.curve {
        Curve::Constant | Curve::Step { .. } => return None,
        Curve::Cosine { half_period_steps, .. } => {
            (half_period_steps, "the learning rate goes up the cosine again")
        }
        Curve::OneCycle(cycle) => (cycle.total_steps, "the learning rate stays where the cycle has ended"),
    };
    Some((schedule.warmup_steps.checked_add(curve)?, then))
}
