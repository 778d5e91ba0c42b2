//! One simulated GPU.

use std::sync::Arc;

use kiln_sim::device::{Config, Device, Schedule};

use crate::config::Settings;
use crate::handle::Handle;

/// A GPU, with what the driver keeps for each.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) device: Arc<Device>,
    /// The primary context, while somebody holds it.
    pub(crate) primary: Option<Handle>,
    /// How often the primary context has been retained.
    pub(crate) retained: u64,
    /// Flags for the primary context.
    pub(crate) primary_flags: u32,
    /// The pool that the GPU came with, and the one from which `cuMemAllocAsync` allocates.
    pub(crate) default_pool: Handle,
    pub(crate) pool: Handle,
    /// Whether it has been lost, on order.
    pub(crate) lost: bool,
}

impl Gpu {
    pub(crate) fn new(settings: &Settings, ordinal: usize, pool: Handle) -> Gpu {
        let mut config = Config::new(settings.arch);
        config.ordinal = ordinal as u32;
        config.checks = settings.checks;
        if let Some(bytes) = settings.memory {
            config.memory_bytes = bytes;
        }
        if let Some(seed) = settings.seed {
            config.schedule = Schedule::Seeded(seed);
        }
        if let Some(fuel) = settings.fuel {
            config.fuel = fuel;
        }
        if let Some(threads) = settings.threads {
            config.threads = threads;
        }
        Gpu {
            device: Arc::new(Device::new(config)),
            primary: None,
            retained: 0,
            primary_flags: 0,
            default_pool: pool,
            pool,
            lost: false,
        }
    }
}
