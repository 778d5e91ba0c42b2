//! `kiln sweep`: many runs of one job, which differ in seed, learning rate or momentum.

use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use kiln_data::Shuffle;
use kiln_engine::{Error, Evaluation, Job, Mlp, Optimizer, Samples, Sgd, Sweep, TrainedEpochs};
use serde::Serialize;

use super::data;
use super::train::metadata;
use crate::cli::{SweepArgs, TrainArgs, Usage};
use crate::files::{self, Pace, Replacement};
use crate::settings::{Described, Settings};
use crate::stop::{self, Interrupted};
use crate::terminal::{EpochBar, plural, say, say_json};
use crate::{engine, help, model_file};

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

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start {
        engine: &'a str,
        /// Those that all runs share, and of the others those of a run that no list was given for.
        #[serde(flatten)]
        settings: Described<'a>,
        runs: usize,
    },
    Run(&'a Row),
    Summary {
        /// Which of the runs.
        best: usize,
        /// That were trained.
        runs: usize,
        /// Of training and testing.
        seconds: f64,
        model: String,
        table: String,
    },
}

/// Where the results go.
struct Output {
    table: PathBuf,
    model: PathBuf,
}

/// The rows so far, and the best of their models.
struct Table<'a> {
    arguments: &'a SweepArgs,
    settings: &'a Settings,
    output: Output,
    rows: Vec<Row>,
    /// Which of the rows it is of.
    best: Option<(usize, Mlp)>,
    /// Whether there is more than is written.
    unwritten: bool,
    pace: Pace,
    /// Why a row could not be said. What was trained is to be written all the same.
    unsaid: Option<anyhow::Error>,
}

impl<'a> Table<'a> {
    fn new(arguments: &'a SweepArgs, settings: &'a Settings, output: Output) -> Self {
        let (rows, pace) = (Vec::new(), Pace::default());
        Self { arguments, settings, output, rows, best: None, unwritten: false, pace, unsaid: None }
    }

    /// Says what so many runs are of, and what trains them.
    fn start(&self, engine: &str, runs: usize) -> anyhow::Result<()> {
        if self.arguments.train.json {
            return say_json(&Event::Start { engine, settings: self.settings.described(), runs });
        }
        say(&format!("Engine: {engine}"))?;
        let listed = self.arguments.listed();
        let by = if listed.is_empty() { listed } else { format!(" by {listed}") };
        say(&format!("Job: {}; {}{by}", self.settings, plural(runs, "run")))
    }

    /// Adds a row, says it, if somebody listens, and keeps its model where it is the best so far.
    fn add(&mut self, mut row: Row, model: impl FnOnce() -> Result<Mlp, Error>) -> anyhow::Result<()> {
        if row.error.is_none() {
            let model = model()?;
            match model.check_finite() {
                // What could be written and not be read again.
                Err(error) => row.error = Some(error.to_string()),
                Ok(()) if self.best.as_ref().is_none_or(|(best, _)| row.beats(&self.rows[*best])) => {
                    self.best = Some((self.rows.len(), model));
                }
                Ok(()) => {}
            }
        }
        if self.unsaid.is_none() {
            self.unsaid = say_row(self.arguments, &row).err();
        }
        self.rows.push(row);
        self.unwritten = true;
        // Not before there is a model to it: the files belong together.
        if self.best.is_some() && self.pace.is_due() { self.write() } else { Ok(()) }
    }

    /// Writes the rows and the best model, if they are not written yet. What fails is not tried again before there is more.
    fn write(&mut self) -> anyhow::Result<()> {
        if !mem::take(&mut self.unwritten) {
            return Ok(());
        }
        let mut results = Replacement::default();
        if let Some((run, model)) = &self.best {
            let (row, TrainArgs { dataset, loss, .. }) = (&self.rows[*run], &self.arguments.train);
            let of_model = metadata(&row.engine, *dataset, *loss, row.variation.seed, row.epochs);
            results.add(&self.output.model, &model_file::bytes(model, of_model)?)?;
        }
        let lines: Vec<String> = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        results.add(&self.output.table, (lines.join("\n") + "\n").as_bytes())?;
        results.finish()?;
        self.pace.written();
        Ok(())
    }

