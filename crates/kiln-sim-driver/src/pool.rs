//! Memory pools. A pool keeps nothing back: what is freed goes back to its device at once. So its attributes are
//! remembered and answered, and change nothing else.

use std::collections::BTreeMap;

use crate::driver::Driver;
use crate::handle::Handle;
use crate::status::{Outcome, Status};

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) gpu: usize,
    /// Whether it came with its GPU.
    pub(crate) is_default: bool,
    /// Bytes allocated from it: now, and at most so far.
    used: (u64, u64),
    /// `CUmemPool_attribute` values that were set.
    set: BTreeMap<i32, u64>,
}

/// `CU_MEMPOOL_ATTR_*`: three flags, a threshold, and figures on memory.
const REUSE: std::ops::RangeInclusive<i32> = 1..=3;
const RELEASE_THRESHOLD: i32 = 4;
const RESERVED_CURRENT: i32 = 5;
const RESERVED_HIGH: i32 = 6;
const USED_CURRENT: i32 = 7;
const USED_HIGH: i32 = 8;

/// A pool attribute's value: flags are C's `int`, the rest 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(i32),
    Bytes(u64),
}

impl Pool {
    pub(crate) fn new(gpu: usize, is_default: bool) -> Pool {
        Pool { gpu, is_default, used: (0, 0), set: BTreeMap::new() }
    }

    /// Whether an attribute is a flag; none for an unknown one.
    pub(crate) fn is_flag(attribute: i32) -> Outcome<bool> {
        match attribute {
            _ if REUSE.contains(&attribute) => Ok(true),
            RELEASE_THRESHOLD..=USED_HIGH => Ok(false),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    pub(crate) fn get(&self, attribute: i32) -> Outcome<Value> {
        if Pool::is_flag(attribute)? {
            return Ok(Value::Flag(self.set.get(&attribute).map_or(1, |&value| value as i32)));
        }
        Ok(Value::Bytes(match attribute {
            RELEASE_THRESHOLD => self.set.get(&attribute).copied().unwrap_or(0),
            RESERVED_CURRENT | USED_CURRENT => self.used.0,
            _ => self.used.1,
        }))
    }

    pub(crate) fn set(&mut self, attribute: i32, value: Value) -> Outcome {
        match (attribute, value) {
            // High water marks can only be reset.
            (RESERVED_HIGH | USED_HIGH, Value::Bytes(0)) => self.used.1 = self.used.0,
            (RELEASE_THRESHOLD, Value::Bytes(bytes)) => {
                self.set.insert(attribute, bytes);
            }
            (_, Value::Flag(flag)) if REUSE.contains(&attribute) => {
                self.set.insert(attribute, flag as u64);
            }
            _ => return Err(Status::INVALID_VALUE),
        }
        Ok(())
    }
}

impl Driver {
    /// Counts bytes taken from a pool, or given back.
    pub(crate) fn count_in_pool(&mut self, pool: Option<Handle>, bytes: i64) {
        if let Some(Ok(pool)) = pool.map(|pool| self.pools.get_mut(pool)) {
            pool.used.0 = pool.used.0.saturating_add_signed(bytes);
            pool.used.1 = pool.used.1.max(pool.used.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_remembered_and_figures_cannot_be_set() {
        let mut pool = Pool::new(0, false);
        assert_eq!(pool.get(1), Ok(Value::Flag(1)));
        pool.set(1, Value::Flag(0)).unwrap();
        pool.set(RELEASE_THRESHOLD, Value::Bytes(7)).unwrap();
        assert_eq!((pool.get(1), pool.get(RELEASE_THRESHOLD)), (Ok(Value::Flag(0)), Ok(Value::Bytes(7))));
        assert_eq!(pool.set(USED_CURRENT, Value::Bytes(0)), Err(Status::INVALID_VALUE));
        assert_eq!(pool.set(USED_HIGH, Value::Bytes(1)), Err(Status::INVALID_VALUE));
        assert_eq!(pool.get(9), Err(Status::INVALID_VALUE));
    }
}
