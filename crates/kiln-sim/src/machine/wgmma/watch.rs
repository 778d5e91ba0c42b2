//! What products of a warpgroup hold while they are under way: registers of the warp, and words of its block's shared memory.

use std::collections::VecDeque;

/// What a register is to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A sum of so many products at once, one of so many.
    Sum(u32, usize),
    /// Of the first operand.
    Operand,
}

/// A register as products see it.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// How many fences there had been at the last access by any other instruction, if there was one.
    touched: Option<u32>,
    /// What it was to the last product that it was a sum of, and how many fences there had been.
    sum: Option<(u32, Part)>,
    /// What it is to a product under way, and that product's instruction.
    busy: Option<(Part, u32)>,
}

/// One bit for each word of shared memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(Vec<u64>);

impl Words {
    pub(super) fn insert(&mut self, word: usize) {
        if self.0.len() <= word / 64 {
            self.0.resize(word / 64 + 1, 0);
        }
        self.0[word / 64] |= 1 << (word % 64);
    }

    fn has(&self, word: usize) -> bool {
        self.0.get(word / 64).is_some_and(|bits| bits >> (word % 64) & 1 == 1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(n, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| 64 * n + bit)
        })
    }
}

/// Products that are waited for together.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    registers: Vec<(u32, Part, u32)>,
    /// What they read.
    pub(super) words: Words,
    /// The last one's instruction.
    pub(super) pc: u32,
}

/// The products of a warp.
#[derive(Clone, Debug, Default)]
pub(in crate::machine) struct Products {
    /// By number in the warp's file.
    registers: Vec<Held>,
    fences: u32,
    open: Group,
    groups: VecDeque<Group>,
}

/// Why a product may not take a register.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No fence at all.
    NoFence,
    /// An access since the last fence.
    Touched,
    /// A sum of a product of another shape since the last fence.
    OtherShape,
    /// In use by the product at this instruction.
    Busy(u32),
}

impl Products {
    fn held(&mut self, register: u32) -> &mut Held {
        let at = register as usize;
        if self.registers.len() <= at {
            self.registers.resize(at + 1, Held::default());
        }
        &mut self.registers[at]
    }

    /// An instruction accesses a register; the product that still has it, if any.
    pub(super) fn touch(&mut self, register: u32) -> Option<u32> {
        let fences = self.fences;
        let held = self.held(register);
        held.touched = Some(fences);
        held.busy.map(|(_, pc)| pc)
    }

    pub(super) fn fence(&mut self) {
        self.fences += 1;
    }

    /// A product takes a register.
    pub(super) fn take(&mut self, register: u32, part: Part, pc: u32) -> Result<(), Fault> {
        let fences = self.fences;
        let held = self.held(register);
        if fences == 0 {
            return Err(Fault::NoFence);
        }
        if held.touched == Some(fences) {
            return Err(Fault::Touched);
        }
        // Sums of one shape follow each other in order, and operands are only read; all else is in use until it is waited for.
        match (held.busy, part) {
            (Some((Part::Operand, _)), Part::Operand)
            | (None, _)
            | (Some((Part::Sum(..), _)), Part::Sum(..)) => {}
            (Some((_, pc)), _) => return Err(Fault::Busy(pc)),
        }
        if let Part::Sum(..) = part {
            if held.sum.is_some_and(|(fence, last)| fence == fences && last != part) {
                return Err(Fault::OtherShape);
            }
            held.sum = Some((fences, part));
        }
        held.busy = Some((part, pc));
        self.open.registers.push((register, part, pc));
        Ok(())
    }

    /// What the products of the open group read.
    pub(super) fn open(&mut self) -> &mut Group {
        &mut self.open
    }

    pub(super) fn commit(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }

    /// Groups of which no more than `most` are left: those that are done.
    pub(super) fn wait(&mut self, most: usize) -> Vec<Group> {
        let done: Vec<Group> = self.groups.drain(..self.groups.len().saturating_sub(most)).collect();
        for (register, ..) in done.iter().flat_map(|group| &group.registers) {
            self.registers[*register as usize].busy = None;
        }
        for (register, part, pc) in self.groups.iter().chain([&self.open]).flat_map(|group| &group.registers)
        {
            self.registers[*register as usize].busy = Some((*part, *pc));
        }
        done
    }

    /// The instruction of a product that still reads a word.
    pub(in crate::machine) fn reader(&self, word: usize) -> Option<u32> {
        self.groups.iter().chain([&self.open]).find(|group| group.words.has(word)).map(|group| group.pc)
    }

    /// The instruction of a product that has not been waited for.
    pub(super) fn under_way(&self) -> Option<u32> {
        let mut groups = self.groups.iter().chain([&self.open]);
        groups.find(|group| !group.registers.is_empty()).map(|group| group.pc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: Part = Part::Sum(16, 4);

    #[test]
    fn a_register_is_busy_until_its_group_is_waited_for() {
        let mut products = Products::default();
        assert_eq!(products.take(3, SUM, 10), Err(Fault::NoFence));
        products.fence();
        products.take(3, SUM, 10).unwrap();
        products.commit();
        products.take(3, SUM, 11).unwrap();
        products.commit();
        assert_eq!(products.wait(1).len(), 1);
        assert_eq!(products.touch(3), Some(11), "the second product has it still");
        assert_eq!(products.wait(0).len(), 1);
        assert_eq!(products.touch(3), None);
        assert_eq!(products.under_way(), None);
    }

    #[test]
    fn sums_of_another_shape_and_operands_need_a_fence_or_a_wait() {
        let mut products = Products::default();
        products.touch(3);
        products.fence();
        products.take(3, SUM, 10).unwrap();
        assert_eq!(products.take(3, Part::Sum(16, 8), 11), Err(Fault::OtherShape));
        assert_eq!(products.take(3, Part::Operand, 11), Err(Fault::Busy(10)));
        products.take(7, Part::Operand, 12).unwrap();
        products.take(7, Part::Operand, 13).unwrap();
        assert_eq!(products.take(7, SUM, 14), Err(Fault::Busy(13)));
        products.fence();
        products.take(3, Part::Sum(16, 8), 15).unwrap();
        products.touch(9);
        assert_eq!(products.take(9, SUM, 16), Err(Fault::Touched));
    }

    #[test]
    fn words_are_those_put_in() {
        let mut words = Words::default();
        [0, 63, 64, 1000].into_iter().for_each(|word| words.insert(word));
        assert_eq!(words.iter().collect::<Vec<_>>(), [0, 63, 64, 1000]);
        assert!(words.has(64) && !words.has(65) && !words.has(100_000));
    }
}
