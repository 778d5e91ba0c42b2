//! Findings, with the places that they name.

use crate::check::cell::Event;
use crate::check::view::{COPIER, Who, block_of};
use crate::finding::{Finding, Kind, Location, Place};

use super::{Launch, MOST_FINDINGS, Machine};

impl Kind {
    /// Whether a launch cannot go on after it.
    fn is_fatal(self) -> bool {
        !matches!(self, Kind::Race | Kind::Uninitialised)
    }
}

/// The place of an instruction, and of a thread if there is one.
pub(super) fn place(launch: &Launch<'_>, pc: u32, who: Option<Who>) -> Place {
    let program = launch.program;
    let origin = &program.origins[program.origin_of[pc as usize] as usize];
    let source = origin.source.and_then(|(file, line)| Some((program.files.get(&file)?.clone(), line)));
    let split = |n: u32, dims: [u32; 3]| [n % dims[0], n / dims[0] % dims[1], n / (dims[0] * dims[1])];
    // Blocks are numbered cluster by cluster.
    let block = who.map(|who| launch.block_id(block_of(who)));
    let thread =
        who.filter(|who| who & COPIER == 0 || who & 1 << 30 == 0).map(|who| split(who & 1023, launch.block));
    Place {
        kernel: launch.function().name.clone(),
        ptx_line: origin.ptx_line,
        instruction: origin.text.clone(),
        source,
        block,
        thread,
    }
}

/// A race between `first` and the access that comes after it in this schedule.
pub(super) fn race(
    launch: &Launch<'_>,
    second: Event,
    first: Event,
    space: &'static str,
    address: u64,
    bytes: u32,
    what: String,
) -> Finding {
    let asynchronous = if first.who & COPIER != 0 { " (asynchronous)" } else { "" };
    Finding {
        kind: Kind::Race,
        message: format!(
            "two accesses to {space} memory that are not ordered, one of them a write{asynchronous}"
        ),
        place: place(launch, second.pc, Some(second.who)),
        other: Some(place(launch, first.pc, (first.who & COPIER == 0).then_some(first.who))),
        location: Some(Location { space, address, bytes, what }),
    }
}

impl Launch<'_> {
    /// Coordinates of a block by its number; blocks are numbered cluster by cluster.
    pub(super) fn block_id(&self, number: u32) -> [u32; 3] {
        let (clusters, size) = (self.clusters(), self.cluster);
        let count = self.cluster_blocks();
        let split = |n: u32, dims: [u32; 3]| [n % dims[0], n / dims[0] % dims[1], n / (dims[0] * dims[1])];
        let (cluster, within) = (split(number / count, clusters), split(number % count, size));
        std::array::from_fn(|axis| cluster[axis] * size[axis] + within[axis])
    }
}

impl Machine<'_> {
    /// Records a finding, once for each kind and pair of instructions, and stops the worker if it cannot go on.
    pub(super) fn report(&mut self, finding: Finding, pc: u32, other: u32) {
        self.stopped |= finding.kind.is_fatal();
        if self.findings.len() < MOST_FINDINGS && self.seen.insert((finding.kind, pc, other), ()).is_none() {
            self.findings.push(finding);
        }
        self.stopped |= self.findings.len() >= MOST_FINDINGS;
    }

    /// A finding about an instruction and a thread.
    pub(super) fn fault(&mut self, kind: Kind, pc: u32, who: Who, message: impl Into<String>) {
        let place = place(self.launch, pc, Some(who));
        self.report(Finding { kind, message: message.into(), place, other: None, location: None }, pc, 0);
    }

    /// A finding about an access.
    #[allow(clippy::too_many_arguments)] // What an access is, no more.
    pub(super) fn fault_at(
        &mut self,
        kind: Kind,
        pc: u32,
        who: Who,
        message: impl Into<String>,
        space: &'static str,
        address: u64,
        bytes: u32,
    ) {
        if self.seen.contains_key(&(kind, pc, 0)) {
            self.stopped |= kind.is_fatal();
            return;
        }
        let what = self.describe(space, address, block_of(who));
        let place = place(self.launch, pc, Some(who));
        let location = Some(Location { space, address, bytes, what });
        self.report(Finding { kind, message: message.into(), place, other: None, location }, pc, 0);
    }

    pub(super) fn race(
        &mut self,
        second: Event,
        first: Event,
        space: &'static str,
        address: u64,
        bytes: u32,
    ) {
        self.race_told(None, second, first, space, address, bytes);
    }

    /// A race, told in words of its own if there are any.
    pub(super) fn race_told(
        &mut self,
        message: Option<&str>,
        second: Event,
        first: Event,
        space: &'static str,
        address: u64,
        bytes: u32,
    ) {
        if self.seen.contains_key(&(Kind::Race, second.pc, first.pc)) {
            return;
        }
        let what = self.describe(space, address, block_of(second.who));
        let mut finding = race(self.launch, second, first, space, address, bytes, what);
        if let Some(message) = message {
            finding.message = message.into();
        }
        self.report(finding, second.pc, first.pc);
    }

    pub(super) fn describe(&self, space: &str, address: u64, block: u32) -> String {
        match space {
            "global" | "const" => self.launch.memory.describe(address),
            "shared" => {
                let bytes = self.blocks.iter().find(|b| b.number == block).map_or(0, |b| b.shared_bytes);
                format!("the block has {bytes} bytes")
            }
            "local" => "the thread's own memory".into(),
            _ => format!("the kernel has {} bytes", self.launch.params.len()),
        }
    }

    /// The line of an instruction in the PTX.
    pub(super) fn line(&self, pc: u32) -> u32 {
        let program = self.launch.program;
        program.origins[program.origin_of[pc as usize] as usize].ptx_line
    }
}
