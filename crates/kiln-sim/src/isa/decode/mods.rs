//! The modifiers of an instruction, each to be looked at once.

use crate::isa::{Int, Order, Scope, Sem};
use crate::num::Round;

pub(super) struct Mods<'a> {
    parts: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    pub(super) fn new(parts: &'a [String]) -> Mods<'a> {
        Mods { parts: parts.iter().map(String::as_str).collect() }
    }

    /// Takes a modifier, if it is there.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.parts.iter().position(|part| *part == word);
        if let Some(at) = found {
            self.parts.remove(at);
        }
        found.is_some()
    }

    /// Takes the first modifier that `pick` knows.
    pub(super) fn pick<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (at, value) = self.parts.iter().enumerate().find_map(|(at, part)| Some((at, pick(part)?)))?;
        self.parts.remove(at);
        Some(value)
    }

    /// Takes the last modifier: the type, usually.
    pub(super) fn last(&mut self) -> &'a str {
        self.parts.pop().unwrap_or("")
    }

    /// Takes the first modifier.
    pub(super) fn first(&mut self) -> &'a str {
        if self.parts.is_empty() { "" } else { self.parts.remove(0) }
    }

    /// What nobody took.
    pub(super) fn left(&self) -> Option<&'a str> {
        self.parts.first().copied()
    }

    /// The last modifier, still there.
    pub(super) fn peek_last(&self) -> &'a str {
        self.parts.last().copied().unwrap_or("")
    }

    /// Whether a modifier is there; it stays.
    pub(super) fn has(&self, word: &str) -> bool {
        self.parts.contains(&word)
    }

    pub(super) fn has_rounding(&self) -> bool {
        self.parts.iter().any(|part| matches!(*part, "rn" | "rz" | "rp" | "rm"))
    }

    pub(super) fn rounding(&mut self) -> Option<Round> {
        self.pick(|part| match part {
            "rn" => Some(Round::Nearest),
            "rz" => Some(Round::Zero),
            "rp" => Some(Round::Up),
            "rm" => Some(Round::Down),
            _ => None,
        })
    }

    pub(super) fn scope(&mut self) -> Option<Scope> {
        self.pick(|part| match part {
            "cta" => Some(Scope::Cta),
            "cluster" => Some(Scope::Cluster),
            "gpu" | "sys" => Some(Scope::Gpu),
            _ => None,
        })
    }

    /// Order and scope, where one is given.
    pub(super) fn sem(&mut self) -> Option<Sem> {
        let order = self.pick(|part| match part {
            "weak" => Some(Order::Weak),
            "relaxed" | "volatile" | "mmio" => Some(Order::Relaxed),
            "acquire" => Some(Order::Acquire),
            "release" => Some(Order::Release),
            "acq_rel" | "sc" => Some(Order::AcqRel),
            _ => None,
        });
        let scope = self.scope();
        order.map(|order| Sem { order, scope: scope.unwrap_or(Scope::Gpu) })
    }

    /// Caching and eviction hints, which say nothing about values.
    pub(super) fn skip_hints(&mut self) -> Hints {
        let mut policy = false;
        while self
            .pick(|part| match part {
                "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc" => Some(()),
                "L2::cache_hint" => None,
                _ if part.starts_with("L1::") || part.starts_with("L2::") => Some(()),
                _ => None,
            })
            .is_some()
        {}
        policy |= self.take("L2::cache_hint");
        Hints { policy }
    }
}

/// What hints bring along.
pub(super) struct Hints {
    /// One more operand, a cache policy.
    pub(super) policy: bool,
}

/// Integer types as arithmetic has them.
pub(super) fn int_type(word: &str) -> Option<Int> {
    Some(match word {
        "u16" => Int::U16,
        "s16" => Int::S16,
        "u32" => Int::U32,
        "s32" => Int::S32,
        "u64" => Int::U64,
        "s64" => Int::S64,
        _ => return None,
    })
}

/// Untyped sizes, as logic has them.
pub(super) fn bit_type(word: &str) -> Option<Int> {
    Some(match word {
        "b16" => Int::U16,
        "b32" => Int::U32,
        "b64" => Int::U64,
        _ => return None,
    })
}
