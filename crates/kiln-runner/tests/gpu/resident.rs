//! The resident engine from the command line: `auto` takes it where it fits, several epochs come from one launch, and sweeps train
//! side by side what `kiln train` trains alone.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tempfile::tempdir;

use super::tiny::floats;
use super::{Driver, Run, command, losses, run, tiny, train};

fn on_simulator(more: &[&str]) -> Run {
    train(Driver::Simulator, &[], more)
}

fn engine(run: &Run) -> &str {
    run.stdout.lines().next().unwrap_or_else(|| panic!("no output: {}", run.stderr))
}

/// The parameters of the model that was written, without what is said of it.
fn model(run: &Run) -> Vec<u8> {
    tensors(run, "model.safetensors")
}

fn tensors(run: &Run, file: &str) -> Vec<u8> {
    floats(&run.out.path().join(file))
}

#[test]
fn auto_takes_it_where_it_fits_and_says_why_where_not() {
    let fits = on_simulator(&[]);
    assert_eq!(fits.code, Some(0), "{}", fits.stderr);
    assert!(
        engine(&fits).starts_with("Engine: resident, Kiln simulator (sm_90), sm_90, "),
        "{}",
        engine(&fits)
    );
    assert!(engine(&fits).ends_with("(a GPU is there that can run it, and it is made for this job)"));
    let bytes = fs::read(fits.out.path().join("model.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..bytes.len() - model(&fits).len()]).into_owned();
    assert!(header.contains("\"engine\":\"resident, Kiln simulator (sm_90)"), "{header}");
    assert_eq!(fits.stdout.lines().filter(|line| line.starts_with("Epoch: ")).count(), 2);
    let summary = fits.stdout.lines().find(|line| line.starts_with("Trained 40 steps in ")).unwrap();
    assert!(summary.ends_with("µs by the device's clock"), "{summary}");

    for (flags, reason) in [
        (&["--layers", "16,8,8,10"][..], "not resident: hidden layers: expected exactly one, found 2"),
        (&["--batch", "129", "--optimizer", "adamw"], "not resident: optimizer: expected SGD, found AdamW"),
        (&["--submission", "direct"], "options of the graph engine were given"),
        (&["--micro-batch", "1"], "options of the graph engine were given"),
    ] {
        let other = on_simulator(flags);
        let line = engine(&other);
        assert!(line.starts_with("Engine: graph, ") && line.contains(reason), "{flags:?}: {line}");
    }
    // The same command is good on machines where it has more to say.
    for (flags, found, told) in [
        (&["--threads", "1"][..], "resident", "it is made for this job; --threads has no effect on it)"),
        (
            &["--layers", "16,10", "--threads", "1", "--team", "cluster"],
            "graph",
            "expected exactly one, found 0; --threads and --team have no effect on it)",
        ),
    ] {
        let other = on_simulator(flags);
        let line = engine(&other);
        assert!(line.starts_with(&format!("Engine: {found}, ")) && line.ends_with(told), "{flags:?}: {line}");
    }
    let old = train(Driver::Simulator, &[("KILN_SIM_ARCH", "sm_80")], &[]);
    assert!(engine(&old).contains("8 cooperative blocks with 8 units each"), "{}", engine(&old));
    let clusters = train(Driver::Simulator, &[("KILN_SIM_ARCH", "sm_80")], &["--team", "cluster"]);
    assert!(
        engine(&clusters).contains("not resident: thread-block clusters: expected a device"),
        "{}",
        engine(&clusters)
    );
}

#[test]
fn asked_for_it_is_that_or_an_error() {
    let [asked, auto] = [&["--engine", "resident", "--blocks", "16"][..], &[]].map(on_simulator);
    assert!(
        engine(&asked).contains("one cluster of 16 blocks with 8 units each (as asked)"),
        "{}",
        engine(&asked)
    );
    assert!(engine(&auto).contains("one cluster of 8 blocks"), "{}", engine(&auto));
    for (code, flags, reason) in [
        (
            1,
            &["--layers", "16,10"][..],
            "hidden layers: expected exactly one, found 0; the graph engine trains it",
        ),
        (
            2,
            &["--placement", "streamed"],
            "--placement has no effect with --engine resident: expected --engine graph or auto",
        ),
        (2, &["--profile-steps", "1..2"], "needs --engine graph"),
        (
            1,
            &["--layers", "16,129,10", "--blocks", "8"],
            "hidden units of so few blocks: expected at most 128, found 129",
        ),
    ] {
        let refused = on_simulator(&[&["--engine", "resident"], flags].concat());
        assert_eq!(refused.code, Some(code), "{flags:?}");
        assert!(refused.stderr.contains(reason), "{flags:?}: {}", refused.stderr);
    }
    for (asked, flags, reason) in [
        (
            "host",
            &["--micro-batch", "4", "--chunk-rows", "2"][..],
            "--chunk-rows and --micro-batch have no effect",
        ),
        (
            "host",
            &["--blocks", "8"],
            "--blocks has no effect with --engine host: expected --engine resident or auto",
        ),
        (
            "host",
            &["--placement", "resident", "--device", "1"],
            "--device and --placement have no effect with --engine host: expected --engine graph, resident or auto",
        ),
        (
            "graph",
            &["--threads", "2"],
            "--threads has no effect with --engine graph: expected --engine host or auto",
        ),
        (
            "graph",
            &["--team", "grid"],
            "--team has no effect with --engine graph: expected --engine resident or auto",
        ),
    ] {
        let refused = on_simulator(&[&["--engine", asked], flags].concat());
        assert_eq!(refused.code, Some(2), "{asked} {flags:?}");
        assert!(refused.stderr.contains(reason), "{asked} {flags:?}: {}", refused.stderr);
    }
    let small = train(Driver::Simulator, &[("KILN_SIM_FAULT", "oom>1")], &["--engine", "resident"]);
    assert_eq!(small.code, Some(1));
    assert!(small.stderr.contains("help: the graph engine needs less"), "{}", small.stderr);
    let data = tiny::tiny_data();
    let profile =
        ["profile", "--layers", "16,8,10", "--batch", "8", "--data-dir", data.path().to_str().unwrap()];
    let small = run(command(Driver::Simulator, &[("KILN_SIM_FAULT", "oom>1")]), &profile, tempdir().unwrap());
    assert!(small.stderr.contains("help: the graph engine needs less"), "{}", small.stderr);
    let usage = on_simulator(&["--blocks", "9"]);
    assert_eq!(usage.code, Some(2), "{}", usage.stderr);
}

#[test]
fn a_profile_tells_the_share_of_each_phase() {
    let data = tiny::tiny_data();
    let paths = ["profile", "--data-dir", data.path().to_str().unwrap()];
    let profile = |layers: &str, more: &[&str]| {
        let sizes = ["--layers", layers, "--batch", "16", "--epochs", "2"];
        run(command(Driver::Simulator, &[]), &[&paths[..], &sizes, more].concat(), tempdir().unwrap())
    };
    let found = profile("16,8,10", &["--json"]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let object: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(object["steps"], 6);
    let phases = object["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 8);
    for phase in phases {
        let [least, mean, most] = ["least", "cycles", "most"].map(|key| phase[key].as_f64().unwrap());
        assert!(0.0 < least && least <= mean && mean <= most, "{phase}");
    }
    let table = profile("16,8,10", &[]).stdout;
    let shares = table
        .lines()
        .filter_map(|line| line.split_once('%')?.0.split_whitespace().last()?.parse::<f64>().ok());
    assert!((shares.sum::<f64>() - 100.0).abs() < 1.0, "{table}");
    let endless = [&paths[..], &["--layers", "16,8,10", "--epochs", "4000000000"]].concat();
    let endless = run(command(Driver::Simulator, &[]), &endless, tempdir().unwrap());
    assert_eq!(endless.code, Some(1));
    assert!(endless.stderr.contains("40 samples: expected at most 67108864 samples"), "{}", endless.stderr);
    let deep = profile("16,8,8,10", &[]);
    assert_eq!(deep.code, Some(1));
    assert!(deep.stderr.contains("hidden layers: expected exactly one, found 2"), "{}", deep.stderr);
}

#[test]
fn a_sweep_trains_what_train_trains_and_keeps_the_best() {
    let (data, out) = (tiny::tiny_data(), tempdir().unwrap());
    let path = out.path().to_str().unwrap().to_owned();
    let sizes = ["--layers", "16,8,10", "--batch", "16"];
    let lists = ["--seeds", "3..5", "--lrs", "0.1,1e30"];
    let flags = [
        &["sweep", "--epochs", "2", "--data-dir", data.path().to_str().unwrap(), "--out", &path][..],
        &sizes,
        &lists,
    ]
    .concat();
    let sweep = run(command(Driver::Simulator, &[]), &flags, out);
    assert_eq!(sweep.code, Some(0), "{}", sweep.stderr);
    assert!(engine(&sweep).contains("4 runs, of which 4 train at once"), "{}", engine(&sweep));
    let rows = fs::read_to_string(sweep.out.path().join("sweep.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    let told = engine(&sweep).strip_prefix("Engine: ");
    assert!(rows.iter().all(|row| row["engine"].as_str() == told), "{:?}", rows[0]);
    assert!(rows[0]["device_seconds"].as_f64() > Some(0.0), "{:?}", rows[0]);
    assert!(rows[2]["error"].as_str().unwrap().contains("expected a finite loss"), "{:?}", rows[2]);
    let best = (0..2).max_by(|&a, &b| {
        let rank = |run: usize| {
            (rows[run]["test_accuracy"].as_f64(), rows[run]["test_loss"].as_f64().map(|loss| -loss))
        };
        rank(a).partial_cmp(&rank(b)).unwrap()
    });
    let seed = rows[best.unwrap()]["seed"].to_string();
    assert!(
        sweep.stdout.contains(&format!("Best: run {}, seed {seed}, lr 0.1", best.unwrap())),
        "{}",
        sweep.stdout
    );
    let alone =
        on_simulator(&[&sizes[..], &["--seed", &seed, "--lr", "0.1", "--engine", "resident"]].concat());
    assert_eq!(model(&sweep), model(&alone), "the best run, alone");
}

/// Runs that are done are written before others are trained.
#[test]
fn a_sweep_that_is_killed_has_the_runs_that_were_done() {
    let (data, out) = (tiny::tiny_data(), tempdir().unwrap());
    let folders = ["--data-dir", data.path().to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    let job = ["sweep", "--layers", "16,8,10", "--batch", "1", "--epochs", "4", "--seeds", "0..60"];
    let mut sweep = command(Driver::Simulator, &[("KILN_SIM_ARCH", "sm_86")]);
    let mut sweep = sweep.args([&job[..], &folders].concat()).stdout(Stdio::null()).spawn().unwrap();
    let table = || fs::read_to_string(out.path().join("sweep.jsonl")).unwrap_or_default();
    // How many train at once, as the first row has it, which is written when it is there; and how many rows there are.
    let state = || {
        let table = table();
        let row: serde_json::Value = serde_json::from_str(table.lines().next()?).unwrap();
        let (_, at_once) = row["engine"].as_str()?.split_once("60 runs, of which ")?;
        Some((at_once.split(' ').next()?.parse::<usize>().unwrap(), table.lines().count()))
    };
    let (at_once, rows) = loop {
        assert!(sweep.try_wait().unwrap().is_none(), "the sweep has ended before it was killed");
        match state() {
            Some((at_once, rows)) if rows >= at_once => break (at_once, rows),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    sweep.kill().unwrap();
    sweep.wait().unwrap();
    // Not with the first of the next.
    assert_eq!(rows, at_once);
    assert_eq!(table().lines().count(), at_once);
    assert!(out.path().join("model.safetensors").exists());
}

/// A device that fails takes those runs with it that are under way.
#[test]
fn a_sweep_of_more_runs_than_train_at_once_keeps_those_that_are_done() {
    let data = tiny::tiny_data();
    let sweep = |fault: &str| {
        let out = tempdir().unwrap();
        let path = out.path().to_str().unwrap().to_owned();
        let folders = ["--data-dir", data.path().to_str().unwrap(), "--out", &path];
        let job = ["sweep", "--layers", "16,8,10", "--batch", "16", "--epochs", "2", "--seeds", "0..24"];
        let settings = [("KILN_SIM_ARCH", "sm_86"), ("KILN_SIM_FAULT", fault)];
        let sweep = run(command(Driver::Simulator, &settings), &[&job[..], &folders].concat(), out);
        let rows = fs::read_to_string(sweep.out.path().join("sweep.jsonl")).unwrap_or_default();
        (sweep, rows.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (whole, all) = sweep("");
    assert_eq!((whole.code, all.len()), (Some(0), 24), "{}", whole.stderr);
    let said = engine(&whole).split_once("24 runs, of which ").unwrap().1;
    let at_once: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!((1..12).contains(&at_once), "{said}");
    // A launch of each group trains it; others sum and test what each of its runs came to.
    let mut failing = (1..).map(|step| sweep(&format!("launch@{}", 20 * step)));
    let (failed, rows) = failing.find(|(_, rows)| rows.len() >= at_once).unwrap();
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("CUDA_ERROR"), "{}", failed.stderr);
    assert!(rows.len() < 2 * at_once, "{} rows", rows.len());
    let results = |row: &String| {
        let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
        row.as_object_mut().unwrap().remove("device_seconds");
        row
    };
    for (row, expected) in rows.iter().zip(&all) {
        assert_eq!(results(row), results(expected));
    }
    assert!(failed.out.path().join("model.safetensors").exists());
}

/// On the engine and in the precision that it ran in: to the bits of a run that was never ended.
#[test]
fn a_resumed_run_comes_to_what_it_would_have_come_to() {
    let cases: [(&str, &[&str]); 2] = [
        ("resident", &["--precision", "bf16", "--seed", "5"]),
        ("graph", &["--optimizer", "adamw", "--schedule", "cosine", "--schedule-steps", "60"]),
    ];
    for (name, flags) in cases {
        let asked = [&["--engine", name][..], flags].concat();
        let whole = on_simulator(&[&asked[..], &["--epochs", "4"]].concat());
        let part = on_simulator(&asked);
        assert_eq!((whole.code, part.code), (Some(0), Some(0)), "{} {}", whole.stderr, part.stderr);
        let checkpoint = part.out.path().join("checkpoint.safetensors");
        let data = tiny::tiny_data();
        let resume = ["train", "--engine", name, "--resume", checkpoint.to_str().unwrap()];
        let more = ["--epochs", "4", "--data-dir", data.path().to_str().unwrap()];
        let resumed =
            run(command(Driver::Simulator, &[]), &[&resume[..], &more].concat(), tempdir().unwrap());
        assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
        assert_eq!(engine(&resumed), engine(&whole));
        assert_eq!(losses(&part), losses(&whole), "{name}");
        for file in ["model.safetensors", "checkpoint.safetensors"] {
            assert!(tensors(&part, file) == tensors(&whole, file), "{name}: {file}");
        }
    }
}
