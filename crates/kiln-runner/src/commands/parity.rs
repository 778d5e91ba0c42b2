//! `kiln parity`: replays recorded trajectories, and compares.

use anyhow::{Context, ensure};
use kiln_data::{Dataset, Source};
use kiln_parity::{Golden, GoldenData, Recording, compare};

use super::data;
use crate::cli::{ParityArgs, ParityEngine};
use crate::replay;
use crate::terminal::say;

pub(crate) fn run(arguments: &ParityArgs) -> anyhow::Result<()> {
    let mut mnist = None;
    let mut failed = Vec::new();
    for path in &arguments.files {
        let golden = Golden::read(path)?;
        if golden.data == GoldenData::Mnist && mnist.is_none() {
            mnist = Some(data::load_or_fetch(Source::Mnist, &arguments.data)?);
        }
        let run = run_one(&golden, mnist.as_ref(), arguments).with_context(|| path.display().to_string())?;
        let report = compare(&golden, &run).with_context(|| path.display().to_string())?;
        say(&report.to_string())?;
        if !report.passes() {
            failed.push(golden.name);
        }
    }
    ensure!(failed.is_empty(), "not within its bound: {}", failed.join(", "));
    #[cfg(feature = "reference")]
    if arguments.random {
        super::random::run(arguments)?;
    }
    Ok(())
}

fn run_one(golden: &Golden, mnist: Option<&Dataset>, arguments: &ParityArgs) -> anyhow::Result<Recording> {
    match arguments.engine {
        ParityEngine::Host => replay::host(golden, mnist, arguments.threads),
        ParityEngine::Graph => replay::graph(golden, mnist, &arguments.gpu.options(None)),
        ParityEngine::Resident => {
            replay::resident(golden, mnist, &arguments.gpu.resident_options(golden.batch))
        }
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF32 => {
            replay::reference::replay(golden, mnist, replay::reference::Precision::F32)
        }
        #[cfg(feature = "reference")]
        ParityEngine::ReferenceF64 => {
            replay::reference::replay(golden, mnist, replay::reference::Precision::F64)
        }
    }
}
