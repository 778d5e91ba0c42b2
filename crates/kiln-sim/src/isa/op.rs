//! Mnemonics with their modifiers.

use crate::num::Round;
pub(crate) use crate::num::int::Permute;

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl Int {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Int::U16 | Int::S16 => 16,
            Int::U32 | Int::S32 => 32,
            Int::U64 | Int::S64 => 64,
        }
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Int::S16 | Int::S32 | Int::S64)
    }
}

/// Operations on two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int2 {
    Add,
    Sub,
    /// The low half of the product.
    Mul,
    /// The high half of the product.
    MulHi,
    Min,
    Max,
    Div,
    Rem,
    And,
    Or,
    Xor,
    /// Shift amounts beyond the width give zero, or the sign.
    Shl,
    Shr,
    /// `.sat`, s32 only.
    AddSat,
    SubSat,
}

/// Operations on one integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int1 {
    Neg,
    Abs,
    Not,
    /// 1 for 0, else 0.
    Cnot,
    Popc,
    Clz,
    Brev,
    Bfind,
    BfindShift,
}

/// Operations on three or four integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int3 {
    /// Low half of a product, plus a third.
    Mad,
    MadHi,
    Sad,
    Bfe,
    /// Four operands: insert, into, position, length.
    Bfi,
}

/// Comparisons; those that end in `U` are true if an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

/// A type that `setp`, `set` and `slct` compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmpType {
    Int(Int),
    F16(HalfType),
    F16x2(HalfType),
    F32 { ftz: bool },
    F64,
}

/// How `setp` and `set` combine a comparison with a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// What `set` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetType {
    /// All ones or zero.
    Mask32,
    Mask16,
    /// 1.0 or 0.0.
    F32,
    Half(HalfType),
    Half2(HalfType),
}

/// The two 16-bit floating-point formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfType {
    F16,
    Bf16,
}

/// Rounding and flushing of an arithmetic instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) round: Round,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
}

impl Mode {
    /// Whether plain IEEE arithmetic does it.
    pub(crate) fn is_plain(self) -> bool {
        self.round == Round::Nearest && !self.ftz && !self.sat
    }
}

/// Floating-point operations on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float2 {
    Add,
    Sub,
    Mul,
    Div,
    /// `div.approx` and `div.full`.
    DivApprox,
    DivFull,
    Min {
        nan: bool,
        xorsign: bool,
    },
    Max {
        nan: bool,
        xorsign: bool,
    },
    CopySign,
}

/// Floating-point operations on one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float1 {
    Neg,
    Abs,
    Sqrt,
    Rcp,
    SqrtApprox,
    RcpApprox,
    RsqrtApprox,
    Sin,
    Cos,
    Ex2,
    Lg2,
    Tanh,
}

/// Operations on 16-bit floating-point numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Add,
    Sub,
    Mul,
    /// Three operands.
    Fma,
    Neg,
    Abs,
    Min {
        nan: bool,
        xorsign: bool,
    },
    Max {
        nan: bool,
        xorsign: bool,
    },
    Tanh,
    Ex2,
}

/// Flushing and clamping of a 16-bit operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfMode {
    pub(crate) ty: HalfType,
    /// Two numbers in one register.
    pub(crate) packed: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
}

/// Classes of `testp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// A side of a `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CvtType {
    U8,
    S8,
    Int(Int),
    Half(HalfType),
    F32,
    F64,
    /// Low 13 bits zero.
    Tf32,
}

/// Modifiers of a `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cvt {
    pub(crate) to: CvtType,
    pub(crate) from: CvtType,
    pub(crate) round: Round,
    /// Float to float of one size: round to an integral value.
    pub(crate) integral: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) satfinite: bool,
    pub(crate) relu: bool,
}

/// Two numbers converted into one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CvtPair {
    /// Two f32 to f16x2 or bf16x2; the first operand goes to the upper half.
    Half { ty: HalfType, round: Round, relu: bool, satfinite: bool },
    /// Two f32 to e4m3x2 (or e5m2x2).
    Eight { e4m3: bool, relu: bool },
    /// f16x2 to e4m3x2 (or e5m2x2).
    EightFromHalf { e4m3: bool, relu: bool },
    /// e4m3x2 (or e5m2x2) to f16x2.
    HalfFromEight { e4m3: bool, relu: bool },
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By the address itself.
    Generic,
    Global,
    Const,
    /// The block's own memory: `shared`, `shared::cta`.
    Shared,
    /// That of any block of the cluster: `shared::cluster`.
    SharedCluster,
    Local,
    /// A kernel's parameters by address.
    Param,
}

