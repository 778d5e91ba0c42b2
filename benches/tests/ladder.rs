//! The bench of the ladder measures every rung and the resident engine, on a simulator, and says what cannot run.

use std::path::Path;

use kiln_tests::sim;
use serde_json::Value;

fn lines(flags: &[&str], settings: &[(&str, &str)]) -> Vec<Value> {
    let bench = Path::new(env!("CARGO_BIN_EXE_ladder"));
    let output = sim::command(bench, settings).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const FLAGS: [&str; 4] = ["--quick", "--rounds", "2", "--json"];
const ALL: [&str; 7] = [
    "resident, f32",
    "resident, tf32",
    "resident, bf16",
    "1_single_block",
    "2_cluster_sync",
    "3_messages",
    "4_multicast",
];

#[test]
fn every_rung_and_every_precision_is_measured() {
    let lines = lines(&FLAGS, &[("KILN_SIM_ARCH", "sm_90")]);
    assert_eq!(lines[0]["simulated"], true, "{}", lines[0]);
    let names: Vec<&str> = lines[1..].iter().map(|line| line["variant"].as_str().unwrap()).collect();
    assert_eq!(names, ALL);
    for line in &lines[1..] {
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        assert!(line["error"].is_null() && line["model"] == "21-18-5", "{line}");
        assert!(number("min") > 0.0 && number("min") <= number("us_per_step"), "{line}");
        assert!(number("us_per_step") <= number("max") && number("ratio") > 0.0, "{line}");
    }
    assert_eq!(lines[1]["ratio"], 1.0);
}

/// No clusters before sm_90: of the rungs the first alone runs.
#[test]
fn what_a_device_cannot_run_is_named() {
    for line in &lines(&FLAGS, &[("KILN_SIM_ARCH", "sm_80")])[1..] {
        let name = line["variant"].as_str().unwrap();
        let clusters = ["2", "3", "4"].iter().any(|rung| name.starts_with(rung));
        assert_eq!(line["error"] == "needs clusters: sm_90 or newer", clusters, "{line}");
        assert_eq!(line["us_per_step"].is_f64(), !clusters, "{line}");
    }
}
