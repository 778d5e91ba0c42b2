//! What is done with an input.

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, LaunchConfig};
use kiln_sim::stamp::Stamp;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Refused,
    /// It loaded; so many of its kernels were launched.
    Loaded {
        launched: u64,
    },
}

/// Loads a text, and launches what loads for a short while. Panics are the caller's to catch.
pub(crate) fn attempt(text: &str) -> Outcome {
    let mut config = Config::new(Arch::Sm90);
    config.memory_bytes = 16 << 20;
    config.fuel = 2000;
    config.threads = 1;
    let device = Device::new(config);
    let Ok(module) = device.load(text) else { return Outcome::Refused };
    let mut stamp = Stamp::sequential(1, "fuzz");
    let Ok(buffer) = device.alloc(4096) else { return Outcome::Loaded { launched: 0 } };
    let mut launched = 0;
    for kernel in module.kernels().into_iter().take(2).filter_map(|name| module.kernel(&name)) {
        let info = kernel.info();
        // Registers are memory here: a kernel that has tens of thousands is not worth its launch.
        if info.shared_bytes > 1 << 20 || info.local_bytes > 1 << 16 {
            continue;
        }
        let size = info.params.last().map_or(0, |last| (last.offset + last.size) as usize);
        let params: Vec<u8> = buffer.to_le_bytes().into_iter().cycle().take(size).collect();
        let block = info.required_threads.unwrap_or([info.max_threads.min(64), 1, 1]);
        let config =
            LaunchConfig { block, ..LaunchConfig::linear(info.cluster.map_or(2, |dims| dims[0]), 1) };
        stamp = stamp.next("fuzz");
        let _ = device.launch(&kernel, &config, &params, &stamp); // findings are expected
        launched += 1;
    }
    Outcome::Loaded { launched }
}
