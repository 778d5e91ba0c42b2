//! `kiln doctor`: what this machine can train on, a verdict a line.

use std::fmt;
use std::path::PathBuf;

use anyhow::ensure;
use kiln_data::{Source, is_present, load};
use kiln_engine::{
    CudaVersion, Error, GpuInfo, GraphOptions, LoadedKernels, Precision, SelfTest, devices, driver,
    free_memory, inspect, load_kernels, self_test, self_test_resident,
};
use serde::Serialize;

use super::data;
use crate::cli::DoctorArgs;
use crate::engine::cpu_name;
use crate::terminal::{say, say_json};

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        })
    }
}

/// A line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
}

/// Where training runs on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Gpu,
    Simulator,
    Host,
    Broken,
}

/// Columns of a check's name in text.
const NAME_WIDTH: usize = "self-test 0".len();

#[derive(Debug, Default)]
struct Report {
    checks: Vec<Check>,
    /// Whether it is said as it comes, a line each: the first check of a driver takes a minute.
    lines: bool,
    /// The first line that could not be said.
    unsaid: Option<anyhow::Error>,
    /// Where a job has been trained, besides the host.
    trained: Option<Outcome>,
}

impl Report {
    fn add(&mut self, name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        let check = Check { name: name.into(), verdict, detail: detail.into() };
        if self.lines && self.unsaid.is_none() {
            let Check { name, verdict, detail } = &check;
            self.unsaid = say(&format!("{name:NAME_WIDTH$}  {verdict:7}  {detail}")).err();
        }
        self.checks.push(check);
    }

    /// Adds what went right, or the error; gives the former.
    fn result<T>(&mut self, name: &str, result: Result<T, Error>, say: impl Fn(&T) -> String) -> Option<T> {
        match &result {
            Ok(found) => self.add(name, Verdict::Ok, say(found)),
            Err(error) => self.add(name, verdict(error), error.to_string()),
        }
        result.ok()
    }

    fn outcome(&self) -> Outcome {
        match self.checks.iter().any(|check| check.verdict == Verdict::Failed) {
            true => Outcome::Broken,
            false => self.trained.unwrap_or(Outcome::Host),
        }
    }
}

/// No GPU is no fault: the host engine trains.
fn verdict(error: &Error) -> Verdict {
    if matches!(error, Error::NoGpu { .. }) { Verdict::Warning } else { Verdict::Failed }
}

pub(crate) fn run(arguments: &DoctorArgs) -> anyhow::Result<()> {
    let mut report = Report { lines: !arguments.json, ..Report::default() };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    report.add("cpu", Verdict::Ok, format!("{}, {threads} threads", cpu_name()));
    let precisions = arguments.precision.map_or(Precision::ALL.to_vec(), |precision| vec![precision]);
    gpus(&mut report, &precisions);
    data_sets(&mut report, arguments);
    for tool in ["nsys", "ncu"] {
        match on_path(tool) {
            Some(path) => report.add(tool, Verdict::Ok, path.display().to_string()),
            None => {
                report.add(tool, Verdict::Warning, "not on PATH: scripts/profile needs it, training does not")
            }
        }
    }
    if let Some(error) = report.unsaid.take() {
        return Err(error);
    }
    conclude(&report)?;
    let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    ensure!(failed == 0, "{failed} of {} checks failed", report.checks.len());
    Ok(())
}

/// What it all comes to: in JSON, with all the checks.
fn conclude(report: &Report) -> anyhow::Result<()> {
    let outcome = report.outcome();
    if !report.lines {
        return say_json(&serde_json::json!({ "outcome": outcome, "checks": report.checks }));
    }
    say(match outcome {
        Outcome::Gpu => "Training runs on a GPU.",
        Outcome::Simulator => "Training runs on Kiln's simulator: there is no GPU here, or it is hidden.",
        Outcome::Host => "No GPU: the host engine is used.",
        Outcome::Broken => "Something is broken: see the lines that say FAILED.",
    })
}

/// From the driver to a job that is trained on each device.
fn gpus(report: &mut Report, precisions: &[Precision]) {
    let Some(version) = driver_version(report) else { return };
    let count = report.result("devices", devices(), |count| format!("{count} found"));
    let found: Vec<_> = (0..count.unwrap_or(0)).map(inspect).collect();
    let usable = |info: &Result<GpuInfo, Error>| matches!(info, Ok(info) if info.check().is_ok());
    let any = found.iter().any(usable);
    for (ordinal, info) in found.into_iter().enumerate() {
        let name = format!("device {ordinal}");
        let Some(info) = report.result(&name, info, describe) else { continue };
        if info.is_simulator() {
            report.add(
                &name,
                Verdict::Warning,
                "this is Kiln's simulator, not a GPU: right results, and no speed",
            );
        }
        match info.check() {
            Ok(()) => device(report, ordinal, &info, precisions),
            // Said of the driver already.
            Err(_) if version < CudaVersion::NEEDED => {}
            // Beside a device that can be used, one that cannot is no fault.
            Err(error) => {
                report.add(&name, if any { Verdict::Warning } else { Verdict::Failed }, error.to_string())
            }
        }
    }
}

