//! Calls that the simulator does not have, and the list of those that cudarc's safe layer makes.

use std::collections::BTreeSet;

use cudarc::driver::sys::{self, CUresult};

use crate::child::{Program, library};
use crate::program::device;

/// What cudarc's safe layer and the one below call, a name a line. scripts/cudarc-under-sim compares it with the source.
const CUDARC: &str = include_str!("cudarc-calls.txt");
/// Those of them that only refuse: memory shared with other APIs.
const REFUSED: [&str; 3] =
    ["cuDestroyExternalMemory", "cuExternalMemoryGetMappedBuffer", "cuImportExternalMemory"];

#[test]
fn a_call_that_is_not_there_refuses_and_names_itself() {
    let program = Program::new(|| {
        let (_context, _stream) = device();
        let mut texture = 0;
        // SAFETY: null pointers for descriptions; the call looks at none of its arguments.
        let made = unsafe {
            sys::cuTexObjectCreate(&mut texture, std::ptr::null(), std::ptr::null(), std::ptr::null())
        };
        assert_eq!(made, CUresult::CUDA_ERROR_NOT_SUPPORTED);
    });
    let ended = program.run_clean(&[]);
    let line = "kiln-sim: cuTexObjectCreate: not supported by the simulator";
    assert!(ended.stderr.lines().any(|found| found == line), "{}", ended.stderr);
}

#[test]
fn all_that_cudarc_calls_is_there() {
    // SAFETY: loading the library runs no code of its own.
    let library = unsafe { libloading::Library::new(library()) }.unwrap();
    let names: BTreeSet<&str> = CUDARC.lines().collect();
    assert!(names.len() > 90 && REFUSED.iter().all(|name| names.contains(name)));
    for name in names {
        // SAFETY: the symbol is looked for, not called.
        let found = unsafe { library.get::<extern "C" fn()>(name.as_bytes()) };
        assert!(found.is_ok(), "{name}");
    }
}
