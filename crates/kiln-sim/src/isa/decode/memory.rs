//! Loads, stores, atomics and asynchronous copies.

use crate::isa::{
    ADDRESS, Access, Atom, AtomOp, AtomType, Bulk, BulkKind, Element, HalfType, Inst, Int, Int2, Int3,
    MbarSem, Op, Order, Place, RegClass, Scope, Sem,
};
use crate::ptx::ast::Operand;

use super::float::half_type;
use super::mods::Mods;
use super::moves::place;
use super::names::Variable;
use super::{Decoder, Result};

fn element(word: &str) -> Option<Element> {
    let (bytes, signed) = match word {
        "b8" | "u8" => (1, false),
        "s8" => (1, true),
        "b16" | "u16" | "f16" | "bf16" => (2, false),
        "s16" => (2, true),
        "b32" | "u32" | "f32" | "f16x2" | "bf16x2" => (4, false),
        "s32" => (4, true),
        "b64" | "u64" | "s64" | "f64" => (8, false),
        _ => return None,
    };
    Some(Element { bytes, signed })
}

fn lanes(mods: &mut Mods) -> u8 {
    mods.pick(|part| match part {
        "v2" => Some(2),
        "v4" => Some(4),
        "v8" => Some(8),
        _ => None,
    })
    .unwrap_or(1)
}

