//! NVTX ranges, as a tool that is loaded into the process sees them.

use std::fs;

use super::{Driver, Run, train};

/// A range, and what happened in it: ranges, and lines of the driver's shim.
#[derive(Debug, PartialEq)]
struct Range {
    name: String,
    inside: Vec<Range>,
}

impl Range {
    fn names(&self) -> Vec<&str> {
        self.inside.iter().map(|range| range.name.as_str()).collect()
    }

    fn get(&self, name: &str) -> &Range {
        let found: Vec<&Range> = self.inside.iter().filter(|range| range.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", self.names());
        found[0]
    }

    /// Lines of the shim in it and in the ranges in it.
    fn count(&self, line: &str) -> usize {
        let here = |range: &Range| usize::from(range.name == line) + range.count(line);
        self.inside.iter().map(here).sum()
    }
}

/// The ranges of a run, as one of no name; a test fails where one ends that has not begun, or does not end.
fn ranges(record: &str) -> Range {
    let mut open = vec![Range { name: String::new(), inside: Vec::new() }];
    for line in record.lines() {
        assert!(!line.starts_with("fault"), "{line}");
        if let Some(name) = line.strip_prefix("push ") {
            open.push(Range { name: name.to_owned(), inside: Vec::new() });
            continue;
        }
        let range = match line {
            "pop" => open.pop().unwrap(),
            _ => Range { name: line.to_owned(), inside: Vec::new() },
        };
        open.last_mut().expect("a range ends that has begun").inside.push(range);
    }
    assert_eq!(open.len(), 1, "ranges are left open");
    open.remove(0)
}

/// A run of two epochs of 20 steps with the tool loaded, what it recorded, and the run.
fn recorded(settings: &[(&str, &str)], flags: &[&str]) -> (String, Run) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let tool = kiln_tests::shim::nvtx();
    let own = [("SHIM_RECORD", record.to_str().unwrap()), ("NVTX_INJECTION64_PATH", tool.to_str().unwrap())];
    let run = train(Driver::Shim, &[&own, settings].concat(), &[&["--engine", "graph"], flags].concat());
    (fs::read_to_string(record).unwrap_or_default(), run)
}

fn steps(first: usize, end: usize) -> Vec<String> {
    (first..end).map(|step| format!("step {step}")).collect()
}

#[test]
fn replays_are_named_after_their_steps_and_captures_after_the_kernels_in_them() {
    let (record, run) = recorded(&[], &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let all = ranges(&record);
    let names = all.names();
    assert_eq!(names[0], "domain kiln");
    assert_eq!(names[1..], ["rehearsal", "rehearsal", "epoch 1", "evaluation", "epoch 2", "evaluation"]);
    let [evaluation, epoch] = [1, 2].map(|at| &all.inside[at]);
    assert_eq!(evaluation.names(), ["linear", "linear", "loss", "batch_sums"]);
    assert_eq!(epoch.names(), ["linear", "head", "weight_gradients", "advance", "batch_sums"]);
    assert_eq!((evaluation.count("launch kernel"), epoch.count("launch kernel")), (0, 0));

    let expected = |first: usize| {
        [vec![format!("steps {first}..{}", first + 16)], steps(first + 16, first + 20)].concat()
    };
    let first = all.get("epoch 1");
    let captures = ["capture of 16 steps", "capture of 1 step"];
    let replays: Vec<&str> = first.names().into_iter().filter(|name| !captures.contains(name)).collect();
    let read = ["batch_sums", "read back"].map(str::to_owned);
    assert_eq!(replays, [expected(0), read.to_vec()].concat());
    let second = all.get("epoch 2");
    assert_eq!(second.names(), [expected(20), read.to_vec()].concat());
    for replay in &second.inside[..5] {
        assert_eq!(replay.names(), ["launch graph"], "{replay:?}");
    }

    let capture = first.get("capture of 16 steps");
    let slots: Vec<String> = (0..16).map(|slot| format!("captured step {slot}")).collect();
    assert_eq!(capture.names(), slots);
    let families = ["linear", "head", "weight_gradients"];
    assert_eq!(capture.inside[3].names(), families);
    assert_eq!(capture.inside[15].names(), [&families[..], &["advance"]].concat());
}

#[test]
fn without_graphs_every_step_and_every_kernel_has_its_range() {
    for submission in ["direct", "synchronous"] {
        let (record, run) = recorded(&[], &["--submission", submission]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let all = ranges(&record);
        for (epoch, first) in [("epoch 1", 0), ("epoch 2", 20)] {
            let epoch = all.get(epoch);
            let end = ["batch_sums", "read back"].map(str::to_owned);
            assert_eq!(epoch.names(), [steps(first, first + 20), end.to_vec()].concat());
            for step in &epoch.inside[..20] {
                assert_eq!(step.names()[..3], ["linear", "head", "weight_gradients"], "{}", step.name);
                for kernel in &step.inside {
                    assert_eq!(kernel.names(), ["launch kernel"], "{}: {}", step.name, kernel.name);
                }
            }
            // One counter moves on after each submission: one of sixteen steps, and four.
            assert_eq!(epoch.count("launch kernel"), 20 * 3 + 5 + 1);
        }
        let evaluation = all.inside.iter().find(|range| range.name == "evaluation").unwrap();
        assert_eq!(evaluation.names(), ["linear", "linear", "loss", "batch_sums", "read back"]);
    }
}

#[test]
fn a_profiler_that_waits_for_its_start_sees_the_ranges_of_its_steps() {
    let flags = ["--profile-steps", "3..5", "--submission", "direct"];
    let (record, run) = recorded(&[], &flags);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let epoch = ranges(&record);
    let names = epoch.get("epoch 1").names();
    let at = |name: &str| names.iter().position(|&found| found == name).unwrap();
    let seen: Vec<&str> = names[at("profiler start")..at("profiler stop")].to_vec();
    assert_eq!(seen, ["profiler start", "step 3", "step 4", "wait"]);
}

#[test]
fn ranges_end_where_a_run_fails() {
    let (record, run) = recorded(&[("KILN_SIM_FAULT", "launch@5")], &["--submission", "synchronous"]);
    assert_eq!(run.code, Some(1));
    let all = ranges(&record);
    assert_eq!(all.get("epoch 1").names(), ["step 0", "step 1"]);
}

#[test]
fn samples_that_are_streamed_have_ranges_too() {
    let (record, run) = recorded(&[], &["--placement", "streamed"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let all = ranges(&record);
    let loads = |range: &&Range| range.name.starts_with("load ");
    assert!(all.get("epoch 1").inside.iter().filter(loads).count() > 0, "{:?}", all.get("epoch 1").names());
}

/// A tool that cannot be loaded, is none, or refuses, changes nothing.
#[test]
fn training_goes_on_without_its_tool() {
    let (_, plain) = recorded(&[("NVTX_INJECTION64_PATH", "")], &[]);
    for (name, value) in [
        ("NVTX_INJECTION64_PATH", "/nowhere/libtool.so"),
        ("NVTX_INJECTION64_PATH", env!("CARGO_BIN_EXE_kiln")),
        ("SHIM_REFUSE", "1"),
    ] {
        let (record, run) = recorded(&[(name, value)], &[]);
        assert_eq!(run.code, Some(0), "{value}: {}", run.stderr);
        assert!(!record.contains("push ") && !record.contains("domain "), "{value}: {record}");
        assert_eq!(super::losses(&run), super::losses(&plain));
    }
    // With the tool the results are the same, too.
    assert_eq!(super::losses(&recorded(&[], &[]).1), super::losses(&plain));
}
