//! Chooses an engine, and says which, where and why.

use std::num::NonZeroUsize;

use anyhow::{Context, ensure};
use kiln_engine::{Error, Job, Mlp, Precision, ResidentOptions, StepRange, Trainer, host_threads, probe};

use crate::cli::{EngineArgs, EngineChoice, EngineFlag, EngineOptions, Usage};

/// Finds out before any work whether the flags can be meant, and whether there is a GPU where one was asked for. Where `trains` is not set,
/// a model is evaluated alone.
pub(crate) fn check(arguments: &EngineArgs, trains: bool, profile: Option<StepRange>) -> anyhow::Result<()> {
    if !trains {
        nothing_for_training(arguments)?;
    }
    every_flag_has_effect(arguments, profile)?;
    match arguments.engine {
        EngineChoice::Auto => Ok(()),
        EngineChoice::Host => {
            on_the_host(&arguments.options, profile).map_err(|reason| Usage::new(reason).into())
        }
        EngineChoice::Graph => probe(arguments.options.device).map(drop).context("the graph engine"),
        EngineChoice::Resident => {
            ensure!(
                profile.is_none(),
                Usage::new(
                    "--profile-steps needs --engine graph: the resident engine runs all steps in one launch"
                )
            );
            probe(arguments.options.device).map(drop).context("the resident engine")
        }
    }
}

/// Says what was asked for that needs a GPU.
fn on_the_host(options: &EngineOptions, profile: Option<StepRange>) -> Result<(), String> {
    let precision = options.precision();
    if precision != Precision::F32 {
        return Err(format!("--precision {precision} needs a GPU: the host engine computes in f32 alone"));
    }
    if profile.is_some() {
        let text = "on the host engine no kernels run that a CUDA profiler could see";
        return Err(format!("--profile-steps needs a GPU (--engine graph): {text}"));
    }
    Ok(())
}

/// A trainer for the job, of which a profiler may see some steps, and what it runs on and why, where [`check`] had nothing against it.
/// `batch` is how it will be trained, if it will.
pub(crate) fn trainer<'d>(
    job: Job<'d>,
    batch: Option<NonZeroUsize>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let asked = "as asked".to_owned();
    match arguments.engine {
        EngineChoice::Host => host(job, arguments, profile, &asked),
        EngineChoice::Graph => graph(job, arguments, profile, &asked),
        EngineChoice::Resident => {
            let options = resident_options(&job, batch, &arguments.options);
            let trainer = Trainer::resident(job, &options)?; // its errors name the engine
            let line = format!("{} ({asked})", trainer.describe());
            Ok((trainer, line))
        }
        EngineChoice::Auto => match probe(arguments.options.device) {
            Err(reason) => host(job, arguments, profile, &reason.to_string()),
            Ok(_) => on_gpu(job, batch, arguments, profile),
        },
    }
}

/// Refuses flags that mean nothing where nothing is trained.
fn nothing_for_training(arguments: &EngineArgs) -> Result<(), Usage> {
    let resident = (arguments.engine == EngineChoice::Resident).then_some("--engine resident");
    let flags: Vec<_> =
        resident.into_iter().chain(names(&arguments.options, |flag| !flag.evaluates)).collect();
    if flags.is_empty() {
        return Ok(());
    }
    Err(Usage::new(format!("{}: nothing is trained", no_effect(&flags))))
}

/// Refuses flags that mean nothing to the engine that was asked for, or to any.
fn every_flag_has_effect(arguments: &EngineArgs, profile: Option<StepRange>) -> Result<(), Usage> {
    let asked = match arguments.engine {
        EngineChoice::Auto => return no_two_engines(&arguments.options, profile),
        EngineChoice::Host => "host",
        EngineChoice::Graph => "graph",
        EngineChoice::Resident => "resident",
    };
    belongs_to(asked, &arguments.options, " or auto")
}

/// Refuses flags that mean nothing to an engine; `or` ends the list of those that could be asked for instead.
pub(crate) fn belongs_to(asked: &str, options: &EngineOptions, or: &str) -> Result<(), Usage> {
    let foreign = options.given().into_iter().find(|flag| !flag.engines.contains(&asked));
    if let Some(EngineFlag { engines, .. }) = foreign {
        let flags = names(options, |flag| flag.engines == engines);
        let (effect, engines) = (no_effect(&flags), engines.join(", "));
        return Err(Usage::new(format!("{effect} with --engine {asked}: expected --engine {engines}{or}")));
    }
    chunks_are_streamed(options)
}

/// What an engine says that was found, not asked for, of flags that are for others: the same command is good on another machine.
pub(crate) fn unused(engine: &str, options: &EngineOptions) -> String {
    let flags = for_others(engine, options);
    if flags.is_empty() { String::new() } else { format!("; {} on it", no_effect(&flags)) }
}

/// Flags that were given and mean nothing to an engine.
pub(crate) fn for_others(engine: &str, options: &EngineOptions) -> Vec<&'static str> {
    names(options, |flag| !flag.engines.contains(&engine))
}