    /// The best row.
    fn best(&self) -> anyhow::Result<&Row> {
        let best = self.best.as_ref().map(|(run, _)| &self.rows[*run]);
        best.with_context(|| {
            let Output { table, model } = &self.output;
            let older =
                if model.exists() { format!("; {} is older", model.display()) } else { String::new() };
            format!("no run has a result: see {}{older}", table.display())
        })
    }
}

/// What is to be trained, run by run.
struct Jobs<'d> {
    /// What all share, with the model of one seed.
    base: Job<'d>,
    /// Its optimizer, with one learning rate and momentum.
    sgd: Sgd,
    variations: Vec<Variation>,
}

impl<'d> Jobs<'d> {
    /// That of a run.
    fn job(&self, variation: Variation) -> Result<Job<'d>, Error> {
        let Job { loss, schedule, train, .. } = self.base;
        let Variation { seed, lr, momentum } = variation;
        let model = Mlp::new(self.base.model.layers(), seed)?;
        Ok(Job { model, loss, optimizer: Sgd { lr, momentum, ..self.sgd }.into(), schedule, train })
    }
}

pub(crate) fn run(arguments: &SweepArgs) -> anyhow::Result<()> {
    let train_args = &arguments.train;
    ensure!(train_args.profile_steps.is_none(), Usage::new("--profile-steps belongs to kiln train"));
    engine::check(&train_args.engine, true, None)?;
    let folder = train_args.folder_of_sweep();
    let output = Output { table: folder.join("sweep.jsonl"), model: folder.join("model.safetensors") };
    let _lock = files::writable_folder(&folder, [&output.table, &output.model])?;
    files::refuse(&folder, "checkpoint.safetensors", "kiln train")?;
    let dataset = data::load_or_fetch(train_args.dataset, &train_args.data)?;
    let (train, test) = (data::samples(&dataset.train)?, data::samples(&dataset.test)?);
    let (settings, base) = Settings::new(train_args, train)?;
    let runs = jobs(arguments, base)?;
    let stop = stop::asked()?;
    let started = Instant::now();
    let mut table = Table::new(arguments, &settings, output);
    let trained = match side_by_side(&table, &runs)? {
        Some(mut sweep) => train_together(&mut table, &runs, &mut sweep, &test, &stop),
        None => train_in_turn(&mut table, &runs, &test, &stop),
    };
    // Whatever ended it, the runs before are good.
    let written = table.write();
    help::ended(trained, written)?;
    let (epochs, all, done) = (train_args.epochs().get(), runs.variations.len(), table.rows.len());
    // Ended early, where a run is missing, or one that is not lost has fewer epochs.
    let early = done < all || table.rows.iter().any(|row| row.error.is_none() && row.epochs < epochs);
    let stopped = early && stop.load(Ordering::Relaxed);
    match table.best() {
        Ok(best) => report(&table, best, started.elapsed().as_secs_f64())?,
        Err(_) if stopped => {}
        Err(error) => return Err(error),
    }
    match table.unsaid {
        Some(error) => Err(error),
        None if stopped => Err(Interrupted { what: "run", done, all, resume: None }.into()),
        None => Ok(()),
    }
}

/// Every combination of what was listed.
fn jobs<'d>(arguments: &SweepArgs, base: Job<'d>) -> anyhow::Result<Jobs<'d>> {
    let Optimizer::Sgd(sgd) = base.optimizer else { unreachable!("other optimizers have been refused") };
    let or = |given: &[f64], one: f64| if given.is_empty() { vec![one] } else { given.to_vec() };
    let seeds = arguments.seeds.clone().map_or_else(|| vec![arguments.train.seed], |seeds| seeds.0);
    let mut variations = Vec::new();
    for &lr in &or(&arguments.lrs, sgd.lr) {
        for &momentum in &or(&arguments.momenta, sgd.momentum) {
            Sgd { lr, momentum, ..sgd }.check().with_context(|| format!("lr {lr}, momentum {momentum}"))?;
            variations.extend(seeds.iter().map(|&seed| Variation { seed, lr, momentum }));
        }
    }
    Ok(Jobs { base, sgd, variations })
}

