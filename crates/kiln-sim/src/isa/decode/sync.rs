//! Barriers, warp-wide exchanges, fences and mbarriers.

use crate::isa::{
    Bar, BarKind, Inst, MbarOp, MbarSem, Op, Order, Redux, RegClass, Scope, Sem, Shuffle, Vote,
};
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn sync(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "bar" if mods.take("warp") => {
                mods.take("sync");
                self.masked(Op::WarpSync, operands)?;
            }
            "barrier" if mods.take("cluster") => self.cluster_barrier(mods)?,
            "bar" | "barrier" => self.barrier(mnemonic == "bar", mods, operands)?,
            "shfl" => self.shuffle(mods, operands)?,
            "vote" => self.vote(mods, operands)?,
            "match" => self.matching(mods, operands)?,
            "redux" => self.redux(mods, operands)?,
            "activemask" => {
                mods.take("b32");
                self.simple(Op::ActiveMask, 32, &[], operands)?;
            }
            "elect" => self.elect(mods, operands)?,
            "membar" => {
                let scope = mods.pick(|part| match part {
                    "cta" => Some(Scope::Cta),
                    "gl" | "sys" => Some(Scope::Gpu),
                    _ => None,
                });
                let Some(scope) = scope else { return self.invalid("expected `.cta`, `.gl` or `.sys`") };
                self.emit(Inst::new(Op::Fence(Sem { order: Order::AcqRel, scope })))?;
            }
            "fence" => self.fence(mods)?,
            "mbarrier" => self.mbarrier(mods, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An instruction whose only operand is a mask of lanes.
    fn masked(&mut self, op: Op, operands: &[Operand]) -> Result<()> {
        let [mask] = operands else { return self.invalid("expected a mask") };
        let mut inst = Inst::new(op);
        let (class, reg) = self.source(mask, 32)?;
        inst.set(0, class, reg, false);
        self.emit(inst)
    }

    fn cluster_barrier(&mut self, mods: &mut Mods) -> Result<()> {
        let arrive = mods.take("arrive");
        if !arrive && !mods.take("wait") {
            return self.invalid("expected `.arrive` or `.wait`");
        }
        let aligned = mods.take("aligned");
        let op = if arrive {
            mods.take("release");
            Op::ClusterArrive { release: !mods.take("relaxed"), aligned }
        } else {
            mods.take("acquire");
            Op::ClusterWait { acquire: !mods.take("relaxed"), aligned }
        };
        self.emit(Inst::new(op))
    }

    fn barrier(&mut self, bar: bool, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        mods.take("cta");
        let aligned = mods.take("aligned") || bar;
        let kind = if mods.take("sync") {
            BarKind::Sync
        } else if mods.take("arrive") {
            BarKind::Arrive
        } else if mods.take("red") {
            mods.take("pred");
            mods.take("u32");
            match (mods.take("popc"), mods.take("and"), mods.take("or")) {
                (true, ..) => BarKind::RedPopc,
                (_, true, _) => BarKind::RedAnd,
                (_, _, true) => BarKind::RedOr,
                _ => return self.invalid("expected `.popc`, `.and` or `.or`"),
            }
        } else {
            return self.invalid("expected `.sync`, `.arrive` or `.red`");
        };
        let reduces = matches!(kind, BarKind::RedPopc | BarKind::RedAnd | BarKind::RedOr);
        let mut inst = Inst::new(Op::Nop);
        let mut rest = operands;
        let mut negated = false;
        if reduces {
            let ([d, middle @ ..], Some(p)) = (operands, operands.last()) else {
                return self.invalid("expected a destination");
            };
            let (p, not) = self.signed_predicate(p)?;
            negated = not;
            inst.set(4, RegClass::Pred, p, false);
            if kind == BarKind::RedPopc {
                let (class, reg) = self.destination(d, 32)?;
                inst.set(3, class, reg, true);
            } else {
                let d = self.predicate(d)?;
                inst.set(3, RegClass::Pred, d, true);
            }
            rest = middle.get(..middle.len().saturating_sub(1)).unwrap_or(&[]);
        }
        if rest.is_empty() || rest.len() > 2 {
            return self.invalid("expected a barrier and perhaps a number of threads");
        }
        if kind == BarKind::Arrive && rest.len() != 2 {
            return self.invalid("expected a number of threads");
        }
        for (slot, operand) in rest.iter().enumerate() {
            let (class, reg) = self.source(operand, 32)?;
            inst.set(slot, class, reg, false);
        }
        inst.op = Op::Bar(Bar { kind, aligned, counted: rest.len() == 2, negated });
        self.emit(inst)
    }

    fn shuffle(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if !mods.take("sync") {
            return self.unsupported("a shuffle without `.sync`");
        }
        mods.take("b32");
        let mode = mods.pick(|part| match part {
            "up" => Some(Shuffle::Up),
            "down" => Some(Shuffle::Down),
            "bfly" => Some(Shuffle::Butterfly),
            "idx" => Some(Shuffle::Index),
            _ => None,
        });
        let Some(mode) = mode else { return self.invalid("expected `.up`, `.down`, `.bfly` or `.idx`") };
        let [d, sources @ ..] = operands else { return self.invalid("expected 5 operands") };
        if sources.len() != 4 {
            return self.invalid(format!("expected 5 operands, found {}", operands.len()));
        }
        let (d, p) = match d {
            Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
            d => (d, None),
        };
        let mut inst = Inst::new(Op::Shfl { mode, valid: p.is_some() });
        for (slot, operand) in sources.iter().enumerate() {
            let (class, reg) = self.source(operand, 32)?;
            inst.set(slot + 2, class, reg, false);
        }
        let (class, reg) = self.destination(d, 32)?;
        inst.set(0, class, reg, true);
        if let Some(p) = p {
            let p = self.predicate(p)?;
            inst.set(1, RegClass::Pred, p, true);
        }
        self.emit(inst)
    }

    fn vote(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if !mods.take("sync") {
            return self.unsupported("a vote without `.sync`");
        }
        mods.last();
        let kind = mods.pick(|part| match part {
            "all" => Some(Vote::All),
            "any" => Some(Vote::Any),
            "uni" => Some(Vote::Uniform),
            "ballot" => Some(Vote::Ballot),
            _ => None,
        });
        let Some(kind) = kind else { return self.invalid("expected `.all`, `.any`, `.uni` or `.ballot`") };
        let [d, a, mask] = operands else { return self.invalid("expected 3 operands") };
        let (a, negated) = self.signed_predicate(a)?;
        let mut inst = Inst::new(Op::Vote { kind, negated });
        inst.set(1, RegClass::Pred, a, false);
        let (class, reg) = self.source(mask, 32)?;
        inst.set(2, class, reg, false);
        if kind == Vote::Ballot {
            let (class, reg) = self.destination(d, 32)?;
            inst.set(0, class, reg, true);
        } else {
            let d = self.predicate(d)?;
            inst.set(0, RegClass::Pred, d, true);
        }
        self.emit(inst)
    }

    fn matching(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        mods.take("sync");
        let bits = if mods.last() == "b64" { 64 } else { 32 };
        let all = mods.take("all");
        if !all && !mods.take("any") {
            return self.invalid("expected `.all` or `.any`");
        }
        let [d, a, mask] = operands else { return self.invalid("expected 3 operands") };
        let wide = bits == 64;
        let (d, p) = match d {
            Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
            d => (d, None),
        };
        let mut inst =
            Inst::new(if all { Op::MatchAll { wide, valid: p.is_some() } } else { Op::MatchAny { wide } });
        let (class, reg) = self.source(a, bits)?;
        inst.set(2, class, reg, false);
        let (class, reg) = self.source(mask, 32)?;
        inst.set(3, class, reg, false);
        let (class, reg) = self.destination(d, 32)?;
        inst.set(0, class, reg, true);
        match (p, all) {
            (Some(p), true) => {
                let p = self.predicate(p)?;
                inst.set(1, RegClass::Pred, p, true);
            }
            (Some(_), false) => return self.invalid("a predicate with `.any`"),
            _ => {}
        }
        self.emit(inst)
    }

    fn redux(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if !mods.take("sync") {
            return self.invalid("expected `.sync`");
        }
        let (ty, op) = (mods.last(), mods.last());
        let op = match (op, ty) {
            ("add", "u32" | "s32") => Redux::Add,
            ("min", "u32") => Redux::MinU,
            ("min", "s32") => Redux::MinS,
            ("max", "u32") => Redux::MaxU,
            ("max", "s32") => Redux::MaxS,
            ("and", "b32") => Redux::And,
            ("or", "b32") => Redux::Or,
            ("xor", "b32") => Redux::Xor,
            _ => return self.unsupported("operation"),
        };
        self.simple(Op::Redux(op), 32, &[32, 32], operands)
    }

    fn elect(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if !mods.take("sync") {
            return self.invalid("expected `.sync`");
        }
        let [Operand::Pair(d, p), mask] = operands else { return self.invalid("expected `d|p, mask`") };
        let mut inst = Inst::new(Op::Elect);
        let (class, reg) = self.source(mask, 32)?;
        inst.set(2, class, reg, false);
        let (class, reg) = self.destination(d, 32)?;
        inst.set(0, class, reg, true);
        let p = self.predicate(p)?;
        inst.set(1, RegClass::Pred, p, true);
        self.emit(inst)
    }

    fn fence(&mut self, mods: &mut Mods) -> Result<()> {
        if mods.take("mbarrier_init") {
            mods.take("release");
            mods.take("cluster");
            return self.emit(Inst::new(Op::FenceMbarInit));
        }
        if mods.take("proxy") {
            let (shared, global) = if mods.take("async") {
                let space = mods.pick(|part| match part {
                    "global" => Some((false, true)),
                    "shared::cta" | "shared::cluster" => Some((true, false)),
                    _ => None,
                });
                space.unwrap_or((true, true))
            } else if mods.take("alias") {
                (false, false)
            } else {
                return self.unsupported("proxy");
            };
            return self.emit(Inst::new(Op::FenceProxy { shared, global }));
        }
        let sem = mods.sem();
        let scope = mods.scope();
        let sem = match (sem, scope) {
            (Some(sem), _) if sem.order != Order::Weak && sem.order != Order::Relaxed => sem,
            (None, Some(scope)) => Sem { order: Order::AcqRel, scope },
            _ => return self.invalid("expected an order and a scope"),
        };
        self.emit(Inst::new(Op::Fence(sem)))
    }

    fn mbarrier(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        mods.take("b64");
        let kind = mods.first();
        let expect = mods.take("expect_tx");
        let complete = !mods.take("noComplete");
        let parity = mods.take("parity");
        let remote = mods.take("shared::cluster");
        let generic = !(remote | mods.take("shared") | mods.take("shared::cta"));
        let default = match kind {
            "arrive" | "arrive_drop" => Order::Release,
            "test_wait" | "try_wait" => Order::Acquire,
            _ => Order::Relaxed,
        };
        let sem = mods.sem().unwrap_or(Sem { order: default, scope: Scope::Cta });
        let (op, d, address, value) = match (kind, operands) {
            ("init", [address, count]) => (MbarOp::Init, None, address, Some((count, 32))),
            ("inval", [address]) => (MbarOp::Inval, None, address, None),
            ("expect_tx", [address, bytes]) => (MbarOp::ExpectTx, None, address, Some((bytes, 32))),
            ("complete_tx", [address, bytes]) => (MbarOp::CompleteTx, None, address, Some((bytes, 32))),
            ("arrive" | "arrive_drop", [d, address @ Operand::Address(..), rest @ ..]) if rest.len() < 2 => {
                let op = MbarOp::Arrive {
                    drop: kind == "arrive_drop",
                    expect,
                    state: *d != Operand::Sink,
                    complete,
                };
                (op, Some(d), address, rest.first().map(|count| (count, 32)))
            }
            ("test_wait" | "try_wait", [d, address, value, rest @ ..]) if rest.len() < 2 => {
                let op = MbarOp::Test { parity, may_wait: kind == "try_wait" };
                (op, Some(d), address, Some((value, if parity { 32 } else { 64 })))
            }
            ("pending_count", [d, state]) => {
                return self.simple(
                    Op::Mbar(MbarOp::PendingCount, MbarSem { sem, address64: false, generic, remote }),
                    32,
                    &[64],
                    &[d.clone(), state.clone()],
                );
            }
            _ => return self.unsupported("form"),
        };
        self.emit_mbarrier(op, MbarSem { sem, address64: false, generic, remote }, d, address, value)
    }

    fn emit_mbarrier(
        &mut self,
        op: MbarOp,
        mut sem: MbarSem,
        d: Option<&Operand>,
        address: &Operand,
        value: Option<(&Operand, u32)>,
    ) -> Result<()> {
        let mut inst = Inst::new(Op::Nop);
        sem.address64 = self.plain_address(&mut inst, 1, address)?;
        match value {
            Some((value, bits)) => {
                let (class, reg) = self.source(value, bits)?;
                inst.set(2, class, reg, false);
            }
            None => {
                let one = self.constant32(1)?;
                inst.set(2, RegClass::R32, one, false);
            }
        }
        match (op, d) {
            (MbarOp::Test { .. }, Some(d)) => {
                let p = self.predicate(d)?;
                inst.set(0, RegClass::Pred, p, true);
            }
            (MbarOp::Arrive { state: true, .. }, Some(d)) => {
                let (class, reg) = self.destination(d, 64)?;
                inst.set(0, class, reg, true);
            }
            _ => {}
        }
        inst.op = Op::Mbar(op, sem);
        self.emit(inst)
    }
}
