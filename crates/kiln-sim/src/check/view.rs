//! What a thread knows: vector clocks for many threads.
//!
//! A launch has too many threads for a clock of each in each. So knowledge is kept by level: "everything that block b did
//! up to time t", the same of a warp, of a thread. Times come from one counter for all that a worker runs, which moves on
//! at each synchronisation; an access is stamped with its thread and the time. The access (u, s) happens before what
//! thread t does now if u = t, or if t's view reaches s for u, for u's warp or for u's block.
//!
//! This is exact: a level is used only when all threads of it took part. (The idea of levels is that of Eizenberg et al.,
//! "BARRACUDA: Binary-level Analysis of Runtime RAces in CUDA programs", 2017.)
//!
//! The first moment of a launch, [`START`], stands for a block's being there at all.

use std::cmp::Ordering;
use std::rc::Rc;

/// A thread: its block's number in the grid times 1024, plus its number in the block. Or an agent, see below.
pub(crate) type Who = u32;

/// Set in a [`Who`] that is no thread: the copy engine on behalf of a thread.
pub(crate) const COPIER: Who = 1 << 31;
/// Set in a [`Who`] that is no thread: what completes on an mbarrier, by the number of that.
pub(crate) const MBARRIER: Who = 1 << 31 | 1 << 30;
/// The time of an asynchronous access that is not complete: nobody can know of it.
pub(crate) const PENDING: u32 = u32::MAX;
/// Time of what every block does first, which is to start. Accesses come later.
pub(crate) const START: u32 = 1;
/// Blocks that can be told apart.
pub(crate) const MAX_BLOCKS: u64 = 1 << 20;

/// Number of the block of a thread.
pub(crate) fn block_of(who: Who) -> u32 {
    (who & !MBARRIER) >> 10
}

/// Number of the warp of a thread, in the grid.
pub(crate) fn warp_of(who: Who) -> u32 {
    (who & !MBARRIER) >> 5
}

/// Blocks that can come to know of each other within a launch. All others are strangers: nothing orders what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbours {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Neighbours {
    /// Any block may come to know of any other.
    pub(crate) const ALL: Neighbours = Neighbours { first: 0, count: u32::MAX };

    #[inline(always)]
    pub(crate) fn has(self, block: u32) -> bool {
        block.wrapping_sub(self.first) < self.count
    }
}

/// Of whom something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Block(u32),
    Warp(u32),
    Thread(Who),
}

/// A level as a number: blocks first, threads last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

impl From<Level> for Key {
    #[inline(always)]
    fn from(level: Level) -> Key {
        Key(match level {
            Level::Block(block) => u64::from(block),
            Level::Warp(warp) => 1 << 32 | u64::from(warp),
            Level::Thread(who) => 2 << 32 | u64::from(who),
        })
    }
}

impl Key {
    fn level(self) -> Level {
        let number = self.0 as u32;
        match self.0 >> 32 {
            0 => Level::Block(number),
            1 => Level::Warp(number),
            _ => Level::Thread(number),
        }
    }
}

/// Knowledge: levels in ascending order, each with a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View(Vec<(Key, u32)>);

impl View {
    /// The time up to which a level is known.
    #[inline]
    pub(crate) fn get(&self, level: Level) -> u32 {
        match self.find(level.into()) {
            Ok(at) => self.0[at].1,
            Err(_) => 0,
        }
    }

