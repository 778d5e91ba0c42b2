//! `kiln train`: what a run is, from flags or from a checkpoint. [`run::Run`] is its epochs.

mod run;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use kiln_data::{Source, WholeFile};
use kiln_engine::{Job, Loss, Mlp};

use super::data;
use crate::checkpoint::{Checkpoint, Settings};
use crate::cli::{TrainArgs, TrainCommand, Usage};
use crate::{engine, files};
use run::{Output, Run};

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
