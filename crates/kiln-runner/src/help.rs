//! What a person can do about an error of the engine, in terms of the command's flags, which the engine does not know.

use kiln_engine::Error;

/// The advice that follows an error, if there is any.
pub(crate) fn of(error: &anyhow::Error) -> Option<String> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    let text = match error {
        Error::DeviceMemory { what: "the data set" | "labels" | "targets", .. } => {
            "--placement streamed keeps the data on the host and copies it in chunks"
        }
        Error::DeviceMemory { .. } => {
            "`kiln train` needs less with --micro-batch, which computes a batch in parts, a smaller --batch or narrower --layers; \
             nvidia-smi shows what else is on the GPU"
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