    #[inline]
    fn find(&self, key: Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |entry| entry.0)
    }

    /// Learns of a level.
    pub(crate) fn learn(&mut self, level: Level, time: u32) {
        let key = level.into();
        match self.find(key) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(time),
            Err(at) => self.0.insert(at, (key, time)),
        }
    }

    /// Whether it knows all that `other` knows.
    pub(crate) fn includes(&self, other: &View) -> bool {
        let mut own = self.0.iter();
        other.0.iter().all(|&(key, time)| {
            let found = own.find(|entry| entry.0 >= key);
            found.is_some_and(|&(known, until)| known == key && until >= time)
        })
    }

    /// Learns all that `other` knows.
    pub(crate) fn join(&mut self, other: &View) {
        if self.includes(other) {
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) => x.0.cmp(&y.0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let next = match order {
                Ordering::Less => a.next().copied(),
                Ordering::Greater => b.next().copied(),
                Ordering::Equal => a.next().zip(b.next()).map(|(x, y)| (x.0, x.1.max(y.1))),
            };
            merged.extend(next);
        }
        self.0 = merged;
    }

    /// Forgets what a newer level of a block covers: its warps and threads up to `time`.
    pub(crate) fn compact(&mut self, block: u32, time: u32) {
        self.0.retain(|&(key, known)| match key.level() {
            Level::Warp(warp) => warp >> 5 != block || known > time,
            Level::Thread(who) => who & COPIER != 0 || block_of(who) != block || known > time,
            Level::Block(_) => true,
        });
    }

    /// Whether a block is known to have started: anything that it did is.
    pub(crate) fn has_started(&self, block: u32) -> bool {
        let within = |from: Level, to: Level| {
            let first = self.0.partition_point(|entry| entry.0 < from.into());
            self.0.get(first).is_some_and(|entry| entry.0 <= to.into())
        };
        self.get(Level::Block(block)) >= START
            || within(Level::Warp(block << 5), Level::Warp(block << 5 | 31))
            || within(Level::Thread(block << 10), Level::Thread(block << 10 | 1023))
    }

    /// Whether what `who` did at `time` is known.
    pub(crate) fn knows(&self, who: Who, time: u32) -> bool {
        let together = who & COPIER == 0
            && (self.get(Level::Block(block_of(who))) >= time || self.get(Level::Warp(warp_of(who))) >= time);
        together || self.get(Level::Thread(who)) >= time
    }
}

/// A thread, and what it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knower<'a> {
    pub(crate) who: Who,
    /// Up to when its own block is known.
    pub(crate) block_floor: u32,
    /// Up to when its own warp is known.
    pub(crate) warp_floor: u32,
    pub(crate) view: &'a View,
}

impl Knower<'_> {
    /// Whether what `who` did at `time` happened before what this thread does now.
    #[inline]
    pub(crate) fn knows(&self, who: Who, time: u32) -> bool {
        if who == self.who && time != PENDING {
            return true;
        }
        if who & COPIER == 0
            && block_of(who) == block_of(self.who)
            && (time <= self.block_floor || warp_of(who) == warp_of(self.who) && time <= self.warp_floor)
        {
            return true;
        }
        self.view.knows(who, time)
    }
}

/// What the lanes of a warp know: all the same, mostly.
#[derive(Clone, Debug)]
pub(crate) struct WarpView {
    /// Shared by all lanes, or one each.
    lanes: Lanes,
    /// Up to when the warp's own lanes are known to each other (`bar.warp.sync` of all).
    pub(crate) warp_floor: u32,
    /// The warp's own block, and up to when a view shared by all lanes knows it.
    block: u32,
    floor: u32,
}

#[derive(Clone, Debug)]
enum Lanes {
    Same(Rc<View>),
    Each(Box<[Rc<View>; 32]>),
}

impl WarpView {
    /// A warp of a block that knows nothing yet.
    pub(crate) fn new(block: u32) -> WarpView {
        WarpView { lanes: Lanes::Same(Rc::default()), warp_floor: 0, block, floor: 0 }
    }

    /// Up to when a lane knows its own block.
    #[inline(always)]
    pub(crate) fn block_floor(&self, lane: usize) -> u32 {
        match &self.lanes {
            Lanes::Same(_) => self.floor,
            Lanes::Each(views) => views[lane].get(Level::Block(self.block)),
        }
    }

