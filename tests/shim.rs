//! Shared libraries in C that stand between a program and its driver or profiler, built by the test that wants them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::sim;

/// The folder in which a driver is called `libcuda.so` that passes calls on to the simulator, but for what the `SHIM_*`
/// variables say: see `shims/driver.c`.
///
/// # Panics
/// Where it cannot be built.
pub fn driver() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let simulator =
            std::fs::canonicalize(sim::folder().join("libcuda.so")).expect("the simulator is built");
        let folder = sim::folder().with_extension("shim-driver");
        let real = format!("-DREAL=\"{}\"", simulator.display());
        let library = simulator.to_str().expect("a path that can be written");
        for name in ["libcuda.so", "libcuda.so.1"] {
            build("driver.c", &folder.join(name), &[&real, "-Wl,--no-as-needed", library]);
        }
        folder
    })
}

/// A folder in which what is called `libcuda.so` is no library: no driver is found, even where there is one.
///
/// # Panics
/// Where it cannot be written.
pub fn no_driver() -> PathBuf {
    let folder = sim::folder().with_extension("no-driver");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.join(name), "").expect("the target folder can be written");
    }
    folder
}

/// The folder in which the simulator is the driver, and a cuBLASLt lies that computes on the CPU: see `shims/cublaslt.c`.
///
/// # Panics
/// Where it cannot be built.
pub fn cublaslt() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = sim::folder().with_extension("shim-cublaslt");
        build("cublaslt.c", &folder.join("libcublasLt.so"), &["-lm", "-ldl"]);
        sim::link_driver(&folder);
        folder
    })
}

/// A folder in which the simulator is the driver, and what is called `libcublasLt.so` is no library.
///
/// # Panics
/// Where it cannot be written.
pub fn no_cublaslt() -> PathBuf {
    let folder = sim::folder().with_extension("no-cublaslt");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    for name in ["libcublasLt.so", "libcublasLt.so.12", "libcublasLt.so.11"] {
        std::fs::write(folder.join(name), "").expect("the target folder can be written");
    }
    sim::link_driver(&folder);
    folder
}

/// A tool that NVTX loads where `NVTX_INJECTION64_PATH` names it, and that records ranges to the file that `SHIM_RECORD` names.
///
/// # Panics
/// Where it cannot be built.
pub fn nvtx() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = sim::folder().with_extension("shim-nvtx").join("libnvtx.so");
        build("nvtx.c", &library, &[]);
        library
    })
}

/// A command that finds the libraries of a folder before all others.
pub fn command(program: &Path, folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", folder).envs(settings.iter().copied());
    command
}

/// Compiles a file of `shims` to a shared library, which appears whole: other tests may be making the same one.
fn build(source: &str, library: &Path, flags: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shims").join(source);
    let folder = library.parent().expect("a library lies in a folder");
    std::fs::create_dir_all(folder).expect("the target folder can be written");
    let new = library.with_extension(format!("{}.tmp", std::process::id()));
    let built = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o"])
        .arg(&new)
        .arg(&source)
        .args(flags)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "{} does not compile", source.display());
    std::fs::rename(&new, library).expect("the target folder can be written");
}
