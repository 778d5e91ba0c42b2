//! The bench of choices asks all of its questions, on a simulator, and says what could not be asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use kiln_tests::sim;
use serde_json::Value;

fn choices(flags: &[&str], settings: &[(&str, &str)]) -> Output {
    sim::command(Path::new(env!("CARGO_BIN_EXE_choices")), settings).args(flags).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_question_is_asked_of_every_variant() {
    let lines = lines(&choices(&["--quick", "--rounds", "2", "--json"], &[("KILN_SIM_ARCH", "sm_90")]));
    assert_eq!(lines[0]["simulated"], true, "{}", lines[0]);
    let questions: BTreeSet<&str> = lines[1..].iter().filter_map(|line| line["question"].as_str()).collect();
    assert_eq!(
        questions,
        BTreeSet::from(["blocks", "captured-steps", "copies", "head", "tiles", "warpgroups"])
    );
    for line in &lines[1..] {
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        assert!(line["error"].is_null(), "{line}");
        assert!(number("min") > 0.0 && number("min") <= number("us_per_step"), "{line}");
        assert!(number("us_per_step") <= number("max") && number("ratio") > 0.0, "{line}");
        assert!(line["variant"] != "as chosen" || number("ratio") == 1.0, "{line}");
    }
    let variants = |question: &str, job: &str| {
        lines.iter().filter(|line| line["question"] == question && line["job"] == job).count()
    };
    assert_eq!(variants("tiles", "21-18-5, batch 8, bf16"), 5);
    assert_eq!(variants("blocks", "21-18-5, batch 8, bf16"), 5);
}

/// No clusters before sm_90: those variants say so, and the others are measured.
#[test]
fn what_a_device_cannot_run_is_named() {
    let flags = ["--quick", "--rounds", "1", "--json", "--only", "blocks"];
    let lines = lines(&choices(&flags, &[("KILN_SIM_ARCH", "sm_80")]));
    for line in &lines[1..] {
        let cluster = line["variant"].as_str().unwrap().starts_with("cluster");
        assert_eq!(line["error"].is_string(), cluster, "{line}");
        assert_eq!(line["us_per_step"].is_f64(), !cluster, "{line}");
    }
}

#[test]
fn questions_that_are_not_known_are_refused() {
    let output = choices(&["--only", "heads"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("expected head, tiles, copies, warpgroups, captured-steps, blocks, found heads"),
        "{error}"
    );
}