    /// A lane's thread with what it knows.
    #[inline(always)]
    pub(crate) fn knower(&self, who: Who, lane: usize) -> Knower<'_> {
        Knower {
            who,
            block_floor: self.block_floor(lane),
            warp_floor: self.warp_floor,
            view: self.lane(lane),
        }
    }

    /// What a lane knows.
    pub(crate) fn lane(&self, lane: usize) -> &Rc<View> {
        match &self.lanes {
            Lanes::Same(view) => view,
            Lanes::Each(views) => &views[lane],
        }
    }

    /// The view of all lanes, if it is one.
    pub(crate) fn same(&self) -> Option<&Rc<View>> {
        match &self.lanes {
            Lanes::Same(view) => Some(view),
            Lanes::Each(_) => None,
        }
    }

    /// All lanes know this from now on.
    pub(crate) fn set_all(&mut self, view: Rc<View>) {
        self.floor = view.get(Level::Block(self.block));
        self.lanes = Lanes::Same(view);
    }

    /// A lane learns something.
    pub(crate) fn learn(&mut self, lane: usize, view: &View) {
        if self.lane(lane).includes(view) {
            return;
        }
        if let Lanes::Same(same) = &self.lanes {
            let same = same.clone();
            self.lanes = Lanes::Each(Box::new(std::array::from_fn(|_| same.clone())));
        }
        if let Lanes::Each(views) = &mut self.lanes {
            Rc::make_mut(&mut views[lane]).join(view);
        }
    }

    /// All lanes learn of a level.
    pub(crate) fn learn_all(&mut self, level: Level, time: u32) {
        match &mut self.lanes {
            Lanes::Same(view) => Rc::make_mut(view).learn(level, time),
            Lanes::Each(views) => views.iter_mut().for_each(|view| Rc::make_mut(view).learn(level, time)),
        }
    }

    /// All that the lanes of a mask know together.
    pub(crate) fn joined(&self, mask: u32) -> Rc<View> {
        match &self.lanes {
            Lanes::Same(view) => view.clone(),
            Lanes::Each(views) => {
                let mut joined = View::default();
                (0..32).filter(|lane| mask >> lane & 1 == 1).for_each(|lane| joined.join(&views[lane]));
                Rc::new(joined)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u32, u32) -> Who = |block, thread| block << 10 | thread;

    fn knower(who: Who, view: &View) -> Knower<'_> {
        Knower { who, block_floor: view.get(Level::Block(block_of(who))), warp_floor: 0, view }
    }

    #[test]
    fn a_thread_knows_itself_and_nobody_else() {
        let view = View::default();
        let me = knower(T(3, 5), &view);
        assert!(me.knows(T(3, 5), 7) && !me.knows(T(3, 6), 1) && !me.knows(T(2, 5), 1));
        assert!(!me.knows(T(3, 5), PENDING) && !me.knows(T(3, 5) | COPIER, 7));
    }

    #[test]
    fn a_block_barrier_covers_its_threads_up_to_its_time_and_no_copy_engine() {
        let mut view = View::default();
        view.learn(Level::Block(3), 10);
        let me = knower(T(3, 0), &view);
        assert!(me.knows(T(3, 999), 10) && !me.knows(T(3, 999), 11));
        assert!(!me.knows(T(3, 1) | COPIER, 2) && !me.knows(MBARRIER | 3 << 10, 2));
    }

    #[test]
    fn join_takes_the_later_of_each() {
        let (mut a, mut b) = (View::default(), View::default());
        a.learn(Level::Block(1), 4);
        a.learn(Level::Thread(9), 2);
        b.learn(Level::Block(1), 3);
        b.learn(Level::Warp(7), 5);
        a.join(&b);
        assert_eq!((a.get(Level::Block(1)), a.get(Level::Warp(7)), a.get(Level::Thread(9))), (4, 5, 2));
    }

    #[test]
    fn what_one_lane_learns_the_others_do_not() {
        let mut warp = WarpView::new(0);
        let mut news = View::default();
        news.learn(Level::Block(8), 6);
        warp.learn(3, &news);
        assert_eq!((warp.lane(3).get(Level::Block(8)), warp.lane(4).get(Level::Block(8))), (6, 0));
        assert_eq!(warp.joined(1 << 4).get(Level::Block(8)), 0);
        assert_eq!(warp.joined(u32::MAX).get(Level::Block(8)), 6);
    }

    #[test]
    fn compacting_keeps_what_is_newer_or_elsewhere() {
        let mut view = View::default();
        for (level, time) in [
            (Level::Warp(3 << 5), 4),
            (Level::Thread(T(3, 1)), 9),
            (Level::Thread(T(4, 1)), 2),
            (Level::Thread(COPIER | T(3, 1)), 1),
        ] {
            view.learn(level, time);
        }
        view.compact(3, 5);
        assert_eq!(view.get(Level::Warp(3 << 5)), 0);
        assert_eq!(view.get(Level::Thread(T(3, 1))), 9);
        assert_eq!(view.get(Level::Thread(T(4, 1))), 2);
        assert_eq!(view.get(Level::Thread(COPIER | T(3, 1))), 1);
    }
}
