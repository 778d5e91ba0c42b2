//! `kiln sweep`: many runs of one job, which differ in seed, learning rate or momentum.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use kiln_data::Shuffle;
use kiln_engine::{Error, Evaluation, Job, Mlp, Optimizer, Samples, Sweep, Trained};
use serde::Serialize;

use super::data;
use super::train::{Interrupted, interrupted, metadata};
use crate::cli::{SweepArgs, TrainArgs, Usage};
use crate::terminal::say;
use crate::{engine, files, model_file};

/// What a run differs in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Variation {
    seed: u64,
    lr: f64,
    momentum: f64,
}

/// A line of `sweep.jsonl`.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// From 0.
    run: usize,
    #[serde(flatten)]
    variation: Variation,
    /// Epochs that were trained.
    epochs: usize,
    /// What they ran on.
    engine: String,
    /// Seconds of its training by the device's clock, where that trains whole epochs on its own; runs side by side take the same ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_seconds: Option<f64>,
    /// Mean of the batch losses of the last.
    train_loss: Option<f64>,
    test_loss: Option<f64>,
    /// A fraction.
    test_accuracy: Option<f64>,
    /// Why the run is lost.
    error: Option<String>,
}

impl Row {
    /// Whether it is better than another: by accuracy, then by loss; a run that is lost never is.
    fn beats(&self, other: &Row) -> bool {
        let rank = |row: &Row| (row.test_accuracy.unwrap_or(0.0), -row.test_loss.unwrap_or(f64::INFINITY));
        self.error.is_none() && (other.error.is_some() || rank(self) > rank(other))
    }
}

/// The rows so far, and which of them is the best.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    best: Option<usize>,
    /// Why a row could not be said. What was trained is to be written all the same.
    unsaid: Option<anyhow::Error>,
}

impl Table {
    /// Adds a row, and says it, if somebody listens; whether it is the best so far.
    fn add(&mut self, arguments: &SweepArgs, row: Row) -> bool {
        if self.unsaid.is_none() {
            self.unsaid = say_row(arguments, &row).err();
        }
        let best = row.error.is_none() && self.best.is_none_or(|best| row.beats(&self.rows[best]));
        if best {
            self.best = Some(self.rows.len());
        }
        self.rows.push(row);
        best
    }
}

/// Where the results go.
struct Output {
    table: PathBuf,
    model: PathBuf,
}

/// What is to be trained, run by run.
struct Jobs<'d> {
    jobs: Vec<Job<'d>>,
    variations: Vec<Variation>,
}

pub(crate) fn run(arguments: &SweepArgs) -> anyhow::Result<()> {
    let train_args = &arguments.train;
    ensure!(train_args.profile_steps.is_none(), Usage::new("--profile-steps belongs to kiln train"));
    let folder = train_args.folder_of_sweep();
    let output = Output { table: folder.join("sweep.jsonl"), model: folder.join("model.safetensors") };
    files::writable_folder(&folder, [&output.table, &output.model])?;
    let dataset = data::load_or_fetch(train_args.dataset, &train_args.data)?;
    let (train, test) = (data::samples(&dataset.train)?, data::samples(&dataset.test)?);
    let runs = jobs(arguments, train)?;
    let stop = interrupted()?;
    let started = Instant::now();
    let (table, best) = match side_by_side(arguments, &runs)? {
        Some(mut sweep) => train_together(arguments, &runs, &mut sweep, &test, stop)?,
        None => train_in_turn(arguments, &runs, &test, stop)?,
    };
    let best = report(arguments, &table, best, started.elapsed().as_secs_f64(), &output)?;
    if let Some(error) = table.unsaid {
        return Err(error);
    }
    let (epochs, rows) = (train_args.epochs().get(), &table.rows);
    // Ended early, where a run is missing, or one that is not lost has fewer epochs.
    let early =
        rows.len() < runs.jobs.len() || rows.iter().any(|row| row.error.is_none() && row.epochs < epochs);
    if early && stop.load(Ordering::Relaxed) {
        return Err(Interrupted { epoch: best, epochs, resume: None }.into());
    }
    Ok(())
}