/// Flags that were given and are for one engine alone.
fn for_alone(engine: &str, options: &EngineOptions) -> Vec<&'static str> {
    names(options, |flag| flag.engines == [engine])
}

/// Those of the flags that were given that `of` picks.
fn names(options: &EngineOptions, of: impl FnMut(&EngineFlag) -> bool) -> Vec<&'static str> {
    options.given().into_iter().filter(of).map(|flag| flag.name).collect()
}

/// Refuses flags of the graph engine beside flags of the resident one, where either may be taken.
fn no_two_engines(options: &EngineOptions, profile: Option<StepRange>) -> Result<(), Usage> {
    let (mut graph, resident) = (for_alone("graph", options), for_alone("resident", options));
    graph.extend(profile.map(|_| "--profile-steps"));
    if !graph.is_empty() && !resident.is_empty() {
        let (graph, resident) = (graph.join(" and "), resident.join(" and "));
        return Err(Usage::new(format!(
            "{graph} for --engine graph, {resident} for --engine resident: expected one engine's"
        )));
    }
    chunks_are_streamed(options)
}

fn chunks_are_streamed(options: &EngineOptions) -> Result<(), Usage> {
    if options.chunks_of_nothing() {
        return Err(Usage::new("--chunk-rows has no effect with --placement resident"));
    }
    Ok(())
}

/// `--a has no effect`, `--a and --b have no effect`.
pub(crate) fn no_effect(flags: &[&str]) -> String {
    let verb = if flags.len() == 1 { "has" } else { "have" };
    format!("{} {verb} no effect", flags.join(" and "))
}

/// The resident engine where it is made for the job and the device, else the graph engine.
fn on_gpu<'d>(
    job: Job<'d>,
    batch: Option<NonZeroUsize>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let why_not = if batch.is_none() {
        None // nothing will be trained
    } else if profile.is_some() || !for_alone("graph", &arguments.options).is_empty() {
        Some("options of the graph engine were given".to_owned())
    } else {
        let options = resident_options(&job, batch, &arguments.options);
        match Trainer::resident(job.clone(), &options) {
            Ok(trainer) => {
                let why = "a GPU is there that can run it, and it is made for this job";
                let line =
                    format!("{} ({why}{})", trainer.describe(), unused("resident", &arguments.options));
                return Ok((trainer, line));
            }
            Err(Error::Resident { what, expected, found }) => {
                Some(format!("not resident: {what}: expected {expected}, found {found}"))
            }
            // It keeps a second copy of the data on the device; the graph engine can stream.
            Err(Error::DeviceMemory { what, .. }) => Some(format!("not resident: no memory for {what}")),
            Err(error) => return Err(error.into()),
        }
    };
    let why = why_not.map_or(String::new(), |reason| format!("; {reason}"));
    graph(job, arguments, profile, &format!("a GPU that can run it is there{why}"))
}

/// How runs of such a job may train side by side, and whether that was asked for; `None` where another engine was, where there is no
/// GPU, or where options of the graph engine were given.
pub(crate) fn for_sweep(
    job: &Job<'_>,
    batch: NonZeroUsize,
    arguments: &EngineArgs,
) -> anyhow::Result<Option<(ResidentOptions, bool)>> {
    let options = resident_options(job, Some(batch), &arguments.options);
    Ok(match arguments.engine {
        EngineChoice::Resident => Some((options, true)),
        EngineChoice::Auto
            if probe(arguments.options.device).is_ok()
                && for_alone("graph", &arguments.options).is_empty() =>
        {
            Some((options, false))
        }
        _ => None,
    })
}

/// Batches are no larger than the epoch.
fn resident_options(job: &Job<'_>, batch: Option<NonZeroUsize>, options: &EngineOptions) -> ResidentOptions {
    options.resident(batch.map_or(1, NonZeroUsize::get).min(job.train.len()))
}

fn graph<'d>(
    job: Job<'d>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
    why: &str,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let trainer = Trainer::graph(job, &arguments.options.graph(profile)).context("the graph engine")?;
    let line = format!("{} ({why}{})", trainer.describe(), unused("graph", &arguments.options));
    Ok((trainer, line))
}

fn host<'d>(
    job: Job<'d>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
    why: &str,
) -> anyhow::Result<(Trainer<'d>, String)> {
    on_the_host(&arguments.options, profile).map_err(anyhow::Error::msg)?; // no wrong usage where it was not asked for
    let threads = threads_for(&job.model, arguments.options.threads);
    let trainer = Trainer::host(job, threads).context("the host engine")?;
    let unused = unused("host", &arguments.options);
    let line = format!("{} on {} ({why}{unused})", trainer.describe(), cpu_name());
    Ok((trainer, line))
}

/// The threads that were asked for, or as many as help.
pub(crate) fn threads_for(model: &Mlp, asked: Option<NonZeroUsize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(|| host_threads(model, cores), NonZeroUsize::get)
}

/// The processor's name where the system tells it, otherwise its architecture.
pub(crate) fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}
