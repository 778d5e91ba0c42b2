//! `kiln data`, and the data of the other commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use kiln_data::{Dataset, Progress, Source, Split, default_dir, fetch, is_present, load, missing, others};
use kiln_engine::{Samples, Targets};

use crate::cli::{DataArgs, DataCommand, DataDir, DataOf};
use crate::terminal::{bar, say, warn};

pub(crate) fn run(arguments: &DataArgs) -> anyhow::Result<()> {
    match &arguments.command {
        DataCommand::Fetch(of) => {
            let folder = folder(&of.data)?;
            fetch_with_bars(of.dataset, &folder)?;
            say(&format!("{}: complete and checked in {}", of.dataset, folder.display()))
        }
        DataCommand::Info(of) => info(of),
    }
}

fn info(of: &DataOf) -> anyhow::Result<()> {
    let folder = folder(&of.data)?;
    let dataset = load(of.dataset, &folder)?;
    say(&format!("{} in {}, {} classes", of.dataset, folder.display(), dataset.classes))?;
    for (name, split) in [("train", &dataset.train), ("test", &dataset.test)] {
        let mut counts = vec![0usize; dataset.classes];
        for &label in &split.labels {
            counts[usize::from(label)] += 1;
        }
        let images = &split.images;
        say(&format!(
            "{name}: {} images of {}x{}, by class {counts:?}",
            split.len(),
            images.height,
            images.width
        ))?;
    }
    Ok(())
}

/// The data set, fetched first where it is not there.
pub(crate) fn load_or_fetch(source: Source, data: &DataDir) -> anyhow::Result<Dataset> {
    let folder = folder(data)?;
    if !is_present(source, &folder) {
        may_be_fetched(source, &folder)?;
        fetch_with_bars(source, &folder)?;
    }
    Ok(load(source, &folder)?)
}

/// Refuses to fetch what is missing beside files that are not the published ones, and would be replaced.
pub(crate) fn may_be_fetched(source: Source, folder: &Path) -> anyhow::Result<()> {
    let (missing, others) = (missing(source, folder), others(source, folder));
    if let (Some(missing), Some(other)) = (missing.first(), others.first()) {
        let (missing, other) = (missing.display(), other.display());
        bail!(
            "{missing}: expected beside {other}, which is not {source}'s, found nothing; `kiln data fetch {source}` replaces all such files"
        );
    }
    Ok(())
}

/// A split as the engine sees it.
pub(crate) fn samples(split: &Split) -> anyhow::Result<Samples<'_>> {
    Ok(Samples::pixels(&split.images.pixels, split.width(), Targets::Labels(&split.labels))?)
}

/// Where data sets live.
pub(crate) fn folder(data: &DataDir) -> anyhow::Result<PathBuf> {
    match &data.data_dir {
        Some(folder) => Ok(folder.clone()),
        None => default_dir().context("no folder for data: name one with --data-dir"),
    }
}

fn fetch_with_bars(source: Source, folder: &Path) -> anyhow::Result<()> {
    warn(&format!("Fetching {source} to {}", folder.display()));
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    let mut draw = |now: Progress<'_>| {
        let bar = bars.entry(now.file.to_owned()).or_insert_with(|| {
            bar(0, "{msg} {wide_bar} {bytes}/{total_bytes}, {eta}").with_message(now.file.to_owned())
        });
        bar.set_length(now.total);
        bar.set_position(now.done);
    };
    let fetched = fetch(source, folder, &mut draw);
    bars.values().for_each(ProgressBar::finish_and_clear);
    fetched?;
    Ok(())
}