/// A memory type: size and whether a load extends the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) bytes: u8,
    pub(crate) signed: bool,
}

/// Who has to see an operation in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Cta,
    Cluster,
    /// `.gpu` and `.sys`.
    Gpu,
}

/// Memory order of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// May not be raced with.
    Weak,
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// Order and scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sem {
    pub(crate) order: Order,
    pub(crate) scope: Scope,
}

impl Sem {
    pub(crate) const WEAK: Sem = Sem { order: Order::Weak, scope: Scope::Cta };

    pub(crate) fn acquires(self) -> bool {
        matches!(self.order, Order::Acquire | Order::AcqRel)
    }

    pub(crate) fn releases(self) -> bool {
        matches!(self.order, Order::Release | Order::AcqRel)
    }
}

/// A load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) place: Place,
    pub(crate) element: Element,
    /// Elements a lane: 1, 2, 4 or 8.
    pub(crate) lanes: u8,
    pub(crate) sem: Sem,
    /// The registers are 64 bits wide.
    pub(crate) wide: bool,
    /// The registers are 16 bits wide: what a load extends is cut to that.
    pub(crate) half: bool,
    /// The address is in a 64-bit register.
    pub(crate) address64: bool,
}

/// Read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

/// Types of read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomType {
    B16,
    U32,
    S32,
    U64,
    S64,
    F32 { ftz: bool },
    F64,
    Half(HalfType),
    Half2(HalfType),
}

impl AtomType {
    pub(crate) fn bytes(self) -> u8 {
        match self {
            AtomType::B16 | AtomType::Half(_) => 2,
            AtomType::U32 | AtomType::S32 | AtomType::F32 { .. } | AtomType::Half2(_) => 4,
            AtomType::U64 | AtomType::S64 | AtomType::F64 => 8,
        }
    }
}

/// `atom` and `red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Atom {
    pub(crate) op: AtomOp,
    pub(crate) ty: AtomType,
    pub(crate) place: Place,
    pub(crate) sem: Sem,
    pub(crate) address64: bool,
    /// Whether the old value is returned.
    pub(crate) returns: bool,
}

/// Lanes that `shfl` reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What `vote` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What `redux.sync` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redux {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
}

/// What a block-wide barrier does besides waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    /// Arrives and waits.
    Sync,
    /// Arrives only.
    Arrive,
    /// Counts or combines a predicate.
    RedPopc,
    RedAnd,
    RedOr,
}

/// A barrier: the operands are its number and, perhaps, the number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) kind: BarKind,
    /// All threads of a warp execute it together.
    pub(crate) aligned: bool,
    /// Whether the number of threads is given.
    pub(crate) counted: bool,
    /// Whether the predicate operand is negated.
    pub(crate) negated: bool,
}

/// Tensor-core products: m16n8 unless named otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mma {
    /// f32 accumulators.
    K8(HalfType),
    K16(HalfType),
    /// f16 accumulators.
    K8Half,
    K16Half,
    K4Tf32,
    K8Tf32,
    /// m8n8k4.
    F64,
    /// s32 accumulators: k, signedness of a and b, satfinite.
    K16Int(bool, bool, bool),
    K32Int(bool, bool, bool),
    /// m8n8k16.
    M8K16Int(bool, bool, bool),
}

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    ClusterId(u8),
    NclusterId(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    Lane,
    Warp,
    Nwarp,
    Sm,
    Nsm,
    Grid,
    LaneMask(Cmp),
    Clock,
    Clock64,
    GlobalTimer,
    GlobalTimerLow,
    DynamicShared,
    /// 1 and 2: the address of a cooperative launch's workspace, high half and low half.
    EnvReg(u8),
    /// Where the memory starts that the launch adds.
    DynamicBase,
    TotalShared,
    WarpSize,
}

/// Where the mbarrier of an operation lies, and how the operation orders memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MbarSem {
    pub(crate) sem: Sem,
    pub(crate) address64: bool,
    /// The address is generic, not in the window of shared memory.
    pub(crate) generic: bool,
    /// It may lie in another block of the cluster.
    pub(crate) remote: bool,
}