/// All runs on one GPU at once, where the engine may be resident and is made for the job.
fn side_by_side<'d>(table: &Table<'_>, runs: &Jobs<'d>) -> anyhow::Result<Option<Sweep<'d>>> {
    let base = &table.arguments.train;
    let Some((options, asked)) = engine::for_sweep(&runs.base, base.batch, &base.engine)? else {
        return Ok(None);
    };
    let jobs = runs.variations.iter().map(|&variation| runs.job(variation));
    match Sweep::resident(jobs, &options) {
        Ok(sweep) => {
            let unused = engine::unused("resident", &base.engine.options);
            table.start(&format!("{}{unused}", sweep.describe()), runs.variations.len())?;
            Ok(Some(sweep))
        }
        Err(error @ (Error::Resident { .. } | Error::DeviceMemory { .. })) if !asked => {
            if !base.json {
                say(&format!("One run after the other: {error}"))?;
            }
            Ok(None)
        }
        Err(error) => Err(error).context("the runs cannot be trained side by side"),
    }
}

fn train_together(
    table: &mut Table<'_>,
    runs: &Jobs<'_>,
    sweep: &mut Sweep<'_>,
    test: &Samples<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let at_once = sweep.at_once();
    for (group, variations) in runs.variations.chunks(at_once).enumerate() {
        if table.unsaid.is_some() {
            break;
        }
        let first = group * at_once;
        let trained = train_group(table.arguments, runs.base.train.len(), first, variations, sweep, stop)?;
        // What was asked to end before its first epoch has no row.
        let trained = trained.into_iter().enumerate().filter(|(_, trained)| began(trained));
        for (at, trained) in trained {
            let run = first + at;
            let tested = tested(&trained, || sweep.evaluate(run, test))?;
            let row = row(run, variations[at], sweep.describe(), &trained, tested);
            table.add(row, || sweep.model(run))?;
        }
        // All of them, before others are trained; but not before there is a model to them.
        if table.best.is_some() {
            table.write()?;
        }
    }
    Ok(())
}

