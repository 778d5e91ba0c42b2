//! `kiln train --profile-steps` and `scripts/profile`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::tiny::floats;
use super::{Driver, Run, losses, train};

/// What the shim recorded of a run on the graph engine, and the run.
fn recorded(flags: &[&str]) -> (Vec<String>, Run) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let settings = [("SHIM_RECORD", record.to_str().unwrap())];
    let run = train(Driver::Shim, &settings, &[&["--engine", "graph"], flags].concat());
    assert_eq!(run.code, Some(0), "{flags:?}: {}", run.stderr);
    (fs::read_to_string(record).unwrap().lines().map(str::to_owned).collect(), run)
}

/// What was recorded between the start and the stop of the profiler, of which there is one each.
fn profiled(record: &[String]) -> Vec<&str> {
    let place = |line: &str| {
        let places: Vec<usize> = (0..record.len()).filter(|&at| record[at] == line).collect();
        assert_eq!(places.len(), 1, "{line}: {record:?}");
        places[0]
    };
    let (start, stop) = (place("profiler start"), place("profiler stop"));
    // All before is done when the profiler starts, and all that it saw when it stops.
    assert!(record[start - 1] == "wait" && record[stop - 1] == "wait", "{record:?}");
    record[start + 1..stop - 1].iter().map(String::as_str).collect()
}

/// The parameters that a run has written.
fn parameters(run: &Run) -> Vec<u8> {
    floats(&run.out.path().join("model.safetensors"))
}

/// Two epochs of 20 steps, each step three kernels; and one more after every submission.
#[test]
fn a_profiler_sees_the_steps_that_were_asked_for_and_no_others() {
    let (record, plain) = recorded(&[]);
    assert!(!record.iter().any(|line| line.starts_with("profiler")), "{record:?}");
    // Graphs of sixteen steps and of one: 4 single ones, then a large one, and again; and where a range is cut, in single ones.
    for (range, replays) in
        [("0..40", None), ("20..40", Some(5)), ("3..5", Some(2)), ("21..37", Some(1)), ("39..40", Some(1))]
    {
        let (record, run) = recorded(&["--profile-steps", range]);
        let seen = profiled(&record);
        let graphs = seen.iter().filter(|&&line| line == "launch graph").count();
        if let Some(replays) = replays {
            assert_eq!(graphs, replays, "{range}: {seen:?}");
        }
        assert!(parameters(&run) == parameters(&plain) && losses(&run) == losses(&plain), "{range}");

        let (record, run) = recorded(&["--profile-steps", range, "--submission", "direct"]);
        let seen = profiled(&record);
        let kernels = seen.iter().filter(|&&line| line == "launch kernel").count();
        if let Some(submissions) = replays {
            let (first, end) = range.split_once("..").unwrap();
            let steps = end.parse::<usize>().unwrap() - first.parse::<usize>().unwrap();
            assert_eq!(kernels, 3 * steps + submissions, "{range}: {seen:?}");
        }
        assert!(parameters(&run) == parameters(&plain) && losses(&run) == losses(&plain), "{range}");
    }
}

#[test]
fn steps_that_cannot_be_profiled_are_refused() {
    let refused = |flags: &[&str], code: i32, reason: &str| {
        let run = train(Driver::Simulator, &[], flags);
        assert_eq!(run.code, Some(code), "{flags:?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{flags:?}: {}", run.stderr);
    };
    let host = "--profile-steps needs a GPU (--engine graph): on the host engine no kernels run";
    refused(&["--engine", "host", "--profile-steps", "1..2"], 2, host);
    for wrong in ["5", "5..5", "6..5", "..5", "-1..5"] {
        refused(&[&format!("--profile-steps={wrong}")], 2, "expected A..B");
    }
    let beyond = "--profile-steps 0..41: expected steps of this run, which has 40, from 0";
    refused(&["--engine", "graph", "--profile-steps", "0..41"], 2, beyond);
    let run = train(Driver::None, &[], &["--profile-steps", "1..2"]);
    assert!(run.code == Some(1) && run.stderr.contains(host), "{}", run.stderr);
}

