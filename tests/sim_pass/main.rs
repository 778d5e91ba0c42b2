//! Programs without a fault: the simulator runs them as the PTX ISA says, and finds nothing.
//!
//! Every program of `ptx/pass` runs on each architecture that its PTX allows, on several schedules. Each kernel's results
//! are compared with a reference computed here: exactly where the arithmetic is exact, else in float64 within a bound that
//! is derived where it is used.

mod cluster;
mod compare;
mod control;
mod copies;
mod doubles;
mod floats;
mod gpu;
mod halves;
mod integers;
mod products;
mod reductions;
mod rows;
mod scans;
mod sync;
mod warps;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gpu::run;

/// A test for each program, and the list of them.
macro_rules! programs {
    ($($name:ident: $runner:path,)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), $runner);
            }
        )*

        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
    };
}

programs! {
    async_groups: copies::async_groups,
    block_reduce: reductions::block_reduce,
    bulk_copy: copies::bulk_copy,
    calls: control::calls,
    cluster_exchange: cluster::cluster_exchange,
    control: control::control,
    dsmem_reduce: cluster::dsmem_reduce,
    floats: floats::floats,
    fragments: products::fragments,
    grid_sync: sync::grid_sync,
    halves: halves::halves,
    histogram: reductions::histogram,
    integers: integers::integers,
    last_block: reductions::last_block,
    launch_shape: cluster::launch_shape,
    matmul_f32: products::matmul_f32,
    memory: copies::memory,
    messages: sync::messages,
    mma_bf16: products::mma_bf16,
    mma_tf32: products::mma_tf32,
    named_barriers: sync::named_barriers,
    scan: scans::scan,
    softmax_xent: reductions::softmax_xent,
    transpose: copies::transpose,
    warp_ops: warps::warp_ops,
    wgmma: products::wgmma,
    wgmma_pipeline: products::wgmma_pipeline,
}

/// The folder of the programs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx").join("pass")
}

/// A program that nobody runs proves nothing, and PTX without its source cannot be made again.
#[test]
fn every_program_has_a_runner_and_a_source() {
    let names = |extension: &str| -> BTreeSet<String> {
        let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect()
    };
    let run: BTreeSet<String> = PROGRAMS.iter().map(|name| (*name).to_string()).collect();
    assert_eq!(names("ptx"), run, "compiled programs, and those that are run");
    assert_eq!(names("cu"), run, "sources, and the programs that are run");
}