/// Every combination of what was listed.
fn jobs<'d>(arguments: &SweepArgs, train: Samples<'d>) -> anyhow::Result<Jobs<'d>> {
    let base = &arguments.train;
    let layers = base.widths();
    let job = base.job(Mlp::new(&layers, base.seed)?, train)?;
    let Optimizer::Sgd(sgd) = job.optimizer else {
        bail!(Usage::new("kiln sweep varies learning rate and momentum of --optimizer sgd"))
    };
    let or = |given: &[f64], one: f64| if given.is_empty() { vec![one] } else { given.to_vec() };
    let seeds = arguments.seeds.clone().map_or_else(|| vec![base.seed], |seeds| seeds.0);
    let mut found = Jobs { jobs: Vec::new(), variations: Vec::new() };
    for &lr in &or(&arguments.lrs, sgd.lr) {
        for &momentum in &or(&arguments.momenta, sgd.momentum) {
            for &seed in &seeds {
                let model = Mlp::new(&layers, seed)?;
                let optimizer: Optimizer = kiln_engine::Sgd { lr, momentum, ..sgd }.into();
                optimizer.check().with_context(|| format!("lr {lr}, momentum {momentum}"))?;
                found.jobs.push(Job { model, optimizer, ..job.clone() });
                found.variations.push(Variation { seed, lr, momentum });
            }
        }
    }
    Ok(found)
}

/// All runs on one GPU at once, where the engine may be resident and is made for the job.
fn side_by_side<'d>(arguments: &SweepArgs, runs: &Jobs<'d>) -> anyhow::Result<Option<Sweep<'d>>> {
    let base = &arguments.train;
    let Some((options, asked)) = engine::for_sweep(&runs.jobs[0], base.batch, &base.engine)? else {
        return Ok(None);
    };
    match Sweep::resident(runs.jobs.clone(), &options) {
        Ok(sweep) => {
            if !base.json {
                say(&format!("Engine: {}{}", sweep.describe(), engine::unused("resident", &base.engine)))?;
            }
            Ok(Some(sweep))
        }
        Err(error @ (Error::Resident { .. } | Error::DeviceMemory { .. })) if !asked => {
            if !base.json {
                say(&format!("One run after the other: {error}"))?;
            }
            Ok(None)
        }
        Err(error) => Err(error).context("the runs cannot be trained in one launch"),
    }
}

/// The rows, and the best run's model.
type Outcome = (Table, Option<Mlp>);

fn train_together(
    arguments: &SweepArgs,
    runs: &Jobs<'_>,
    sweep: &mut Sweep<'_>,
    test: &Samples<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let base = &arguments.train;
    let (epochs, batch, samples) = (base.epochs().get(), base.batch.get(), runs.jobs[0].train.len());
    let mut last: Vec<Vec<Result<Trained, Error>>> = vec![Vec::new(); runs.jobs.len()];
    let mut begun = 0;
    while begun < epochs && !stop.load(Ordering::Relaxed) {
        let together = sweep.together(samples, batch).min(epochs - begun);
        let orders = |variation: &Variation| {
            let shuffle = Shuffle::new(samples, variation.seed);
            (begun..begun + together).map(|epoch| shuffle.epoch(epoch as u64)).collect::<Vec<_>>()
        };
        let orders: Vec<_> = runs.variations.iter().map(orders).collect();
        for (all, trained) in last.iter_mut().zip(sweep.epochs(&orders, batch, stop)?) {
            // A run that is lost stays so, though its cluster goes on.
            if !matches!(all.last(), Some(Err(_))) {
                all.extend(trained);
            }
        }
        begun += together;
    }
    let mut table = Table::default();
    for (run, trained) in last.into_iter().enumerate() {
        let tested = match trained.last() {
            Some(Ok(_)) => Some(sweep.evaluate(run, test)),
            _ => None,
        };
        table.add(arguments, row(run, runs.variations[run], sweep.describe(), trained, tested));
    }
    let best = table.best.map(|run| sweep.model(run)).transpose()?;
    Ok((table, best))
}

