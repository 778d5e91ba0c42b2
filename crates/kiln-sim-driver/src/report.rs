//! What the driver tells whoever runs the program: findings, refusals, and how the process ends.
//!
//! A process that had a finding ends with [`EXIT_FINDINGS`] whatever the program itself makes of it, so that no
//! test passes over a race. The program's own status is kept only where the sole findings are allocations that
//! were still there when it failed: a program that gives up leaves them lying.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kiln_sim::finding::{Finding, Kind};

use crate::driver::Session;
use crate::entry;
use crate::status::Status;

/// The status of a process in which the simulator found something.
pub(crate) const EXIT_FINDINGS: i32 = 86;
/// The status of a process in which the simulator itself failed.
pub(crate) const EXIT_BUG: i32 = 87;
/// Findings of one operation that are printed; the report file has all.
const PRINTED: usize = 10;

static FINDINGS: AtomicU64 = AtomicU64::new(0);
static BUG: AtomicBool = AtomicBool::new(false);

/// Says on stderr why a call was refused: a misuse of the API, or something that the simulator does not have.
pub(crate) fn note(call: &str, text: &str) {
    eprintln!("kiln-sim: {call}: {text}");
}

/// Records that the simulator failed in a call. The panic's own message has been printed.
pub(crate) fn bug(call: &str) {
    BUG.store(true, Ordering::Relaxed);
    eprintln!("kiln-sim: {call}: this is a bug of the simulator, not of the program");
}

/// Passes on what a kernel has printed.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        note("printf", &format!("could not be written: {error}"));
    }
}

/// The `CUresult` that comes closest to a finding.
pub(crate) fn status(finding: &Finding) -> Status {
    match finding.kind {
        Kind::OutOfBounds | Kind::UseAfterFree | Kind::Uninitialised | Kind::ReadOnly | Kind::Race => {
            Status::ILLEGAL_ADDRESS
        }
        Kind::Misaligned => Status::MISALIGNED_ADDRESS,
        // A failed assertion is a call.
        Kind::Trap if finding.place.instruction.starts_with("trap") => Status::LAUNCH_FAILED,
        Kind::Trap => Status::ASSERT,
        Kind::Deadlock | Kind::OutOfFuel => Status::LAUNCH_TIMEOUT,
        Kind::Barrier | Kind::Mbarrier | Kind::Misuse => Status::ILLEGAL_INSTRUCTION,
        Kind::Leak => Status::LAUNCH_FAILED,
    }
}

/// Where findings go.
#[derive(Debug)]
pub(crate) struct Reporter {
    file: Option<File>,
}

impl Reporter {
    /// Opens the report file, if one is asked for, to add to it.
    pub(crate) fn open(path: Option<&Path>) -> std::io::Result<Reporter> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Reporter { file })
    }

    /// Prints findings, and adds each to the report file as a line of JSON.
    pub(crate) fn report(&mut self, findings: &[Finding]) {
        FINDINGS.fetch_add(findings.len() as u64, Ordering::Relaxed);
        let mut text = String::new();
        for finding in findings.iter().take(PRINTED) {
            text += &format!("kiln-sim: {finding}\n");
        }
        if let Some(more) = findings.len().checked_sub(PRINTED).filter(|&more| more > 0) {
            text += &format!("kiln-sim: and {more} more findings of the same operation\n");
        }
        eprint!("{text}");
        if let Err(error) = self.write(findings) {
            note("KILN_SIM_REPORT", &format!("could not be written: {error}"));
        }
    }

    fn write(&mut self, findings: &[Finding]) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut lines = Vec::new();
        for finding in findings {
            serde_json::to_writer(&mut lines, finding)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)
    }
}

unsafe extern "C" {
    /// glibc's `on_exit`: as `atexit`, but the function learns the process's status.
    fn on_exit(function: extern "C" fn(i32, *mut libc::c_void), argument: *mut libc::c_void) -> i32;
}

/// Has the process end with a summary, and with a status of its own after a finding.
pub(crate) fn watch_exit() {
    // SAFETY: `at_exit` is a function of this library, which build.rs has linked so that it is never unloaded,
    // and it does not use its argument.
    let failed = unsafe { on_exit(at_exit, std::ptr::null_mut()) };
    if failed != 0 {
        note("cuInit", "no handler for the end of the process: the exit status will not tell of findings");
    }
}

extern "C" fn at_exit(status: i32, _: *mut libc::c_void) {
    // A failed look for leaks has been reported as a bug by now.
    let _ = entry::contain("the end of the process", || {
        if status == 0
            && let Some(mut session) = Session::try_open()
        {
            session.report_leaks_of_all();
        }
        Ok(())
    });
    let findings = FINDINGS.load(Ordering::Relaxed);
    let code = if BUG.load(Ordering::Relaxed) {
        EXIT_BUG
    } else if findings > 0 {
        let count = if findings == 1 { "1 finding".into() } else { format!("{findings} findings") };
        eprintln!("kiln-sim: {count}; the process ends with status {EXIT_FINDINGS}, not {status}");
        EXIT_FINDINGS
    } else {
        return;
    };
    // SAFETY: flushes every stream of C's standard library, which `_exit` would not; `_exit` ends the process. Both
    // may be called at any time.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(code)
    }
}
