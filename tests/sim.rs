//! Tests that need a GPU, run where there is none: a test starts itself again with the simulator in the place of the driver.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Tells a test that it runs on a device: in a child process, on the simulator.
const INSIDE: &str = "KILN_TEST_ON_DEVICE";
/// Set by who runs the tests on a real GPU: no simulator then.
const REAL: &str = "KILN_TEST_GPU";

/// Whether this process is to run a test's body on its device.
pub fn on_device() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    set(INSIDE) || set(REAL)
}

/// The folder in which the simulator is called `libcuda.so`. Builds the simulator, in the profile that this test has.
///
/// # Panics
/// Where it cannot be built.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let executable = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/test
        let profile = executable.parent().and_then(Path::parent).expect("tests lie in the target folder");
        let target = profile.parent().expect("a profile lies in the target folder");
        let release = profile.ends_with("release");
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--locked", "--package", "kiln-sim-driver", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .args(release.then_some("--release"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the simulator does not build");
        // A folder of its own: cargo puts PROFILE and PROFILE/deps into the library path of all that it runs.
        let folder = target.join(if release { "sim-test-release" } else { "sim-test-debug" });
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        for name in ["libcuda.so", "libcuda.so.1"] {
            link(&profile.join("libkiln_sim_driver.so"), &folder.join(name));
        }
        folder
    })
}

/// Makes a folder one in which the simulator is called `libcuda.so`, too.
///
/// # Panics
/// Where it cannot be written.
pub(crate) fn link_driver(other: &Path) {
    std::fs::create_dir_all(other).expect("the target folder can be written");
    for name in ["libcuda.so", "libcuda.so.1"] {
        link(&folder().join(name), &other.join(name));
    }
}

/// A symbolic link that appears whole: other tests may be making the same one.
fn link(to: &Path, at: &Path) {
    let new = at.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(to, &new)
        .and_then(|()| std::fs::rename(&new, at))
        .expect("a link can be made");
}

/// A command that finds the simulator where it looks for the driver.
pub fn command(program: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    let mut paths = vec![folder().to_owned()];
    paths.extend(std::env::split_paths(&std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default()));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(paths).expect("paths without colons"));
    command.envs(settings.iter().copied());
    command
}

/// Runs one test of this executable again, on the simulator.
///
/// # Panics
/// Where it cannot be started.
pub fn run_again(test: &str, settings: &[(&str, &str)]) -> Output {
    let executable = std::env::current_exe().expect("a test has a path");
    let mut child = command(&executable, settings);
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = child.output().unwrap_or_else(|error| panic!("{test} does not start again: {error}"));
    let found = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(found, "{test} is not the name of a test");
    output
}

/// Runs one test again, and demands that it passes without a finding. Gives what it printed.
fn passed_again(test: &str, settings: &[(&str, &str)]) -> String {
    let output = run_again(test, settings);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} with {settings:?}: {}\n{text}{errors}", output.status);
    text
}

/// Runs one test again, and demands that it passes without a finding. Gives the lines that it printed behind `mark`, of which
/// the first may stand behind the name of the test.
///
/// # Panics
/// Where it does not.
pub fn printed_again(test: &str, settings: &[(&str, &str)], mark: &str) -> Vec<String> {
    let text = passed_again(test, settings);
    text.lines().filter_map(|line| Some(line.split_once(mark)?.1.to_owned())).collect()
}

/// Runs one test again with each of the settings, and demands that it passes without a finding.
///
/// # Panics
/// Where it does not.
pub fn pass_again(test: &str, settings: &[&[(&str, &str)]]) {
    for settings in settings {
        passed_again(test, settings);
    }
}

/// The name of the test in which this stands, as `--exact` takes it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let name =
            std::any::type_name_of_val(&here).trim_end_matches("::here").trim_end_matches("::{{closure}}");
        name.split_once("::").map_or(name, |(_, test)| test)
    }};
}

/// Runs the rest of a test on a device: the simulator, once with each of the settings (one without any, if none are given),
/// or the real one where `KILN_TEST_GPU` is set. Stands first in a test.
#[macro_export]
macro_rules! on_device {
    () => {
        $crate::on_device!(&[])
    };
    ($($settings:expr),+) => {
        if !$crate::sim::on_device() {
            return $crate::sim::pass_again($crate::test_name!(), &[$($settings),+]);
        }
        $crate::outputs::begin($crate::test_name!());
    };
}