/// `scripts/profile` with nothing on its path but what `tools` names, each of which writes its arguments to a file.
fn script(tools: &[&str], arguments: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, record) = (folder.path().join("path"), folder.path().join("record"));
    fs::create_dir(&path).unwrap();
    for tool in tools {
        let file = path.join(tool);
        fs::write(&file, format!("#!/bin/sh\nprintf '%s\\n' {tool} \"$@\" >{}\n", record.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::symlink(find("mkdir"), path.join("mkdir")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/profile");
    let mut command = Command::new(find("bash"));
    command.arg(script).args(arguments).env("PATH", &path).env("KILN", "/somewhere/kiln");
    (command.output().unwrap(), fs::read_to_string(record).unwrap_or_default())
}

fn find(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap()
}

#[test]
fn the_script_says_what_to_install() {
    for (arguments, tool, package) in [
        (&["--lr", "1"][..], "nsys is not on PATH", "nsight-systems-cli"),
        (&["--ncu", "--lr", "1"], "ncu is not on PATH", "cuda-nsight-compute"),
    ] {
        let other = if arguments[0] == "--ncu" { "nsys" } else { "ncu" };
        let (output, record) = script(&[other], arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), record.as_str()), (Some(1), ""), "{error}");
        assert!(error.contains(tool) && error.contains(package) && error.contains("https://"), "{error}");
    }
}

#[test]
fn the_script_runs_the_profiler_around_the_command() {
    let (output, record) = script(&["nsys", "ncu"], &["--batch", "32", "--submission", "direct"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines[..2], ["nsys", "profile"]);
    for option in [
        "--trace=cuda,nvtx",
        "--cuda-graph-trace=node",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
    ] {
        assert!(lines.contains(&option), "{option}: {record}");
    }
    let kiln = lines.iter().position(|&line| line == "/somewhere/kiln").unwrap();
    let common = ["train", "--engine", "graph", "--profile-steps", "64..96", "--epochs", "1", "--out"];
    assert_eq!(lines[kiln + 1..kiln + 9], common);
    assert_eq!(lines[kiln + 10..], ["--batch", "32", "--submission", "direct"]);

    let own = ["--ncu", "--profile-steps", "3..4", "--epochs=2", "--out", "there"];
    let (output, record) = script(&["nsys", "ncu"], &own);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines[..3], ["ncu", "--profile-from-start", "off"]);
    let kiln = lines.iter().position(|&line| line == "/somewhere/kiln").unwrap();
    assert_eq!(lines[kiln + 1..kiln + 4], ["train", "--engine", "graph"]);
    assert_eq!(lines[kiln + 4..], own[1..]);
}

/// Its steps are inside one kernel, which the engine refuses to show in parts.
#[test]
fn the_script_shows_the_resident_engine_whole() {
    for (arguments, epochs) in [
        (&["--engine", "resident"][..], &["--epochs", "3"][..]),
        (&["--engine=resident", "--epochs", "10"], &[]),
    ] {
        let (output, record) = script(&["nsys", "ncu"], arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = record.lines().collect();
        assert_eq!(lines[..3], ["nsys", "profile", "--trace=cuda,nvtx"]);
        assert!(!record.contains("--capture-range") && !record.contains("--profile-steps"), "{record}");
        let kiln = lines.iter().position(|&line| line == "/somewhere/kiln").unwrap();
        let common = [&["train"][..], epochs, &["--out"]].concat();
        assert_eq!(lines[kiln + 1..kiln + 1 + common.len()], common);
        assert_eq!(lines[kiln + 2 + common.len()..], *arguments);
    }
    let (output, record) = script(&["nsys", "ncu"], &["--ncu", "--engine", "resident"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines[..5], ["ncu", "--kernel-name", "regex:^resident_", "--launch-count", "1"]);
    assert!(!record.contains("--profile"), "{record}");
}
