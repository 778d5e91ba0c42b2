//! Tests that need a GPU, run where there is none: a test starts itself again with the simulator in the place of the driver.

use std::collections::HashMap;
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

/// Whether a library is there, and newer than all of the files and folders that it is made of.
fn is_built(library: &Path, made_of: &[PathBuf]) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified());
    let Ok(built) = modified(library) else { return false };
    let mut left = made_of.to_vec();
    while let Some(path) = left.pop() {
        if !modified(&path).is_ok_and(|changed| changed <= built) {
            return false;
        }
        // Nothing for a file. A folder changes when a file comes or goes.
        left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    true
}

/// The folder in which the simulator is called `libcuda.so`. Builds the simulator, in the profile that this test has, where it is older
/// than its sources: `cargo test --workspace` has built it with the features that all packages want, and cargo asked for it alone would
/// build it anew with fewer, and all that it depends on.
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
        // Where cargo links it, for its own tests as well as for itself.
        let library = executable.with_file_name("libkiln_sim_driver.so");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this is a package of a workspace");
        let made_of = [
            "Cargo.toml",
            "Cargo.lock",
            "crates/kiln-sim/Cargo.toml",
            "crates/kiln-sim/src",
            "crates/kiln-sim-driver/Cargo.toml",
            "crates/kiln-sim-driver/build.rs",
            "crates/kiln-sim-driver/src",
        ];
        if !is_built(&library, &made_of.map(|name| root.join(name))) {
            let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--quiet", "--locked", "--package", "kiln-sim-driver", "--manifest-path"])
                .arg(root.join("Cargo.toml"))
                .arg("--target-dir")
                .arg(target)
                .args(release.then_some("--release"))
                .status();
            assert!(built.is_ok_and(|status| status.success()), "the simulator does not build");
        }
        // A folder of its own: cargo puts PROFILE and PROFILE/deps into the library path of all that it runs.
        let folder = target.join(if release { "sim-test-release" } else { "sim-test-debug" });
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        for name in ["libcuda.so", "libcuda.so.1"] {
            link(&library, &folder.join(name));
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

/// Runs one test again on so many random schedules, each with its settings, and demands that it passes without a finding, and that of the lines
/// that begin with `bits ` those that are alike up to the last word are alike in that, too. How many differ before it.
///
/// # Panics
/// Where it does not.
pub fn same_bits<'s>(test: &str, seeds: usize, settings: impl Fn(usize) -> Vec<(&'s str, &'s str)>) -> usize {
    let mut bits = HashMap::new();
    for seed in 1..=seeds {
        let number = seed.to_string();
        let settings: Vec<_> = settings(seed).into_iter().chain([("KILN_SIM_SEED", &*number)]).collect();
        for line in printed_again(test, &settings, "bits ") {
            let (what, hash) = line.rsplit_once(' ').expect("what it is of, and a hash");
            let first = bits.entry(what.to_owned()).or_insert_with(|| hash.to_owned());
            assert_eq!(hash, first, "seed {seed}, {what}");
        }
    }
    bits.len()
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_library_is_built_where_nothing_that_it_is_made_of_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let start = SystemTime::now() - Duration::from_secs(100);
        let changed = |name: &str, seconds: u64| {
            File::open(at(name)).unwrap().set_modified(start + Duration::from_secs(seconds)).unwrap();
        };
        fs::create_dir_all(at("crate/src/deep")).unwrap();
        for name in ["Cargo.lock", "crate/src/deep/mod.rs"] {
            fs::write(at(name), "").unwrap();
        }
        let made_of = [at("Cargo.lock"), at("crate")];
        let names = ["Cargo.lock", "crate", "crate/src", "crate/src/deep", "crate/src/deep/mod.rs"];
        names.iter().for_each(|name| changed(name, 1));
        assert!(!is_built(&at("lib.so"), &made_of), "there is none");
        fs::write(at("lib.so"), "").unwrap();
        changed("lib.so", 1);
        assert!(is_built(&at("lib.so"), &made_of));
        for name in names {
            changed(name, 2);
            assert!(!is_built(&at("lib.so"), &made_of), "{name} is newer");
            changed(name, 0);
            assert!(is_built(&at("lib.so"), &made_of));
        }
        fs::remove_file(at("Cargo.lock")).unwrap();
        assert!(!is_built(&at("lib.so"), &made_of), "the lock is gone");
    }
}
