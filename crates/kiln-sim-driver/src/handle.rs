//! Handles: what the program holds in place of a pointer into the driver.
//!
//! A handle is a number that is never given out twice, dressed as a pointer, and looked up on every use. So a
//! handle that was destroyed, made up, or belongs to another kind of object is an error and not a crash.

use std::collections::BTreeMap;

use crate::status::{Outcome, Status};

/// A handle as C sees it: an opaque pointer of the same size.
pub(crate) type Handle = usize;

/// Objects of one kind, by handle.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: usize,
    next: usize,
    invalid: Status,
    entries: BTreeMap<Handle, T>,
}

/// Set in every handle, so that none is 0, 1 or 2 (the default streams) or an address that a process maps.
const MARK: usize = 0x4b << 56;

impl<T> Table<T> {
    /// An empty table. `kind` tells its handles from those of other tables; `invalid` is what a lookup of a
    /// handle that is not in it answers.
    pub(crate) fn new(kind: u8, invalid: Status) -> Self {
        Table { kind: MARK | usize::from(kind) << 48, next: 1, invalid, entries: BTreeMap::new() }
    }

    /// Adds an object and gives its handle.
    pub(crate) fn insert(&mut self, value: T) -> Handle {
        let handle = self.kind | self.next << 4;
        self.next += 1;
        self.entries.insert(handle, value);
        handle
    }

    /// The object of a handle.
    pub(crate) fn get(&self, handle: Handle) -> Outcome<&T> {
        self.entries.get(&handle).ok_or(self.invalid)
    }

    /// The object of a handle, to change it.
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Outcome<&mut T> {
        self.entries.get_mut(&handle).ok_or(self.invalid)
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, handle: Handle) -> Outcome<T> {
        self.entries.remove(&handle).ok_or(self.invalid)
    }

    /// Whether the handle was given out by this table and its object has been taken out since.
    pub(crate) fn was_destroyed(&self, handle: Handle) -> bool {
        let number = (handle & !(0xffff << 48)) >> 4;
        handle & (0xffff << 48) == self.kind
            && handle & 0xf == 0
            && (1..self.next).contains(&number)
            && !self.entries.contains_key(&handle)
    }

    /// All handles and objects, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.entries.iter().map(|(&handle, value)| (handle, value))
    }

    /// All objects, oldest first, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut()
    }

    /// Takes out all objects for which `which` holds.
    pub(crate) fn take(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        self.entries.extract_if(.., |_, value| which(value)).map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_handle_stays_destroyed() {
        let mut table = Table::new(3, Status::INVALID_HANDLE);
        let first = table.insert("first");
        assert_eq!(table.remove(first), Ok("first"));
        let second = table.insert("second");
        assert_ne!(first, second);
        assert_eq!(table.get(first), Err(Status::INVALID_HANDLE));
        assert!(table.was_destroyed(first) && !table.was_destroyed(second));
    }

    #[test]
    fn handles_of_another_kind_or_made_up_are_refused() {
        let mut streams = Table::new(1, Status::INVALID_HANDLE);
        let mut events = Table::<()>::new(2, Status::INVALID_HANDLE);
        let stream = streams.insert(());
        for handle in [stream, 0, 1, 2, stream + 1, usize::MAX] {
            assert_eq!(events.get_mut(handle), Err(Status::INVALID_HANDLE));
            assert!(!events.was_destroyed(handle));
        }
        assert!(!streams.was_destroyed(stream + 16));
    }
}