impl Decoder<'_> {
    pub(super) fn memory(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "ld" | "ldu" => self.load(mods, operands)?,
            "st" if mods.take("async") => self.store_async(mods, operands)?,
            "st" => self.store(mods, operands)?,
            "red" if mods.take("async") => self.reduce_async(mods, operands)?,
            "atom" | "red" => self.atomic(mnemonic == "atom", mods, operands)?,
            "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                mods.pick(place);
                while mods
                    .pick(|part| {
                        matches!(
                            part,
                            "L1" | "L2" | "L1::evict_normal" | "L2::evict_normal" | "L2::evict_last"
                        )
                        .then_some(())
                    })
                    .is_some()
                {}
                mods.skip_hints();
                mods.take("128");
                mods.take("L2");
                self.emit(Inst::new(Op::Hint))?;
            }
            "createpolicy" => {
                while mods.left().is_some() {
                    mods.first();
                }
                let Some(d) = operands.first() else { return self.invalid("expected a destination") };
                let zero = self.constant64(0)?;
                let mut inst = Inst::new(Op::Mov64);
                let (class, reg) = self.destination(d, 64)?;
                inst.set(0, class, reg, true);
                inst.set(1, RegClass::R64, zero, false);
                self.emit(inst)?;
            }
            "cp" => self.copy(mods, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts an address into a slot; whether it is 64 bits wide.
    pub(super) fn address(&mut self, inst: &mut Inst, slot: usize, operand: &Operand) -> Result<bool> {
        let Operand::Address(base, offset, rest) = operand else {
            return self.invalid("expected an address");
        };
        if !rest.is_empty() {
            return self.unsupported("an address with coordinates");
        }
        inst.imm = *offset;
        self.address_register(inst, slot, base)
    }

    fn address_register(&mut self, inst: &mut Inst, slot: usize, base: &Operand) -> Result<bool> {
        let (class, reg) = match base {
            Operand::Name(name, _) => match self.names.register(name) {
                Some((class, reg, 32 | 64)) => (class, reg),
                Some((_, _, bits)) => return self.invalid(format!("an address in `{name}` of {bits} bits")),
                None => self.source(base, 64)?,
            },
            _ => self.source(base, 64)?,
        };
        inst.set(slot, class, reg, false);
        Ok(class == RegClass::R64)
    }

    /// An address that has to be right without an offset field: the offset is added first.
    pub(super) fn plain_address(&mut self, inst: &mut Inst, slot: usize, operand: &Operand) -> Result<bool> {
        let Operand::Address(base, offset, rest) = operand else {
            return self.invalid("expected an address");
        };
        if !rest.is_empty() {
            return self.unsupported("an address with coordinates");
        }
        let wide = self.address_register(inst, slot, base)?;
        if *offset != 0 {
            let (class, ty) = if wide {
                (RegClass::R64, crate::isa::Int::U64)
            } else {
                (RegClass::R32, crate::isa::Int::U32)
            };
            let sum = self.fresh(class)?;
            let offset =
                if wide { self.constant64(*offset as u64)? } else { self.constant32(*offset as u32)? };
            let mut add = Inst::new(Op::Int2(crate::isa::Int2::Add, ty));
            add.set(0, class, sum, true);
            add.set(1, class, inst.r[slot], false);
            add.set(2, class, offset, false);
            self.emit(add)?;
            inst.r[slot] = sum;
        }
        Ok(wide)
    }

    fn values<'o>(&self, operand: &'o Operand, lanes: u8) -> Result<&'o [Operand]> {
        let found = match operand {
            Operand::Vector(parts) => parts.as_slice(),
            single => std::slice::from_ref(single),
        };
        if found.len() != usize::from(lanes) {
            return self.invalid(format!("expected {lanes} values, found {}", found.len()));
        }
        Ok(found)
    }

    fn access_mods(&mut self, mods: &mut Mods) -> Result<(Element, u8, Place, Sem, bool)> {
        let word = mods.last();
        let Some(element) = element(word) else { return self.unsupported(format!("type `.{word}`")) };
        let lanes = lanes(mods);
        if u32::from(lanes) * u32::from(element.bytes) > 32 || lanes == 8 && element.bytes != 4 {
            return self.invalid(format!("a vector of {lanes} times {} bytes", element.bytes));
        }
        let sem = mods.sem().unwrap_or(Sem::WEAK);
        let place = mods.pick(place);
        mods.take("param::func");
        let hints = mods.skip_hints();
        if sem.order != Order::Weak {
            self.communicates |= matches!(place, None | Some(Place::Generic | Place::Global));
        }
        Ok((element, lanes, place.unwrap_or(Place::Generic), sem, hints.policy))
    }

    fn load(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (element, lanes, place, sem, policy) = self.access_mods(mods)?;
        let (Some(d), Some(from)) = (operands.first(), operands.get(1)) else {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        };
        if operands.len() != 2 + usize::from(policy) {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        }
        if sem.releases() {
            return self.invalid("a load that releases");
        }
        let values = self.values(d, lanes)?;
        if let Some(variable) = self.parameter_named(from) {
            return self.load_parameter(variable, from, element, values);
        }
        let mut inst = Inst::new(Op::Nop);
        let address64 = self.address(&mut inst, ADDRESS, from)?;
        let (mut wide, mut half) = (false, false);
        for (slot, value) in values.iter().enumerate() {
            let (class, reg, bits) = self.any_register(value, u32::from(element.bytes) * 8)?;
            wide |= class == RegClass::R64;
            half |= bits <= 16;
            inst.set(slot, class, reg, true);
        }
        self.same_width(&inst, values.len())?;
        inst.op = Op::Load(Access { place, element, lanes, sem, wide, half, address64 });
        self.emit(inst)
    }

    fn same_width(&self, inst: &Inst, count: usize) -> Result<()> {
        if (1..count).any(|slot| inst.class(slot) != inst.class(0)) {
            return self.invalid("values of different widths");
        }
        Ok(())
    }

    /// The parameter that an address names.
    fn parameter_named(&self, operand: &Operand) -> Option<Variable> {
        let Operand::Address(base, ..) = operand else { return None };
        let Operand::Name(name, _) = base.as_ref() else { return None };
        if self.names.register(name).is_some() {
            return None;
        }
        self.names.variable(name).filter(|v| matches!(v, Variable::Param(_) | Variable::Words(_))).cloned()
    }

    fn load_parameter(
        &mut self,
        variable: Variable,
        from: &Operand,
        element: Element,
        values: &[Operand],
    ) -> Result<()> {
        let Operand::Address(_, offset, _) = from else { return self.invalid("expected an address") };
        for (n, value) in values.iter().enumerate() {
            let at = offset.saturating_add(n as i64 * i64::from(element.bytes));
            let (class, reg, bits) = self.any_register(value, u32::from(element.bytes) * 8)?;
            match &variable {
                Variable::Param(base) => {
                    let op = Op::LoadParam { element, wide: class == RegClass::R64, half: bits <= 16 };
                    let mut inst = Inst::new(op);
                    inst.set(0, class, reg, true);
                    inst.imm = i64::from(*base).saturating_add(at);
                    if inst.imm < 0 || inst.imm > 32764 {
                        return self.invalid("an address outside the parameters");
                    }
                    self.emit(inst)?;
                }
                Variable::Words(words) => self.load_word(words, at, element, class, reg, bits)?,
                _ => return self.invalid("expected a parameter"),
            }
        }
        Ok(())
    }

    /// The words that hold `element` at byte `at`: the first, the second where it has eight bytes, and the shift.
    fn word_at(&self, words: &[u16], at: i64, element: Element) -> Result<(u16, Option<u16>, i64)> {
        let bytes = i64::from(element.bytes);
        let end = words.len() as i64 * 4;
        if at < 0 || at > end - bytes || at % bytes != 0 {
            return self.invalid(format!("{bytes} bytes at {at} of a parameter of {end}"));
        }
        let word = (at / 4) as usize;
        Ok((words[word], (bytes == 8).then(|| words[word + 1]), at % 4 * 8))
    }

    fn load_word(
        &mut self,
        words: &[u16],
        at: i64,
        element: Element,
        class: RegClass,
        reg: u16,
        bits: u32,
    ) -> Result<()> {
        let (low, high, shift) = self.word_at(words, at, element)?;
        if let Some(high) = high {
            return self.join_words(reg, low, high);
        }
        if element.bytes == 4 && class == RegClass::R32 {
            return self.copy32(reg, low);
        }
        let extends = bits > 8 * u32::from(element.bytes);
        if class == RegClass::R64 {
            return self.widen(reg, low, shift, element);
        }
        if element.signed && extends {
            return self.extract_signed(reg, low, shift, element);
        }
        let mut inst = Inst::new(Op::Extract);
        inst.set(0, RegClass::R32, reg, true);
        inst.set(1, RegClass::R32, low, false);
        inst.imm = shift | (i64::from(element.bytes) * 8) << 8;
        self.emit(inst)
    }

    /// Bytes of a word with the sign, into a register of 32 bits.
    fn extract_signed(&mut self, to: u16, word: u16, shift: i64, element: Element) -> Result<()> {
        let mut inst = Inst::new(Op::Int3(Int3::Bfe, Int::S32));
        inst.set(0, RegClass::R32, to, true);
        inst.set(1, RegClass::R32, word, false);
        let (shift, length) =
            (self.constant32(shift as u32)?, self.constant32(8 * u32::from(element.bytes))?);
        inst.set(2, RegClass::R32, shift, false);
        inst.set(3, RegClass::R32, length, false);
        self.emit(inst)
    }

    /// At most four bytes of a word, into a register of 64 bits.
    fn widen(&mut self, to: u16, word: u16, shift: i64, element: Element) -> Result<()> {
        let low = self.fresh(RegClass::R32)?;
        if element.bytes == 4 {
            self.copy32(low, word)?;
        } else if element.signed {
            self.extract_signed(low, word, shift, element)?;
        } else {
            let mut inst = Inst::new(Op::Extract);
            inst.set(0, RegClass::R32, low, true);
            inst.set(1, RegClass::R32, word, false);
            inst.imm = shift | (i64::from(element.bytes) * 8) << 8;
            self.emit(inst)?;
        }
        let high = if element.signed {
            let high = self.fresh(RegClass::R32)?;
            let mut inst = Inst::new(Op::Int2(Int2::Shr, Int::S32));
            inst.set(0, RegClass::R32, high, true);
            inst.set(1, RegClass::R32, low, false);
            let amount = self.constant32(31)?;
            inst.set(2, RegClass::R32, amount, false);
            self.emit(inst)?;
            high
        } else {
            self.constant32(0)?
        };
        self.join_words(to, low, high)
    }

    pub(super) fn join_words(&mut self, to: u16, low: u16, high: u16) -> Result<()> {
        let mut inst = Inst::new(Op::Join64);
        inst.set(0, RegClass::R64, to, true);
        inst.set(1, RegClass::R32, low, false);
        inst.set(2, RegClass::R32, high, false);
        self.emit(inst)
    }

    pub(super) fn split_words(&mut self, low: u16, high: u16, from: u16) -> Result<()> {
        let mut inst = Inst::new(Op::Split64);
        inst.set(0, RegClass::R32, low, true);
        inst.set(1, RegClass::R32, high, true);
        inst.set(2, RegClass::R64, from, false);
        self.emit(inst)
    }

    fn store(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (element, lanes, place, sem, policy) = self.access_mods(mods)?;
        let (Some(to), Some(value)) = (operands.first(), operands.get(1)) else {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        };
        if operands.len() != 2 + usize::from(policy) {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        }
        if sem.acquires() {
            return self.invalid("a store that acquires");
        }
        if place == Place::Const {
            return self.invalid("a store to constant memory");
        }
        let values = self.values(value, lanes)?;
        match self.parameter_named(to) {
            Some(Variable::Words(words)) => return self.store_parameter(&words, to, element, values),
            Some(_) => return self.invalid("a store to a kernel's parameter"),
            None => {}
        }
        let mut inst = Inst::new(Op::Nop);
        let address64 = self.address(&mut inst, ADDRESS, to)?;
        let (mut wide, mut half) = (false, false);
        for (slot, value) in values.iter().enumerate() {
            let (class, reg, bits) = self.any_register(value, u32::from(element.bytes) * 8)?;
            wide |= class == RegClass::R64;
            half |= bits <= 16;
            inst.set(slot, class, reg, false);
        }
        self.same_width(&inst, values.len())?;
        inst.op = Op::Store(Access { place, element, lanes, sem, wide, half, address64 });
        self.emit(inst)
    }

    fn store_parameter(
        &mut self,
        words: &[u16],
        to: &Operand,
        element: Element,
        values: &[Operand],
    ) -> Result<()> {
        let Operand::Address(_, offset, _) = to else { return self.invalid("expected an address") };
        for (n, value) in values.iter().enumerate() {
            let at = offset.saturating_add(n as i64 * i64::from(element.bytes));
            let (low, high, shift) = self.word_at(words, at, element)?;
            let (class, reg, _) = self.any_register(value, u32::from(element.bytes) * 8)?;
            if let Some(high) = high {
                self.split_words(low, high, reg)?;
            } else if class == RegClass::R64 {
                return self.unsupported("a parameter narrower than its register");
            } else if element.bytes == 4 {
                self.copy32(low, reg)?;
            } else {
                let mut inst = Inst::new(Op::Insert);
                inst.set(0, RegClass::R32, low, true);
                inst.set(1, RegClass::R32, low, false);
                inst.set(2, RegClass::R32, reg, false);
                inst.imm = shift | (i64::from(element.bytes) * 8) << 8;
                self.emit(inst)?;
            }
        }
        Ok(())
    }

    fn atomic(&mut self, returns: bool, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let word = mods.last();
        let op = mods.pick(atom_op);
        let Some(op) = op else { return self.unsupported("operation") };
        let Some(ty) = atom_type(word, op, mods) else { return self.unsupported(format!("type `.{word}`")) };
        mods.take("noftz");
        let sem = mods.sem();
        let scope = mods.scope();
        // The scope stands beside the order or, in older code, without one.
        let sem = sem.unwrap_or(Sem { order: Order::Relaxed, scope: scope.unwrap_or(Scope::Gpu) });
        let place = mods.pick(place);
        let place = place.unwrap_or(Place::Generic);
        let hints = mods.skip_hints();
        self.communicates |= matches!(place, Place::Generic | Place::Global);
        let count = operands.len() - usize::from(hints.policy).min(operands.len());
        let wanted = 2 + usize::from(returns) + usize::from(op == AtomOp::Cas);
        if count != wanted {
            return self.invalid(format!("expected {wanted} operands, found {count}"));
        }
        let bits = u32::from(ty.bytes()) * 8;
        let at = usize::from(returns);
        let mut inst = Inst::new(Op::Nop);
        let address64 = self.address(&mut inst, 1, &operands[at])?;
        for (slot, operand) in operands[at + 1..count].iter().enumerate() {
            let (class, reg) = self.source(operand, bits)?;
            inst.set(slot + 2, class, reg, false);
        }
        if returns {
            let (class, reg) = self.destination(&operands[0], bits)?;
            inst.set(0, class, reg, true);
        }
        inst.op = Op::Atom(Atom { op, ty, place, sem, address64, returns });
        self.emit(inst)
    }

    /// `st.async{.weak}.shared::cluster.mbarrier::complete_tx::bytes{.v2,.v4}.type [a], b, [mbar]`
    fn store_async(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let word = mods.last();
        let Some(element) = element(word).filter(|element| element.bytes >= 4) else {
            return self.invalid(format!("type `.{word}`"));
        };
        let lanes = lanes(mods);
        if lanes > 4 {
            return self.invalid(format!("a vector of {lanes}"));
        }
        mods.take("weak");
        if !mods.take("shared::cluster") || !mods.take("mbarrier::complete_tx::bytes") {
            return self.unsupported("a form that does not complete on an mbarrier of the cluster");
        }
        let [to, value, mbar] = operands else { return self.invalid("expected 3 operands") };
        let mut inst = Inst::new(Op::Nop);
        let to64 = self.plain_address(&mut inst, 0, to)?;
        let mbar64 = self.plain_address(&mut inst, ADDRESS, mbar)?;
        let values = self.values(value, lanes)?;
        for (slot, value) in values.iter().enumerate() {
            let (class, reg) = self.source(value, u32::from(element.bytes) * 8)?;
            inst.set(slot + 1, class, reg, false);
        }
        inst.op = Op::StAsync { element, lanes, wide: element.bytes == 8, to64, mbar64 };
        self.emit(inst)
    }

    fn reduce_async(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let word = mods.last();
        let Some(op) = mods.pick(atom_op) else { return self.unsupported("operation") };
        let Some(ty) = atom_type(word, op, mods) else { return self.unsupported(format!("type `.{word}`")) };
        mods.sem();
        if !mods.take("shared::cluster") || !mods.take("mbarrier::complete_tx::bytes") {
            return self.unsupported("a form that does not complete on an mbarrier of the cluster");
        }
        let [to, value, mbar] = operands else { return self.invalid("expected 3 operands") };
        let mut inst = Inst::new(Op::Nop);
        let to64 = self.plain_address(&mut inst, 0, to)?;
        let mbar64 = self.plain_address(&mut inst, ADDRESS, mbar)?;
        let (class, reg) = self.source(value, u32::from(ty.bytes()) * 8)?;
        inst.set(1, class, reg, false);
        inst.op = Op::RedAsync { op, ty, to64, mbar64 };
        self.emit(inst)
    }

    fn copy(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if !mods.take("async") {
            return self.unsupported("form");
        }
        if mods.take("bulk") {
            return self.bulk(mods, operands);
        }
        if mods.take("commit_group") {
            return self.emit(Inst::new(Op::CpAsyncCommit));
        }
        if mods.take("wait_all") {
            let mut inst = Inst::new(Op::CpAsyncWait);
            inst.imm = -1;
            return self.emit(inst);
        }
        if mods.take("wait_group") {
            return self.group_wait(Op::CpAsyncWait, operands);
        }
        if mods.take("mbarrier") {
            if !mods.take("arrive") {
                return self.unsupported("form");
            }
            let noinc = mods.take("noinc");
            mods.take("b64");
            let generic = !(mods.take("shared") | mods.take("shared::cta"));
            let [mbar] = operands else { return self.invalid("expected 1 operand") };
            let mut inst = Inst::new(Op::Nop);
            let address64 = self.plain_address(&mut inst, 0, mbar)?;
            let sem = Sem { order: Order::Release, scope: Scope::Cta };
            inst.op = Op::CpAsyncArrive { noinc, sem: MbarSem { sem, address64, generic, remote: false } };
            return self.emit(inst);
        }
        self.copy_async(mods, operands)
    }

    pub(super) fn group_wait(&mut self, op: Op, operands: &[Operand]) -> Result<()> {
        let [Operand::Int(count)] = operands else { return self.invalid("expected a number of groups") };
        let mut inst = Inst::new(op);
        match i64::try_from(*count) {
            Ok(count @ 0..=1_000_000) => inst.imm = count,
            _ => return self.invalid(format!("{count} groups")),
        }
        self.emit(inst)
    }

    /// `cp.async.{ca,cg}.shared.global [to], [from], 16 {, bytes to read}`
    fn copy_async(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (ca, cg) = (mods.take("ca"), mods.take("cg"));
        if ca == cg || !(mods.take("shared") | mods.take("shared::cta")) || !mods.take("global") {
            return self.unsupported("form");
        }
        let hints = mods.skip_hints();
        let count = operands.len() - usize::from(hints.policy).min(operands.len());
        let (Some(to), Some(from), Some(Operand::Int(bytes))) =
            (operands.first(), operands.get(1), operands.get(2))
        else {
            return self.invalid("expected two addresses and a number of bytes");
        };
        let bytes = match (*bytes, cg) {
            (16, _) => 16,
            (4, false) => 4,
            (8, false) => 8,
            _ => return self.invalid(format!("a copy of {bytes} bytes")),
        };
        let mut inst = Inst::new(Op::Nop);
        let to64 = self.plain_address(&mut inst, 0, to)?;
        let from64 = self.plain_address(&mut inst, 1, from)?;
        let partial = count == 4;
        if partial {
            if matches!(&operands[3], Operand::Name(name, _) if matches!(self.names.register(name), Some((RegClass::Pred, ..))))
            {
                return self.unsupported("`ignore-src`");
            }
            let (class, reg) = self.source(&operands[3], 32)?;
            inst.set(2, class, reg, false);
        } else if count != 3 {
            return self.invalid(format!("expected 3 or 4 operands, found {count}"));
        }
        inst.op = Op::CpAsync { bytes, to64, from64, partial };
        self.emit(inst)
    }

    fn bulk(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if mods.take("commit_group") {
            return self.emit(Inst::new(Op::BulkCommit));
        }
        if mods.take("wait_group") {
            let read = mods.take("read");
            return self.group_wait(Op::BulkWait { read }, operands);
        }
        if mods.take("prefetch") || mods.take("tensor") || mods.take("reduce") {
            return self.unsupported("form");
        }
        let (to, from) = (mods.first(), mods.first());
        let multicast = mods.take("multicast::cluster");
        let (mbar_completes, grouped) = (mods.take("mbarrier::complete_tx::bytes"), mods.take("bulk_group"));
        let hints = mods.skip_hints();
        let kind = match (to, from, mbar_completes, grouped) {
            ("shared::cluster", "global", true, false) => BulkKind::GlobalToShared { multicast, own: false },
            ("shared::cta", "global", true, false) if !multicast => {
                BulkKind::GlobalToShared { multicast, own: true }
            }
            ("shared::cluster", "shared::cta", true, false) if !multicast => BulkKind::SharedToCluster,
            ("global", "shared::cta", false, true) if !multicast => BulkKind::SharedToGlobal,
            _ => return self.unsupported("form"),
        };
        let mbar = usize::from(mbar_completes);
        let wanted = 3 + mbar + usize::from(multicast) + usize::from(hints.policy);
        if operands.len() != wanted {
            return self.invalid(format!("expected {wanted} operands, found {}", operands.len()));
        }
        let mut inst = Inst::new(Op::Nop);
        let to64 = self.plain_address(&mut inst, 0, &operands[0])?;
        let from64 = self.plain_address(&mut inst, 1, &operands[1])?;
        let (class, reg) = self.source(&operands[2], 32)?;
        inst.set(2, class, reg, false);
        let mbar64 = mbar_completes && self.plain_address(&mut inst, 3, &operands[3])?;
        if multicast {
            let (class, reg) = self.source(&operands[4], 16)?;
            inst.set(4, class, reg, false);
        }
        inst.op = Op::Bulk(Bulk { kind, to64, from64, mbar64 });
        self.emit(inst)
    }
}