/// The driver's version beside the one that the kernels need.
fn driver_version(report: &mut Report) -> Option<CudaVersion> {
    let (needed, branch) = (CudaVersion::NEEDED, CudaVersion::NEEDED_BRANCH);
    match driver() {
        Ok(found) if found < needed => {
            let wrong = format!("CUDA {found}, but the kernels need {needed}");
            let cure = format!("update NVIDIA's driver to branch {branch} or newer");
            report.add("driver", Verdict::Failed, format!("{wrong}: {cure}"));
            Some(found)
        }
        found => report.result("driver", found, |found| {
            format!("CUDA {found}; the kernels need {needed} (driver branch {branch}) or newer")
        }),
    }
}

fn describe(info: &GpuInfo) -> String {
    let (major, minor) = info.capability;
    format!(
        "{}, sm_{major}{minor}, {} multiprocessors, {:.1} GiB, {} KiB of shared memory a block, {}{}",
        info.name,
        info.multiprocessors,
        gib(info.memory_bytes),
        info.shared_bytes >> 10,
        if info.clusters { "clusters" } else { "no clusters" },
        if info.watchdog { ", drives a display" } else { "" }
    )
}

/// Memory, kernels and a job on a device that can run them.
fn device(report: &mut Report, ordinal: usize, info: &GpuInfo, precisions: &[Precision]) {
    let memory = free_memory(ordinal);
    report.result(&format!("memory {ordinal}"), memory, |free| format!("{:.1} GiB free", gib(*free)));
    for &precision in precisions {
        if report.unsaid.is_some() {
            return; // nobody waits for what takes a minute
        }
        let loaded = load_kernels(ordinal, precision);
        report.result(&format!("kernels {ordinal}"), loaded, |LoadedKernels { graph, wide_layers, resident }| {
            format!("{precision}: {graph} for graph, {wide_layers} for wide layers on it, {resident} for resident")
        });
    }
    let name = format!("self-test {ordinal}");
    if let Some(test) =
        tested(report, name, self_test(&GraphOptions { device: ordinal, ..GraphOptions::default() }))
    {
        let here = if info.is_simulator() { Outcome::Simulator } else { Outcome::Gpu };
        if test.passes() && report.trained != Some(Outcome::Gpu) {
            report.trained = Some(here);
        }
    }
    let name = format!("resident {ordinal}");
    match self_test_resident(ordinal) {
        // It is not made for this device: the graph engine is there.
        Err(error @ Error::Resident { .. }) => report.add(name, Verdict::Warning, error.to_string()),
        result => {
            tested(report, name, result);
        }
    }
}

/// Adds what a self-test came to.
fn tested(report: &mut Report, name: String, result: Result<SelfTest, Error>) -> Option<SelfTest> {
    match result {
        Ok(test) => {
            let SelfTest { steps, difference } = test;
            let verdict = if test.passes() { Verdict::Ok } else { Verdict::Failed };
            let bound = SelfTest::TOLERANCE;
            let detail = format!(
                "{steps} steps, losses within {difference:.1e} of the host's, expected at most {bound:e}"
            );
            report.add(name, verdict, detail);
            Some(test)
        }
        Err(error) => {
            report.add(name, Verdict::Failed, error.to_string());
            None
        }
    }
}

fn data_sets(report: &mut Report, arguments: &DoctorArgs) {
    let folder = match data::folder(&arguments.data) {
        Ok(folder) => folder,
        Err(error) => return report.add("data", Verdict::Failed, format!("{error:#}")),
    };
    let at = folder.display();
    if folder.exists() && !folder.is_dir() {
        return report.add("data", Verdict::Failed, format!("{at}: expected a folder, found something else"));
    }
    for source in [Source::Mnist, Source::FashionMnist] {
        if is_present(source, &folder) {
            match load(source, &folder) {
                Ok(found) => {
                    let (train, test) = (found.train.len(), found.test.len());
                    report.add("data", Verdict::Ok, format!("{source}: {train} and {test} samples in {at}"));
                }
                Err(error) => report.add("data", Verdict::Failed, error.to_string()),
            }
        } else if let Err(error) = data::may_be_fetched(source, &folder) {
            report.add("data", Verdict::Failed, error.to_string());
        } else if source == Source::Mnist {
            let cure = "`kiln train` fetches it";
            report.add("data", Verdict::Warning, format!("{source} is not in {at} yet: {cure}"));
        }
    }
}

fn on_path(tool: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(tool)).find(|path| path.is_file())
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
