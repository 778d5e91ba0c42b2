//! The allocations of a device.
//!
//! Addresses are never used again, and allocations lie apart: an access after an allocation's end or after it was freed
//! hits nothing, and can be told for what it is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Allocation, DEVICE_BASE, DEVICE_STEP, ExternalMemory};

/// Misuse of the memory interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Not enough memory.
    #[error("{asked} bytes asked for, {free} of {total} free")]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes free.
        free: u64,
        /// Bytes of the device.
        total: u64,
    },
    /// Not an allocation's first address, or freed before.
    #[error("{address:#x} is {what}, not the start of an allocation")]
    InvalidPointer {
        /// The address.
        address: u64,
        /// What lies there.
        what: String,
    },
}

/// Whose an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Program,
    Module { constant: bool },
}

/// Bytes between two allocations, at least.
const RED_ZONE: u64 = 4096;

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<u64, (Arc<Allocation>, Option<Owner>)>,
    /// Bytes and name of what was freed, by address.
    freed: BTreeMap<u64, (u64, Arc<str>)>,
    next: u64,
    used: u64,
    count: u64,
}

/// The allocations of a device.
#[derive(Debug)]
pub(crate) struct GlobalMemory {
    state: RwLock<State>,
    total: u64,
}

impl GlobalMemory {
    pub(crate) fn new(ordinal: u32, total: u64) -> GlobalMemory {
        let next = DEVICE_BASE + u64::from(ordinal) * DEVICE_STEP + RED_ZONE;
        GlobalMemory { state: RwLock::new(State { next, ..State::default() }), total }
    }

    fn lock(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alloc(
        &self,
        bytes: u64,
        align: u64,
        owner: Owner,
        name: Option<&str>,
    ) -> Result<Arc<Allocation>, MemoryError> {
        let mut state = self.lock_mut();
        let free = self.total - state.used;
        if bytes > free {
            return Err(MemoryError::OutOfMemory { asked: bytes, free, total: self.total });
        }
        state.count += 1;
        let id = state.count;
        let base = state.next.next_multiple_of(align.max(256));
        state.next = base + bytes + RED_ZONE;
        state.used += bytes;
        let constant = matches!(owner, Owner::Module { constant: true });
        let written = matches!(owner, Owner::Module { .. });
        let name = name.map_or_else(|| format!("allocation {id}"), |name| format!("variable {name}"));
        let allocation = Arc::new(Allocation::new(id, base, bytes, constant, written, Arc::from(name)));
        state.live.insert(base, (allocation.clone(), Some(owner)));
        Ok(allocation)
    }

    pub(crate) fn map(&self, address: u64, memory: Arc<dyn ExternalMemory>) -> Result<(), MemoryError> {
        let mut state = self.lock_mut();
        let end = address.saturating_add(memory.len());
        let overlaps =
            state.live.range(..end).next_back().is_some_and(|(base, (a, _))| base + a.bytes > address);
        if overlaps || super::window(address).is_some() {
            return Err(MemoryError::InvalidPointer { address, what: "in use".into() });
        }
        state.count += 1;
        let allocation = Allocation::external(state.count, address, memory);
        state.freed.remove(&address);
        state.live.insert(address, (Arc::new(allocation), None));
        Ok(())
    }

    pub(crate) fn free(&self, address: u64) -> Result<(), MemoryError> {
        let what = self.describe(address);
        let mut state = self.lock_mut();
        if matches!(state.live.get(&address), Some((_, Some(Owner::Module { .. })))) {
            return Err(MemoryError::InvalidPointer { address, what });
        }
        Self::remove(&mut state, address).ok_or(MemoryError::InvalidPointer { address, what })
    }

    /// Frees a module's variable.
    pub(crate) fn free_variable(&self, address: u64) {
        Self::remove(&mut self.lock_mut(), address);
    }

    fn remove(state: &mut State, address: u64) -> Option<()> {
        let (allocation, owner) = state.live.remove(&address)?;
        state.freed.insert(address, (allocation.bytes, allocation.name.clone()));
        if owner.is_some() {
            state.used -= allocation.bytes;
        }
        Some(())
    }

    pub(crate) fn find(&self, address: u64) -> Option<Arc<Allocation>> {
        let state = self.lock();
        let (_, (allocation, _)) = state.live.range(..=address).next_back()?;
        allocation.holds(address, 1).then(|| allocation.clone())
    }

    /// All that is live, in order of address.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Allocation>> {
        self.lock().live.values().map(|(allocation, _)| allocation.clone()).collect()
    }

    /// What the program allocated and has not freed.
    pub(crate) fn live(&self) -> Vec<Arc<Allocation>> {
        let state = self.lock();
        state
            .live
            .values()
            .filter(|(_, owner)| *owner == Some(Owner::Program))
            .map(|(a, _)| a.clone())
            .collect()
    }

    /// Bytes free, bytes in all.
    pub(crate) fn info(&self) -> (u64, u64) {
        (self.total - self.lock().used, self.total)
    }

    /// Whether an address was in an allocation that has been freed.
    pub(crate) fn was_freed(&self, address: u64) -> bool {
        let state = self.lock();
        state
            .freed
            .range(..=address)
            .next_back()
            .is_some_and(|(base, (bytes, _))| address - base < (*bytes).max(1))
    }

    /// What lies at an address, for a finding.
    pub(crate) fn describe(&self, address: u64) -> String {
        let state = self.lock();
        let before = state
            .live
            .range(..=address)
            .next_back()
            .map(|(base, (a, _))| (*base, a.bytes, a.name.clone(), false));
        let freed = state
            .freed
            .range(..=address)
            .next_back()
            .map(|(base, (bytes, name))| (*base, *bytes, name.clone(), true));
        let nearest = [before, freed].into_iter().flatten().max_by_key(|found| found.0);
        match nearest {
            Some((base, bytes, name, freed)) if address - base < bytes.saturating_add(1 << 20) => {
                let state = if freed { ", freed" } else { "" };
                format!("{name} ({bytes} bytes{state}), offset {}", address - base)
            }
            _ => match state.live.range(address..).next() {
                Some((base, (a, _))) if base - address < 1 << 20 => {
                    format!("{} bytes before {} ({} bytes)", base - address, a.name, a.bytes)
                }
                _ if address == 0 => "a null pointer".into(),
                _ => "no allocation anywhere near".into(),
            },
        }
    }
}