fn atom_op(word: &str) -> Option<AtomOp> {
    Some(match word {
        "add" => AtomOp::Add,
        "min" => AtomOp::Min,
        "max" => AtomOp::Max,
        "inc" => AtomOp::Inc,
        "dec" => AtomOp::Dec,
        "and" => AtomOp::And,
        "or" => AtomOp::Or,
        "xor" => AtomOp::Xor,
        "exch" => AtomOp::Exch,
        "cas" => AtomOp::Cas,
        _ => return None,
    })
}

/// The type, where the operation exists for it.
fn atom_type(word: &str, op: AtomOp, mods: &mut Mods) -> Option<AtomType> {
    let bitwise = matches!(op, AtomOp::And | AtomOp::Or | AtomOp::Xor | AtomOp::Exch | AtomOp::Cas);
    let ordered = matches!(op, AtomOp::Add | AtomOp::Min | AtomOp::Max);
    Some(match word {
        "b16" if op == AtomOp::Cas => AtomType::B16,
        "b32" if bitwise => AtomType::U32,
        "b64" if bitwise => AtomType::U64,
        "u32" if !bitwise => AtomType::U32,
        "s32" if ordered => AtomType::S32,
        "u64" if ordered => AtomType::U64,
        "s64" if ordered => AtomType::S64,
        "f32" if op == AtomOp::Add => AtomType::F32 { ftz: mods.take("ftz") },
        "f64" if op == AtomOp::Add => AtomType::F64,
        _ if ordered => match half_type(word)? {
            (half, true) => AtomType::Half2(half),
            (HalfType::F16, false) => AtomType::Half(HalfType::F16),
            (HalfType::Bf16, false) => AtomType::Half(HalfType::Bf16),
        },
        _ => return None,
    })
}
