//! Programs that run on the simulator, in a process of their own: this very test binary, executed again with the library
//! under the name `libcuda.so` in a folder ahead of all others.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Set where the program runs, not where its end is judged.
const CHILD: &str = "KILN_DRIVER_TEST_CHILD";
/// What a program prints last. Without it a failed assertion could hide behind the status of a finding.
const FINISHED: &str = "the program came to its end";

/// A program: the test that holds it, which is executed again up to it.
pub(crate) struct Program(String);

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The lines of `KILN_SIM_REPORT`.
    pub(crate) findings: Vec<Value>,
}

/// The library as cargo has built it, beside this binary.
pub(crate) fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libkiln_sim_driver.so")
}

impl Program {
    /// The program of the test that calls this. `program` must be written as a closure in the test itself, once.
    pub(crate) fn new<F: FnOnce()>(program: F) -> Program {
        if std::env::var_os(CHILD).is_some() {
            program();
            println!("{FINISHED}");
            std::process::exit(0);
        }
        // `driver::findings::leak::{{closure}}` is of the test `findings::leak`.
        let name = std::any::type_name::<F>();
        let (_, name) = name.split_once("::").expect("the crate comes first");
        Program(name.strip_suffix("::{{closure}}").expect("a closure in a test").to_owned())
    }

    /// Runs the program with these variables and no others that the simulator knows.
    pub(crate) fn run(&self, settings: &[(&str, &str)]) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(library(), folder.path().join(name)).unwrap();
        }
        let report = folder.path().join("report.jsonl");
        let mut command = Command::new(std::env::current_exe().unwrap());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KILN_SIM_") {
                command.env_remove(name);
            }
        }
        command.args(["--exact", &self.0, "--nocapture"]);
        command.env(CHILD, "1").env("LD_LIBRARY_PATH", folder.path()).env("KILN_SIM_REPORT", &report);
        let output = command.envs(settings.iter().copied()).output().unwrap();
        let lines = std::fs::read_to_string(&report).unwrap_or_default();
        let ended = Ended {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            findings: lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect(),
        };
        let Ended { stdout, stderr, .. } = &ended;
        assert!(stdout.contains(FINISHED), "{} did not finish:\n{stdout}\n{stderr}", self.0);
        ended
    }

    /// Runs the program, which must end without a finding.
    pub(crate) fn run_clean(&self, settings: &[(&str, &str)]) -> Ended {
        let ended = self.run(settings);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert!(ended.findings.is_empty(), "{:?}", ended.findings);
        ended
    }

    /// Runs the program, which must end with one finding of this kind.
    pub(crate) fn run_to_finding(&self, kind: &str) -> Value {
        let ended = self.run(&[]);
        assert_eq!(ended.status, Some(86), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("kiln-sim: {kind}: ")), "{}", ended.stderr);
        assert_eq!(ended.findings.len(), 1, "{:?}", ended.findings);
        assert_eq!(ended.findings[0]["kind"], kind);
        ended.findings[0].clone()
    }
}