fn train_in_turn(
    arguments: &SweepArgs,
    runs: &Jobs<'_>,
    test: &Samples<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let base = &arguments.train;
    let (mut table, mut best) = (Table::default(), None);
    for (run, (job, &variation)) in runs.jobs.iter().zip(&runs.variations).enumerate() {
        if stop.load(Ordering::Relaxed) || table.unsaid.is_some() {
            break;
        }
        let shuffle = Shuffle::new(job.train.len(), variation.seed);
        let (mut trainer, line) = engine::trainer(job.clone(), Some(base.batch), &base.engine, None)?;
        if run == 0 && !base.json {
            say(&line)?;
        }
        let engine = trainer.describe();
        let mut epochs =
            trainer.epochs(base.epochs().get(), base.batch.get(), |epoch| shuffle.epoch(epoch as u64));
        let mut trained = Vec::new();
        while let Some(next) = epochs.next_with(stop, &mut |_| ()).transpose() {
            trained.push(next);
        }
        let tested = matches!(trained.last(), Some(Ok(_))).then(|| epochs.evaluate(test));
        if table.add(arguments, row(run, variation, engine, trained, tested)) {
            best = Some(epochs.model()?);
        }
    }
    Ok((table, best))
}

fn row(
    run: usize,
    variation: Variation,
    engine: String,
    trained: Vec<Result<Trained, Error>>,
    tested: Option<Result<Evaluation, Error>>,
) -> Row {
    let device_seconds =
        trained.iter().flatten().filter_map(|epoch| epoch.device_seconds).reduce(|all, epoch| all + epoch);
    let epochs = trained.iter().filter(|epoch| epoch.is_ok()).count();
    let (train_loss, lost) = match trained.into_iter().last() {
        Some(Ok(trained)) => (Some(trained.epoch.loss), None),
        Some(Err(error)) => (None, Some(format!("epoch {}: {error}", epochs + 1))),
        None => (None, Some("ended before its first epoch".to_owned())),
    };
    let (tested, error) = match tested {
        Some(Ok(tested)) => (Some(tested), lost),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, lost),
    };
    let (test_loss, test_accuracy) = (tested.map(|t| t.loss), tested.and_then(|t| t.accuracy));
    Row { run, variation, epochs, engine, device_seconds, train_loss, test_loss, test_accuracy, error }
}

/// A line of the table; the head comes with the first.
fn say_row(arguments: &SweepArgs, row: &Row) -> anyhow::Result<()> {
    if arguments.train.json {
        return say(&serde_json::to_string(row)?);
    }
    if row.run == 0 {
        say("  run   seed         lr   momentum      loss  test loss  test accuracy")?;
    }
    let Variation { seed, lr, momentum } = row.variation;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let accuracy = row.test_accuracy.map_or_else(|| "-".to_owned(), |value| format!("{:.2}%", 100.0 * value));
    let lost = row.error.as_ref().map_or_else(String::new, |error| format!("  {error}"));
    let (loss, test_loss) = (number(row.train_loss), number(row.test_loss));
    say(&format!(
        "{:>5} {seed:>6} {lr:>10} {momentum:>10} {loss:>9} {test_loss:>10} {accuracy:>14}{lost}",
        row.run
    ))
}

/// Writes the rows and the best model; the epochs that were trained.
fn report(
    arguments: &SweepArgs,
    Table { rows, best, .. }: &Table,
    model: Option<Mlp>,
    seconds: f64,
    output: &Output,
) -> anyhow::Result<usize> {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let Output { table, model: model_path } = output;
    let lines = lines.join("\n") + "\n";
    let mut results = files::Replacement::default();
    let Some((run, model)) = best.zip(model) else {
        results.add(table, lines.as_bytes())?;
        results.finish()?;
        bail!("no run has a result: see {}", table.display())
    };
    let row = &rows[run];
    let TrainArgs { dataset, loss, .. } = arguments.train;
    let of_model = metadata(&row.engine, dataset, loss, row.variation.seed, row.epochs);
    results.add(model_path, &model_file::bytes(&model, of_model)?)?;
    results.add(table, lines.as_bytes())?;
    results.finish()?;
    if !arguments.train.json {
        let Variation { seed, lr, momentum } = row.variation;
        say(&format!("Best: run {run}, seed {seed}, lr {lr}, momentum {momentum}"))?;
        say(&format!("Trained and tested {} runs in {seconds:.2} s", rows.len()))?;
        say(&format!("Wrote {} (the best) and {}", model_path.display(), table.display()))?;
    }
    Ok(row.epochs)
}
