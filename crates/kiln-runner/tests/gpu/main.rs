//! The `kiln` binary beside a GPU, which the simulator stands in for: what it says of the machine, and of what goes wrong.

#[path = "../tiny/mod.rs"]
mod tiny;

mod doctor;
mod errors;
mod parity;
mod profile;
mod ranges;
mod resident;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kiln_tests::{shim, sim};
use tempfile::TempDir;

/// What stands in for the driver.
#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Simulator,
    /// The simulator, with a shim in front of it.
    Shim,
    None,
}

/// A `kiln` that ran: its data and output go with it.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    out: TempDir,
}

fn command(driver: Driver, settings: &[(&str, &str)]) -> Command {
    let kiln = Path::new(env!("CARGO_BIN_EXE_kiln"));
    match driver {
        Driver::Simulator => sim::command(kiln, settings),
        Driver::Shim => shim::command(kiln, shim::driver(), settings),
        Driver::None => shim::command(kiln, &shim::no_driver(), settings),
    }
}

fn run(mut command: Command, arguments: &[&str], out: TempDir) -> Run {
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: status.code(), stdout: text(stdout), stderr: text(stderr), out }
}

/// `kiln train` on the tiny data: 40 samples, and so 20 steps of 2 in each epoch.
fn train(driver: Driver, settings: &[(&str, &str)], more: &[&str]) -> Run {
    let (data, out) = (tiny::tiny_data(), tempfile::tempdir().unwrap());
    let (data_dir, out_dir) = (data.path().to_str().unwrap(), out.path().to_str().unwrap().to_owned());
    let mut arguments = vec!["train", "--data-dir", data_dir, "--out", &out_dir];
    for default in [["--epochs", "2"], ["--layers", "16,8,10"], ["--batch", "2"]] {
        arguments.extend(if more.contains(&default[0]) { &[][..] } else { &default });
    }
    arguments.extend(more);
    run(command(driver, settings), &arguments, out)
}

/// Losses of every epoch that a run has written.
fn losses(run: &Run) -> Vec<String> {
    let metrics = fs::read_to_string(run.out.path().join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    metrics.map(|line| format!("{} {}", line["train_loss"], line["test_loss"])).collect()
}
