//! How errors are told: with all of their causes, and with what a person can do about one of the engine, in terms of the command's
//! flags, which the engine does not know.

use kiln_engine::Error;

use crate::stop::Interrupted;

/// An error and its causes, each once: some errors tell their cause themselves.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).reduce(with_cause).unwrap_or_default()
}

fn with_cause(text: String, cause: String) -> String {
    if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
}

/// What has ended a run, and what came of writing its results: both, where neither went well.
pub(crate) fn ended(run: anyhow::Result<()>, written: anyhow::Result<()>) -> anyhow::Result<()> {
    match (run, written) {
        (Err(run), Err(written)) => Err(run.context(format!("{}, and before it", causes(&written)))),
        (run, written) => run.and(written),
    }
}

/// The advice that follows an error, if there is any, where the resident engine was asked for or not: it has other flags.
pub(crate) fn of(error: &anyhow::Error, resident: bool) -> Option<String> {
    if let Some(Interrupted { resume, .. }) = error.downcast_ref() {
        return resume.as_ref().map(|path| format!("`kiln train --resume` goes on from {}", path.display()));
    }
    let error = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    let text = match error {
        Error::DeviceMemory { .. } if resident => {
            "the graph engine needs less (--engine graph of `kiln train`, `sweep` and `parity`): it keeps one copy of the data on the GPU, or none \
             with --placement streamed; nvidia-smi shows what else is on the GPU"
        }
        error if error.lacks_memory_for_samples() => {
            "--placement streamed keeps the data on the host and copies it in chunks"
        }
        Error::DeviceMemory { .. } => {
            "`kiln train` needs less with --micro-batch, which computes a batch in parts, a smaller --batch or narrower --layers; \
             nvidia-smi shows what else is on the GPU"
        }
        Error::Label { .. } | Error::SampleWidth { .. } => {
            "a model has an input for each value of a sample and an output for each class: the first and the last of --layers where it is trained"
        }
        Error::OutOfMemory { .. } => "`kiln train` needs less with a smaller --batch or narrower --layers",
        Error::Fault { steps, .. } if steps.len() > 1 => {
            "run it again with --submission synchronous to learn which step failed, and in which kernel"
        }
        Error::NoGpu { .. }
        | Error::DriverBroken { .. }
        | Error::DriverTooOld { .. }
        | Error::Capability { .. } => {
            "`kiln doctor` checks the driver and the devices; --engine host trains on the CPU"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_and_could_not_be_written_is_told_as_both() {
        let failed = |text: &'static str| Err(anyhow::anyhow!(text));
        let told = |run, written| ended(run, written).map_err(|error| causes(&error));
        assert_eq!(told(Ok(()), Ok(())), Ok(()));
        assert_eq!(told(failed("diverged"), Ok(())), Err("diverged".to_owned()));
        assert_eq!(told(Ok(()), failed("disk full")), Err("disk full".to_owned()));
        let both = "disk full, and before it: diverged".to_owned();
        assert_eq!(told(failed("diverged"), failed("disk full")), Err(both));
    }

    #[test]
    fn a_cause_is_told_once() {
        let error =
            anyhow::anyhow!("no such file").context("model: no such file").context("it cannot be read");
        assert_eq!(causes(&error), "it cannot be read: model: no such file");
    }
}
