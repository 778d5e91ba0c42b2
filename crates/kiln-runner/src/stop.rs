//! How a run is asked to end: by Ctrl-C, a hang-up of the terminal, or a signal to terminate.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::commands::train::Interrupted;

/// Becomes true where someone asks for an end, which comes after the epoch that is under way. Asked twice, the process ends at once.
/// What the process was started to ignore, as `nohup` has it ignore a hang-up, stays ignored.
pub(crate) fn asked() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !ignored.has(*signal)) {
        // In this order: what the first one sets is what the second one finds.
        flag::register_conditional_shutdown(signal, Interrupted::EXIT_CODE.into(), asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .with_context(|| format!("signal {signal} cannot be listened for"))?;
    }
    Ok(asked)
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
        assert_eq!([SIGHUP, SIGINT, SIGTERM].map(|signal| ignored.has(signal)), [true, false, false]);
        assert_eq!(Signals::ignored_in("Name:\tSigIgn\n"), None);
    }
}
