//! Pinned memory that copies read from: the program must leave it alone until it knows the copy to be done.
//!
//! A copy runs when it is submitted, so that what it reads is what the program had there then; on a GPU it may read later. So
//! each copy from pinned or registered memory leaves a digest of what it read, and once the host has waited for the copy the
//! memory must still have that. What the device itself writes there in between cannot be told from what the program writes:
//! such a copy is let go. Errs towards silence there, and where the program writes the same bytes again.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use kiln_sim::finding::{Finding, Kind, Location, Place};
use kiln_sim::stamp::Stamp;

use crate::driver::Driver;
use crate::ffi::HostAddress;
use crate::handle::Handle;
use crate::report;

/// What a copy read.
#[derive(Debug)]
pub(crate) struct Source {
    context: Handle,
    address: u64,
    bytes: u64,
    digest: u64,
    /// Writes of the device to the block, at the time.
    writes: u64,
    timeline: usize,
    number: u64,
    label: Arc<str>,
}

fn digest(address: u64, bytes: u64) -> Option<u64> {
    let mut content = vec![0; bytes as usize];
    HostAddress(address as usize).read(&mut content).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    Some(hasher.finish())
}

impl Driver {
    /// Remembers what a copy has read, if it is pinned or registered memory.
    pub(crate) fn remember_source(&mut self, context: Handle, address: u64, bytes: u64, stamp: &Stamp) {
        if !self.settings.checks {
            return;
        }
        let Some(writes) = self.memory.at(address).and_then(|(_, block)| block.device_writes()) else {
            return;
        };
        let Some(digest) = digest(address, bytes) else { return };
        let (timeline, number, label) = (stamp.timeline, stamp.number, stamp.label.clone());
        self.sources.push(Source { context, address, bytes, digest, writes, timeline, number, label });
    }

    /// Looks at the sources of the copies that the host now knows to be done.
    pub(crate) fn check_sources(&mut self) {
        let host = self.order.host.clone();
        let done = |source: &mut Source| host.get(source.timeline) >= source.number;
        let done: Vec<Source> = self.sources.extract_if(.., done).collect();
        self.report_changed(done);
    }

    /// Looks at the sources in a block that is given back, which CUDA does not do before it has waited.
    pub(crate) fn check_sources_in(&mut self, base: u64, bytes: u64) {
        let inside = |source: &mut Source| (base..base.saturating_add(bytes)).contains(&source.address);
        let inside: Vec<Source> = self.sources.extract_if(.., inside).collect();
        self.report_changed(inside);
    }

    fn report_changed(&mut self, sources: Vec<Source>) {
        for source in sources {
            let Some((base, block)) = self.memory.at(source.address) else { continue };
            if block.device_writes() != Some(source.writes) {
                continue;
            }
            let Some(now) = digest(source.address, source.bytes) else { continue };
            if now == source.digest {
                continue;
            }
            let what =
                format!("{} ({} bytes), offset {}", block.kind.name(), block.bytes, source.address - base);
            let bytes = u32::try_from(source.bytes).unwrap_or(u32::MAX);
            let finding = Finding {
                kind: Kind::Race,
                message: "the program changed host memory before it had waited for a copy from it".into(),
                place: Place::outside(source.label.clone()),
                other: None,
                location: Some(Location { space: "host", address: source.address, bytes, what }),
            };
            let status = report::status(&finding);
            self.reporter.report(&[finding]);
            self.fail(source.context, status);
        }
    }
}
