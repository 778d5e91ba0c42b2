//! Tensor-core products and the loads of their fragments. All lanes of a warp take part.
//!
//! Matrix loads read, and matrix stores write, on behalf of the lane whose address names the row.

use crate::finding::Kind;
use crate::isa::{HalfType, Inst, Mma, Op, Place};
use crate::num::int::Sign;
use crate::num::mma::{self, TensorCore};

use super::Machine;
use super::regs::{LANES, Row, Row64, lanes};
use super::step::{Flow, Running};

impl Machine<'_> {
    pub(super) fn tensor(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        if run.active != u32::MAX {
            if run.warp.live != u32::MAX {
                let message = format!("only lanes {:#010x} of the warp exist", run.warp.live);
                self.fault(Kind::Misuse, run.pc, run.first(), message);
                return Flow::Changed;
            }
            let inside = run.warp.groups[run.group].mask;
            if inside == u32::MAX {
                let message = format!("lanes {:#010x} do not execute it, their guard is false", !run.active);
                self.fault(Kind::Misuse, run.pc, run.first(), message);
                return Flow::Changed;
            }
            return super::exchange::wait_for(run, u32::MAX);
        }
        match inst.op {
            Op::LdMatrix { count, trans, address64 } => {
                self.load_matrix(inst, usize::from(count), trans, address64, run)
            }
            Op::StMatrix { count, trans, address64 } => {
                self.store_matrix(inst, usize::from(count), trans, address64, run)
            }
            Op::MovMatrix => {
                let a = run.regs().a(inst, 1);
                let d = mma::movmatrix_trans(&a);
                run.regs().write(inst.r[0], |l| d[l]);
                Flow::Next
            }
            Op::Mma(kind) => {
                product(kind, self.launch.tensor_core, inst, run);
                Flow::Next
            }
            Op::Wgmma => self.wgmma(inst, run),
            Op::WgmmaFence | Op::WgmmaCommit | Op::WgmmaWait => self.wgmma_order(inst, run),
            _ => Flow::Next,
        }
    }

    /// Lanes 8 m to 8 m + 7 hold the addresses of the rows of matrix m.
    fn load_matrix(
        &mut self,
        inst: &Inst,
        count: usize,
        trans: bool,
        wide: bool,
        run: &mut Running<'_>,
    ) -> Flow {
        let address = Self::addresses(run, inst, 8, wide, 0);
        let holders = u32::MAX >> (LANES - 8 * count);
        let found = match self.load_rows(&address, holders, run) {
            Some(found) => found,
            None => match self.load_each_row(&address, holders, run) {
                Some(found) => found,
                None => return Flow::Changed,
            },
        };
        let mut rows = [[[0u16; 8]; 8]; 4];
        for (lane, words) in found.iter().enumerate().take(8 * count) {
            for (n, word) in words.iter().enumerate() {
                rows[lane / 8][lane % 8][2 * n] = *word as u16;
                rows[lane / 8][lane % 8][2 * n + 1] = (*word >> 16) as u16;
            }
        }
        for (matrix, rows) in rows.iter().enumerate().take(count) {
            let register = mma::distribute_8x8(rows, trans);
            run.regs().write(inst.r[matrix], |l| register[l]);
        }
        Flow::Next
    }

    /// The rows of matrices, one by one; none after a fault.
    fn load_each_row(
        &mut self,
        address: &Row64,
        holders: u32,
        run: &Running<'_>,
    ) -> Option<[[u32; 4]; LANES]> {
        let mut found = [[0; 4]; LANES];
        for lane in lanes(holders) {
            let spot = self.resolve(Place::Shared, address[lane], 16, 16, run, lane)?;
            if self.launch.checks {
                self.check_read(spot, 16, None, run, lane, false);
            }
            for (n, word) in found[lane].iter_mut().enumerate() {
                *word = self.read_element(spot, 4 * n as u32, 4, run, lane) as u32;
            }
        }
        Some(found)
    }

    fn store_matrix(
        &mut self,
        inst: &Inst,
        count: usize,
        trans: bool,
        wide: bool,
        run: &mut Running<'_>,
    ) -> Flow {
        let address = Self::addresses(run, inst, 8, wide, 0);
        self.events += 1;
        for matrix in 0..count {
            let register = run.regs().a(inst, matrix);
            let rows = mma::collect_8x8(&register, trans);
            for (row, values) in rows.iter().enumerate() {
                let lane = 8 * matrix + row;
                let Some(spot) = self.resolve(Place::Shared, address[lane], 16, 16, run, lane) else {
                    return Flow::Changed;
                };
                if self.launch.checks {
                    self.check_write(spot, 16, None, run, lane);
                } else {
                    self.mark_written(spot, 16);
                }
                for n in 0..4 {
                    let word = u64::from(values[2 * n]) | u64::from(values[2 * n + 1]) << 16;
                    self.write_element(spot, 4 * n as u32, 4, word, run, lane);
                }
            }
        }
        Flow::Next
    }
}