/// Operations on an mbarrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MbarOp {
    /// Operand: count.
    Init,
    Inval,
    /// Operands: state out (if `state`), count.
    Arrive {
        drop: bool,
        expect: bool,
        state: bool,
        complete: bool,
    },
    /// Operand: bytes.
    ExpectTx,
    CompleteTx,
    /// Operands: predicate out, state or parity.
    Test {
        parity: bool,
        may_wait: bool,
    },
    /// Operands: count out, state.
    PendingCount,
}

/// Asynchronous bulk copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkKind {
    /// Completes on an mbarrier; `multicast` has a mask of blocks, `own` no other than the block's own memory.
    GlobalToShared { multicast: bool, own: bool },
    /// Completes on an mbarrier of the destination's block.
    SharedToCluster,
    /// Completes with the thread's bulk groups.
    SharedToGlobal,
}

/// An asynchronous bulk copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    pub(crate) kind: BulkKind,
    pub(crate) to64: bool,
    pub(crate) from64: bool,
    pub(crate) mbar64: bool,
}

/// A mnemonic with its modifiers. The order of the registers in [`super::Inst::r`] is that of the operands in PTX unless said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Nop,
    Mov32,
    Mov64,
    MovPred,
    /// Sets a predicate to a constant.
    SetPred(bool),
    /// Address of the thread's local memory at `imm`.
    LocalAddress {
        wide: bool,
    },
    ReadSpecial(Special, /* 64-bit destination */ bool),
    /// Low word, high word to 64 bits, and back.
    Join64,
    Split64,
    Join32,
    Split32,
    /// Four 16-bit values and 64 bits.
    Join64x16,
    Split64x16,
    /// Bits `shift` and up of a word, `bits` of them; and their replacement. `imm` = shift | bits << 8.
    Extract,
    Insert,
    Select32,
    Select64,
    /// `slct`: by the sign of an s32 or f32.
    Slct {
        wide: bool,
        float: bool,
        ftz: bool,
    },
    Int1(Int1, Int),
    Int2(Int2, Int),
    Int3(Int3, Int),
    /// 16 x 16 to 32 bits, 32 x 32 to 64.
    MulWide(Int),
    MadWide(Int),
    Mul24 {
        hi: bool,
        signed: bool,
    },
    Mad24 {
        hi: bool,
        signed: bool,
    },
    /// `add.cc`, `addc`, `sub.cc`, `subc`: destination, a, b, carry in, carry out.
    Carry {
        wide: bool,
        subtract: bool,
        input: bool,
        output: bool,
    },
    Lop3(u8),
    Prmt(Permute),
    /// Funnel shifts.
    Shf {
        left: bool,
        wrap: bool,
    },
    Fns,
    Bmsk {
        wrap: bool,
    },
    Szext {
        signed: bool,
        wrap: bool,
    },
    Dp4a {
        a_signed: bool,
        b_signed: bool,
    },
    Dp2a {
        a_signed: bool,
        b_signed: bool,
        hi: bool,
    },
    /// Registers: p, q, a, b, c. Without `combine`, c is absent; without `q`, q is.
    Setp {
        cmp: Cmp,
        ty: CmpType,
        combine: Option<Logic>,
        negated: bool,
        second: bool,
    },
    Set {
        cmp: Cmp,
        ty: CmpType,
        to: SetType,
        combine: Option<Logic>,
        negated: bool,
    },
    Pred2(Logic),
    PredNot,
    F32(Float2, Mode),
    F32Fma(Mode),
    F32Unary(Float1, Mode),
    F64(Float2, Mode),
    F64Fma(Mode),
    F64Unary(Float1, Mode),
    TestP(Class, /* f64 */ bool),
    Half(Half, HalfMode),
    Cvt(Cvt),
    CvtPair(CvtPair),
    /// A kernel's parameter at `imm`: the same for all threads.
    LoadParam {
        element: Element,
        wide: bool,
        half: bool,
    },
    /// Registers: destinations, then at slot 8 the address.
    Load(Access),
    /// Registers: sources, then at slot 8 the address.
    Store(Access),
    /// Registers: destination, address, b, c.
    Atom(Atom),
    /// `wide`: 64-bit registers. To a space from generic, or the other way.
    Cvta {
        place: Place,
        to: bool,
        wide: bool,
    },
    IsSpace {
        place: Place,
        wide: bool,
    },
    Mapa {
        wide: bool,
        generic: bool,
    },
    CtaRank {
        wide: bool,
        generic: bool,
    },
    /// Registers: shared address, global address, bytes to read (if `partial`).
    CpAsync {
        bytes: u8,
        to64: bool,
        from64: bool,
        partial: bool,
    },
    CpAsyncCommit,
    /// Waits until at most `imm` groups are pending.
    CpAsyncWait,
    /// Arrives on an mbarrier when the thread's copies are complete.
    CpAsyncArrive {
        noinc: bool,
        sem: MbarSem,
    },
    /// Registers: to, from, bytes, mbarrier, mask.
    Bulk(Bulk),
    BulkCommit,
    /// At most `imm` groups pending; with `read`, only their reads need be done.
    BulkWait {
        read: bool,
    },
    /// Registers: address, values, then at slot 8 the mbarrier.
    StAsync {
        element: Element,
        lanes: u8,
        wide: bool,
        to64: bool,
        mbar64: bool,
    },
    /// Registers: address, value, then at slot 8 the mbarrier.
    RedAsync {
        op: AtomOp,
        ty: AtomType,
        to64: bool,
        mbar64: bool,
    },
    /// Registers: 1, 2 or 4 destinations, then at slot 8 the address.
    LdMatrix {
        count: u8,
        trans: bool,
        address64: bool,
    },
    StMatrix {
        count: u8,
        trans: bool,
        address64: bool,
    },
    MovMatrix,
    /// Registers: d, a, b, c, each as many as the shape has.
    Mma(Mma),
    /// Product `imm` of the program. Registers: a (descriptor, or 4 of a fragment), then at slot 4 b's descriptor, and the predicate
    /// that says whether the sums so far count.
    Wgmma,
    WgmmaFence,
    WgmmaCommit,
    /// Waits until at most `imm` groups are pending.
    WgmmaWait,
    /// To instruction `imm`; `uniform` is a promise.
    Branch,
    /// By a table: `imm` is its number.
    BranchTable,
    /// Call site `imm`.
    Call,
    CallIndirect,
    Ret,
    Exit,
    Trap,
    /// `vprintf`. Registers: count of arguments (a word), low and high words of the format's and of the arguments' address.
    Print,
    /// `__assertfail`. Registers: low and high words of the addresses of the condition and of the file, the line.
    Assert,
    Bar(Bar),
    /// Register: mask.
    WarpSync,
    /// Registers: destination, predicate (if `valid`), a, b, c, mask.
    Shfl {
        mode: Shuffle,
        valid: bool,
    },
    /// Registers: destination, predicate, mask.
    Vote {
        kind: Vote,
        negated: bool,
    },
    /// Registers: destination, a, mask.
    MatchAny {
        wide: bool,
    },
    /// Registers: destination, predicate, a, mask.
    MatchAll {
        wide: bool,
        valid: bool,
    },
    Redux(Redux),
    ActiveMask,
    /// Registers: destination lane, predicate, mask.
    Elect,
    Fence(Sem),
    /// Between generic and asynchronous accesses.
    FenceProxy {
        shared: bool,
        global: bool,
    },
    /// Makes the initialisation of mbarriers visible to the cluster.
    FenceMbarInit,
    Mbar(MbarOp, MbarSem),
    ClusterArrive {
        release: bool,
        aligned: bool,
    },
    ClusterWait {
        acquire: bool,
        aligned: bool,
    },
    NanoSleep,
    /// Checks a prefetch's or a discard's address as a read of nothing: no effect.
    Hint,
}

impl Op {
    /// Whether a load or store may come in parts, one element after the other: a vector that others may see meanwhile.
    pub(crate) fn comes_in_elements(&self) -> bool {
        matches!(self, Op::Load(access) | Op::Store(access) if access.lanes > 1 && access.sem.order != Order::Weak)
    }

    /// Whether it is one of `wgmma`.
    pub(crate) fn is_of_warpgroups(&self) -> bool {
        matches!(self, Op::Wgmma | Op::WgmmaFence | Op::WgmmaCommit | Op::WgmmaWait)
    }
}
