//! How a run is asked to end: by Ctrl-C, a hang-up of the terminal, or a signal to terminate; and what it ends with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
#[cfg(unix)]
use signal_hook::consts::SIGXFSZ;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A run that was ended before its last epoch, or a sweep before that of its last run.
#[derive(Debug, thiserror::Error)]
#[error("ended after {what} {done} of {all}, as asked{}", if *done > 0 { ": what it came to is written" } else { "" })]
pub(crate) struct Interrupted {
    /// `epoch`, or `run` of a sweep.
    pub(crate) what: &'static str,
    pub(crate) done: usize,
    pub(crate) all: usize,
    /// What it can go on from, if there is anything.
    pub(crate) resume: Option<PathBuf>,
}

impl Interrupted {
    /// What shells take for an end by Ctrl-C.
    pub(crate) const EXIT_CODE: u8 = 130;
}

/// Signals of which a second one ends the process at once. A hang-up is none of them: a terminal that is closed sends several.
const IMPATIENT: [i32; 2] = [SIGINT, SIGTERM];

#[cfg(unix)]
const SIGNALS: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = IMPATIENT;

/// Becomes true where someone asks for an end, which comes after the epoch that is under way; Ctrl-C or SIGTERM ends the process at once
/// where that was asked for before. What the process was started to ignore, as `nohup` has it ignore a hang-up, stays ignored.
pub(crate) fn asked() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    for signal in SIGNALS.into_iter().filter(|signal| !ignored.has(*signal)) {
        // The check runs before the flag is set, so that only a signal after another finds it.
        let at_once = IMPATIENT.contains(&signal).then(|| {
            flag::register_conditional_shutdown(signal, Interrupted::EXIT_CODE.into(), asked.clone())
        });
        at_once
            .transpose()
            .and_then(|_| flag::register(signal, asked.clone()))
            .with_context(|| format!("signal {signal} cannot be listened for"))?;
    }
    Ok(asked)
}

/// A file that may not grow further is an error of who writes it, not the end of the process.
pub(crate) fn not_by_file_limits() {
    #[cfg(unix)]
    let _ = flag::register(SIGXFSZ, Arc::default()); // as before, where it cannot be
}

/// A bit for each signal, from the lowest for signal 1 on.
#[derive(Debug, PartialEq, Eq)]
struct Signals(u64);

impl Signals {
    fn has(&self, signal: i32) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }

    /// Those of the line `SigIgn` of Linux's `/proc/PID/status`.
    fn ignored_in(status: &str) -> Option<Self> {
        let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(bits.trim(), 16).ok().map(Self)
    }
}

/// Signals that this process ignores; none where the system does not tell.
fn ignored() -> Signals {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Signals::ignored_in(&status).unwrap_or(Signals(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_off_the_status() {
        let ignored =
            Signals::ignored_in("Name:\tkiln\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n");
        let ignored = ignored.unwrap();
        assert_eq!([1, SIGINT, 13, SIGTERM].map(|signal| ignored.has(signal)), [true, false, true, false]);
        assert_eq!(Signals::ignored_in("Name:\tSigIgn\n"), None);
    }
}
