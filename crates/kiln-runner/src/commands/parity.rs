//! `kiln parity`: replays recorded trajectories, and compares.

use anyhow::{Context, ensure};
use kiln_data::{Dataset, Source};
use kiln_engine::{Error, Precision, probe};
use kiln_parity::{Golden, GoldenData, Report, compare};

use super::data;
use crate::cli::{ParityArgs, ParityEngine, Usage};
use crate::engine::{belongs_to, cpu_name};
use crate::help::causes;
use crate::replay::Replay;
#[cfg(feature = "reference")]
use crate::replay::reference::Precision as ReferencePrecision;
use crate::terminal::{say, warn};

pub(crate) fn run(arguments: &ParityArgs) -> anyhow::Result<()> {
    every_flag_has_effect(arguments)?;
    say(&format!("Engine: {}", describe(arguments)?))?;
    let mut mnist = None;
    let (mut failed, mut unreadable, mut not_run) = (Vec::new(), 0, 0);
    for path in &arguments.files {
        let golden = match Golden::read(path) {
            Ok(golden) => golden,
            Err(error) => {
                warn(&format!("error: {}", causes(&error.into())));
                unreadable += 1;
                continue;
            }
        };
        if golden.data == GoldenData::Mnist && mnist.is_none() {
            mnist = Some(data::load_or_fetch(Source::Mnist, &arguments.data)?);
        }
        let report = run_one(&golden, mnist.as_ref(), arguments).with_context(|| path.display().to_string());
        match report {
            Ok(report) => {
                say(&report.to_string())?;
                if !report.passes() {
                    failed.push(golden.name);
                }
            }
            // It makes no job, the engine is not made for it, or it cannot be compared; others may fit.
            Err(error) if is_of_this_one(&error) => {
                warn(&format!("error: {}", causes(&error)));
                not_run += 1;
            }
            Err(error) => return Err(error),
        }
    }
    ensure!(failed.is_empty(), "not within its bound: {}", failed.join(", "));
    ensure!(unreadable == 0, "{unreadable} of {} files could not be read", arguments.files.len());
    ensure!(
        not_run == 0,
        "{not_run} of {} trajectories could not be replayed and compared",
        arguments.files.len()
    );
    #[cfg(feature = "reference")]
    if arguments.random {
        super::random::run(arguments)?;
    }
    Ok(())
}

/// Refuses flags that mean nothing to the engine that was asked for.
fn every_flag_has_effect(arguments: &ParityArgs) -> anyhow::Result<()> {
    let (asked, on_gpu) = match arguments.engine {
        ParityEngine::Host => ("host", false),
        ParityEngine::Graph => ("graph", true),
        ParityEngine::Resident => ("resident", true),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF32 => ("reference-f32", false),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF64 => ("reference-f64", false),
    };
    belongs_to(asked, &arguments.options, "")?;
    #[cfg(feature = "reference")]
    ensure!(
        !arguments.random
            || !matches!(arguments.engine, ParityEngine::ReferenceF32 | ParityEngine::ReferenceF64),
        Usage::new(
            "--random: expected --engine host, graph or resident: the reference is what they are compared with"
        )
    );
    ensure!(
        on_gpu || arguments.options.precision() == Precision::F32,
        Usage::new("--precision has no effect without a GPU: expected --engine graph or resident")
    );
    #[cfg(not(feature = "reference"))]
    ensure!(
        arguments.options.precision() == Precision::F32,
        Usage::new(
            "--precision: tf32 and bf16 are compared with candle that rounds as they do: expected a build with --features reference"
        )
    );
    Ok(())
}

/// What replays, and on what: results of the simulator are told from a GPU's.
fn describe(arguments: &ParityArgs) -> anyhow::Result<String> {
    let options = &arguments.options;
    let on_gpu = |name| Ok(format!("{name}, {}, {}", probe(options.device)?, options.precision()));
    match arguments.engine {
        ParityEngine::Host => Ok(format!("host on {}", cpu_name())),
        ParityEngine::Graph => on_gpu("graph"),
        ParityEngine::Resident => on_gpu("resident"),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF32 => Ok("candle in float32".to_owned()),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF64 => Ok("candle in float64".to_owned()),
    }
}

fn run_one(golden: &Golden, mnist: Option<&Dataset>, arguments: &ParityArgs) -> anyhow::Result<Report> {
    let (replay, options) = (Replay::new(golden, mnist), &arguments.options);
    #[cfg(feature = "reference")]
    if options.precision() != Precision::F32 {
        return beside_rounding(&replay, golden.batch, arguments);
    }
    let run = match arguments.engine {
        ParityEngine::Host => replay.host(options.threads),
        ParityEngine::Graph => replay.graph(&options.graph(None)),
        ParityEngine::Resident => replay.resident(&options.resident(golden.batch)),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF32 => replay.reference(ReferencePrecision::F32),
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF64 => replay.reference(ReferencePrecision::F64),
    };
    Ok(compare(golden, &run?)?)
}

/// What is recorded is float64, which lower precision does not follow: it is compared with candle in float64 that rounds the same
/// operands.
#[cfg(feature = "reference")]
fn beside_rounding(replay: &Replay<'_>, batch: usize, arguments: &ParityArgs) -> anyhow::Result<Report> {
    match arguments.engine {
        ParityEngine::Graph => replay.graph_beside_rounding(&arguments.options.graph(None)),
        ParityEngine::Resident => replay.resident_beside_rounding(&arguments.options.resident(batch)),
        ParityEngine::Host | ParityEngine::ReferenceF32 | ParityEngine::ReferenceF64 => {
            unreachable!("--precision has been refused")
        }
    }
}

/// Whether an error is of one recording alone.
fn is_of_this_one(error: &anyhow::Error) -> bool {
    // What computes has not failed, for others too.
    !matches!(
        error.downcast_ref(),
        Some(
            Error::NoGpu { .. }
                | Error::DriverBroken { .. }
                | Error::DriverTooOld { .. }
                | Error::Capability { .. }
                | Error::Gpu { .. }
                | Error::Fault { .. }
                | Error::Threads { .. }
        )
    )
}
