//! `kiln train`: what a run is, from flags or from a checkpoint. [`run::Run`] is its epochs.

mod run;

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use kiln_data::{Source, WholeFile};
use kiln_engine::{Job, Loss, Samples, StepRange};

use super::data;
use crate::checkpoint::Checkpoint;
use crate::cli::{TrainArgs, TrainCommand, Usage};
use crate::settings::Settings;
use crate::{engine, files, stop};
use run::{Output, Run};

/// A run that is to go on.
struct Resumed {
    path: PathBuf,
    checkpoint: Checkpoint,
}

pub(crate) fn run(TrainCommand { mut train, resume }: TrainCommand) -> anyhow::Result<()> {
    let resumed = |train: &mut TrainArgs| resume.clone().map(|path| Resumed::load(path, train)).transpose();
    // What cannot go on, or begin, fetches nothing and makes no folder.
    let from = resumed(&mut train)?;
    going_on(engine::check(&train.engine, true, train.profile_steps), from.as_ref())?;
    let folder = train.folder();
    let output = Output::in_folder(&folder);
    let _lock = files::writable_folder(&folder, [&output.model, &output.checkpoint, &output.metrics])?;
    files::refuse(&folder, "sweep.jsonl", "a sweep")?;
    // As it is when no other run writes it any more.
    let from = resumed(&mut train)?;

    let arguments = &train;
    let dataset = data::load_or_fetch(arguments.dataset, &arguments.data)?;
    let (train, test) = (data::samples(&dataset.train)?, data::samples(&dataset.test)?);
    let data_sha256 = dataset.sha256();
    let (settings, job) = match &from {
        Some(from) => from.job(train, &data_sha256)?,
        None => Settings::new(arguments, train)?,
    };
    let done = from.as_ref().map_or(0, |from| from.checkpoint.epoch);
    check_profile(&settings, done, arguments.profile_steps)?;
    let stop = stop::asked()?;
    let trainer = engine::trainer(job, Some(arguments.batch), &arguments.engine, arguments.profile_steps);
    let (mut trainer, line) = going_on(trainer, from.as_ref())?;
    let run = Run::new(settings, data_sha256, train, test, output, stop, arguments.json);
    let Some(Resumed { path, checkpoint }) = from else { return run.start(&line, None)?.epochs(trainer) };
    trainer.restore(&checkpoint.state).with_context(|| path.display().to_string())?;
    run.resumed(checkpoint).start(&line, Some(&path))?.epochs(trainer)
}

/// Names the checkpoint, if there is one, and the precision, which it may have chosen.
fn going_on<T>(result: anyhow::Result<T>, from: Option<&Resumed>) -> anyhow::Result<T> {
    let Some(Resumed { path, checkpoint }) = from else { return result };
    result.with_context(|| format!("going on from {}, in {}", path.display(), checkpoint.settings.precision))
}

impl Resumed {
    /// The checkpoint of a run that is to go on, and in the arguments what data and engine are chosen by.
    fn load(path: PathBuf, arguments: &mut TrainArgs) -> anyhow::Result<Self> {
        let mut checkpoint = Checkpoint::load(&path)?;
        let settings = &mut checkpoint.settings;
        settings.epochs = arguments.epochs.unwrap_or(settings.epochs);
        settings.precision = arguments.engine.options.precision.unwrap_or(settings.precision);
        if settings.epochs.get() < checkpoint.epoch {
            let (all, name, done) = (settings.epochs, path.display(), checkpoint.epoch);
            bail!(Usage::new(format!("--epochs {all}: {name} has {done} epochs behind it")));
        }
        (arguments.dataset, arguments.batch) = (settings.dataset, settings.batch);
        arguments.engine.options.precision = Some(settings.precision);
        arguments.out.get_or_insert_with(|| WholeFile::folder_of(&path).to_path_buf());
        Ok(Self { path, checkpoint })
    }

    /// What the run is, and what is left of it.
    fn job<'d>(&self, train: Samples<'d>, data_sha256: &str) -> anyhow::Result<(Settings, Job<'d>)> {
        let settings = self.checkpoint.settings.clone();
        let Settings { dataset, loss, optimizer, schedule, samples, .. } = settings;
        let (name, found) = (self.path.display(), train.len());
        ensure!(found == samples, "{name}: a run on {samples} samples of {dataset}, found {found}");
        let expected = &self.checkpoint.data_sha256;
        ensure!(
            data_sha256 == *expected,
            "{name}: a run on other samples or labels of {dataset}: expected their SHA-256 {expected}, found {data_sha256}"
        );
        let model = self.checkpoint.state.model.clone();
        Ok((settings, Job { model, loss, optimizer, schedule, train }))
    }
}

/// Steps to profile are steps of this run that are still to come.
fn check_profile(settings: &Settings, done: usize, range: Option<StepRange>) -> anyhow::Result<()> {
    let Some(range) = range else { return Ok(()) };
    let steps = settings.epoch_steps();
    let [first, end] = [done, settings.epochs.get()].map(|epochs| steps.saturating_mul(epochs as u64));
    ensure!(
        first <= range.first as u64 && range.end as u64 <= end,
        Usage::new(format!(
            "--profile-steps {range}: expected steps of this run, which has {end}, from {first}"
        ))
    );
    Ok(())
}

/// What a reader of the model file may want to know of its making.
pub(super) fn metadata(
    engine: &str,
    dataset: Source,
    loss: Loss,
    seed: u64,
    epoch: usize,
) -> HashMap<String, String> {
    let pairs = [
        ("engine", engine.to_owned()),
        ("dataset", dataset.to_string()),
        ("loss", loss.to_string()),
        ("seed", seed.to_string()),
        ("epoch", epoch.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}