/// `N` consecutive registers from a slot on.
fn rows<const N: usize>(inst: &Inst, run: &mut Running<'_>, slot: usize) -> [Row; N] {
    let regs = run.regs();
    std::array::from_fn(|n| regs.a(inst, slot + n))
}

fn product(kind: Mma, unit: TensorCore, inst: &Inst, run: &mut Running<'_>) {
    // Registers: d, a, b, c. The numbers say how many of each.
    macro_rules! run {
        ($d:literal, $a:literal, $b:literal, $c:literal, $product:expr, unit) => {
            run!($d, $a, $b, $c, |a: &_, b: &_, c: &_| $product(unit, a, b, c))
        };
        ($d:literal, $a:literal, $b:literal, $c:literal, $product:expr) => {{
            let (a, b, c) = (
                rows::<$a>(inst, run, $d),
                rows::<$b>(inst, run, $d + $a),
                rows::<$c>(inst, run, $d + $a + $b),
            );
            let d: [Row; $d] = $product(&a, &b, &c);
            for (n, row) in d.iter().enumerate() {
                run.regs().write(inst.r[n], |l| row[l]);
            }
        }};
    }
    let sign = |signed: bool| if signed { Sign::Signed } else { Sign::Unsigned };
    match kind {
        Mma::K8(HalfType::F16) => run!(4, 2, 1, 4, mma::m16n8k8_f16, unit),
        Mma::K8(HalfType::Bf16) => run!(4, 2, 1, 4, mma::m16n8k8_bf16, unit),
        Mma::K16(HalfType::F16) => run!(4, 4, 2, 4, mma::m16n8k16_f16, unit),
        Mma::K16(HalfType::Bf16) => run!(4, 4, 2, 4, mma::m16n8k16_bf16, unit),
        Mma::K8Half => run!(2, 2, 1, 2, mma::m16n8k8_f16_f16, unit),
        Mma::K16Half => run!(2, 4, 2, 2, mma::m16n8k16_f16_f16, unit),
        Mma::K4Tf32 => run!(4, 2, 1, 4, mma::m16n8k4_tf32, unit),
        Mma::K8Tf32 => run!(4, 4, 2, 4, mma::m16n8k8_tf32, unit),
        Mma::K16Int(a, b, s) => {
            run!(4, 2, 1, 4, |x: &_, y: &_, z: &_| mma::m16n8k16_i8(x, y, z, sign(a), sign(b), s))
        }
        Mma::K32Int(a, b, s) => {
            run!(4, 4, 2, 4, |x: &_, y: &_, z: &_| mma::m16n8k32_i8(x, y, z, sign(a), sign(b), s))
        }
        Mma::M8K16Int(a, b, s) => {
            run!(2, 1, 1, 2, |x: &_, y: &_, z: &_| mma::m8n8k16_i8(x, y, z, sign(a), sign(b), s))
        }
        Mma::F64 => {
            let regs = run.regs();
            let (a, b): (Row64, Row64) = (regs.a64(inst, 2), regs.a64(inst, 3));
            let d = mma::m8n8k4_f64(&a, &b, &[regs.a64(inst, 4), regs.a64(inst, 5)]);
            for (n, row) in d.iter().enumerate() {
                run.regs().write64(inst.r[n], |l| row[l]);
            }
        }
    }
}