/// All epochs of the runs from `first` on that train at once.
fn train_group(
    arguments: &SweepArgs,
    samples: usize,
    first: usize,
    variations: &[Variation],
    sweep: &mut Sweep<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<TrainedEpochs>> {
    let (epochs, batch) = (arguments.train.epochs().get(), arguments.train.batch.get());
    let mut all = vec![TrainedEpochs::default(); variations.len()];
    let mut begun = 0;
    while begun < epochs && !stop.load(Ordering::Relaxed) {
        let together = sweep.together(samples, batch).min(epochs - begun);
        let orders = |variation: &Variation| {
            let shuffle = Shuffle::new(samples, variation.seed);
            (begun..begun + together).map(|epoch| shuffle.epoch(epoch as u64)).collect::<Vec<_>>()
        };
        let orders: Vec<_> = variations.iter().map(orders).collect();
        for (all, trained) in all.iter_mut().zip(sweep.epochs(first, &orders, batch, stop)?) {
            // A run that is lost stays so, though its cluster goes on.
            if all.lost.is_none() {
                all.epochs.extend(trained.epochs);
                all.lost = trained.lost;
            }
        }
        begun += together;
    }
    Ok(all)
}

fn train_in_turn(
    table: &mut Table<'_>,
    runs: &Jobs<'_>,
    test: &Samples<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let base = &table.arguments.train;
    for (run, &variation) in runs.variations.iter().enumerate() {
        if stop.load(Ordering::Relaxed) || table.unsaid.is_some() {
            break;
        }
        let job = runs.job(variation)?;
        let shuffle = Shuffle::new(job.train.len(), variation.seed);
        let (mut trainer, line) = engine::trainer(job, Some(base.batch), &base.engine, None)?;
        if run == 0 {
            table.start(&line, runs.variations.len())?;
        }
        let engine = trainer.describe();
        let mut epochs =
            trainer.epochs(base.epochs().get(), base.batch.get(), |epoch| shuffle.epoch(epoch as u64));
        let mut trained = TrainedEpochs::default();
        while trained.lost.is_none() {
            let name = format!("Run {run}, epoch {}", trained.epochs.len() + 1);
            let bar = EpochBar::new(name, runs.base.train.len(), stop);
            let Some(next) = epochs.next_with(stop, &mut |now| bar.show(now)).transpose() else { break };
            match of_run(next)? {
                Ok(epoch) => trained.epochs.push(epoch),
                Err(error) => trained.lost = Some(error),
            }
        }
        if !began(&trained) {
            break; // asked to end before its first epoch
        }
        let tested = tested(&trained, || epochs.evaluate(test))?;
        table.add(row(run, variation, engine, &trained, tested), || epochs.model())?;
    }
    Ok(())
}

/// Whether anything of a run was trained.
fn began(trained: &TrainedEpochs) -> bool {
    !trained.epochs.is_empty() || trained.lost.is_some()
}

/// What is wrong with a run, which others need not have; or with what trains it, which ends the sweep.
fn of_run<T>(result: Result<T, Error>) -> Result<Result<T, Error>, Error> {
    match result {
        Err(error @ (Error::Diverged { .. } | Error::EvaluationDiverged { .. })) => Ok(Err(error)),
        other => other.map(Ok),
    }
}

/// What the test of a run comes to, or why the run is lost.
fn tested(
    trained: &TrainedEpochs,
    evaluate: impl FnOnce() -> Result<Evaluation, Error>,
) -> Result<Result<Evaluation, String>, Error> {
    match &trained.lost {
        None => Ok(of_run(evaluate())?.map_err(|error| error.to_string())),
        Some(error) => Ok(Err(format!("epoch {}: {error}", trained.epochs.len() + 1))),
    }
}

fn row(
    run: usize,
    variation: Variation,
    engine: String,
    TrainedEpochs { epochs, lost }: &TrainedEpochs,
    tested: Result<Evaluation, String>,
) -> Row {
    Row {
        run,
        variation,
        epochs: epochs.len(),
        engine,
        device_seconds: epochs
            .iter()
            .filter_map(|epoch| epoch.device_seconds)
            .reduce(|all, epoch| all + epoch),
        train_loss: epochs.last().filter(|_| lost.is_none()).map(|last| last.epoch.loss),
        test_loss: tested.as_ref().ok().map(|tested| tested.loss),
        test_accuracy: tested.as_ref().ok().and_then(|tested| tested.accuracy),
        error: tested.err(),
    }
}

/// A line of the table; the head comes with the first.
fn say_row(arguments: &SweepArgs, row: &Row) -> anyhow::Result<()> {
    if arguments.train.json {
        return say_json(&Event::Run(row));
    }
    if row.run == 0 {
        say("  run   seed         lr   momentum      loss  test loss  test accuracy")?;
    }
    let Variation { seed, lr, momentum } = row.variation;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let accuracy = row.test_accuracy.map_or_else(|| "-".to_owned(), |value| format!("{:.2}%", 100.0 * value));
    let lost = match &row.error {
        Some(error) => format!("  {error}"),
        None if row.epochs < arguments.train.epochs().get() => {
            format!("  after {}", plural(row.epochs, "epoch"))
        }
        None => String::new(),
    };
    let (loss, test_loss) = (number(row.train_loss), number(row.test_loss));
    say(&format!(
        "{:>5} {seed:>6} {lr:>10} {momentum:>10} {loss:>9} {test_loss:>10} {accuracy:>14}{lost}",
        row.run
    ))
}

/// Says which run is the best, and where it is written.
fn report(table: &Table<'_>, best: &Row, seconds: f64) -> anyhow::Result<()> {
    if table.unsaid.is_some() {
        return Ok(());
    }
    let &Row { run, variation: Variation { seed, lr, momentum }, .. } = best;
    let Output { table: rows, model } = &table.output;
    if table.arguments.train.json {
        let [model, rows] = [model, rows].map(|path| path.display().to_string());
        return say_json(&Event::Summary { best: run, runs: table.rows.len(), seconds, model, table: rows });
    }
    say(&format!("Best: run {run}, seed {seed}, lr {lr}, momentum {momentum}"))?;
    say(&format!("Trained and tested {} in {seconds:.2} s", plural(table.rows.len(), "run")))?;
    say(&format!("Wrote {} (the best) and {}", model.display(), rows.display()))
}
