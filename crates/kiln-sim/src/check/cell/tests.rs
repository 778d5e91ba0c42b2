use super::super::view::{Level, View};
use super::*;

const fn thread(block: u32, thread: u32) -> Who {
    block << 10 | thread
}

struct World {
    cell: Cell,
    lists: ReaderLists,
}

impl World {
    fn new() -> World {
        World { cell: Cell::NEW, lists: ReaderLists::default() }
    }

    fn judge<'a>(who: Who, now: u32, view: &'a View, strength: Strength) -> Judge<'a> {
        let block_floor = view.get(Level::Block(block_of(who)));
        let me = Knower { who, block_floor, warp_floor: view.get(Level::Warp(warp_of(who))), view };
        Judge { me, now, pc: now, strength, cluster_blocks: 2, neighbours: Neighbours::ALL }
    }

    fn read(&mut self, who: Who, now: u32, view: &View) -> Option<Event> {
        Self::judge(who, now, view, None).read_bytes(&mut self.cell, WHOLE, &mut self.lists)
    }

    fn write(&mut self, who: Who, now: u32, view: &View) -> Option<Event> {
        Self::judge(who, now, view, None).write_bytes(&mut self.cell, WHOLE, &mut self.lists)
    }
}

fn knows(levels: &[(Level, u32)]) -> View {
    let mut view = View::default();
    levels.iter().for_each(|&(level, time)| view.learn(level, time));
    view
}

#[test]
fn one_thread_never_races_with_itself() {
    let (mut world, nothing) = (World::new(), View::default());
    for now in 1..10 {
        assert_eq!(world.write(7, now, &nothing), None);
        assert_eq!(world.read(7, now, &nothing), None);
    }
}

#[test]
fn each_kind_of_unordered_pair_is_found_and_names_the_first() {
    let nothing = View::default();
    let mut world = World::new();
    world.write(1, 1, &nothing);
    assert_eq!(world.write(2, 1, &nothing), Some(Event { who: 1, time: 1, pc: 1 }));
    let mut world = World::new();
    world.write(1, 1, &nothing);
    assert_eq!(world.read(2, 1, &nothing).map(|e| e.who), Some(1));
    let mut world = World::new();
    world.read(1, 1, &nothing);
    assert_eq!(world.write(2, 1, &nothing).map(|e| e.who), Some(1));
}

#[test]
fn a_barrier_between_orders_them_and_one_before_does_not() {
    let mut world = World::new();
    world.write(1, 3, &View::default());
    assert_eq!(world.read(40, 5, &knows(&[(Level::Block(0), 3)])), None);
    let mut world = World::new();
    world.write(1, 4, &View::default());
    assert!(world.read(40, 5, &knows(&[(Level::Block(0), 3)])).is_some());
}

#[test]
fn every_reader_counts_not_only_the_last() {
    let nothing = View::default();
    let mut world = World::new();
    for who in [thread(0, 3), thread(0, 40), thread(0, 80)] {
        assert_eq!(world.read(who, 2, &nothing), None);
    }
    // The writer knows the last two readers, but not the first.
    let view = knows(&[(Level::Warp(1), 2), (Level::Warp(2), 2)]);
    assert_eq!(world.write(thread(0, 50), 3, &view).map(|e| e.who), Some(thread(0, 3)));
}

#[test]
fn readers_that_arrived_at_different_times_keep_their_own() {
    let nothing = View::default();
    let mut world = World::new();
    world.read(thread(0, 0), 5, &nothing);
    world.read(thread(0, 32), 20, &nothing);
    // Known: warp 0 up to 7, warp 1 up to 25: a producer that waited for both.
    let view = knows(&[(Level::Warp(0), 7), (Level::Warp(1), 25)]);
    assert_eq!(world.write(thread(0, 64), 30, &view), None);
}

#[test]
fn a_lane_that_did_not_synchronise_is_found_within_its_warp() {
    let nothing = View::default();
    let mut world = World::new();
    world.read(thread(0, 0), 1, &nothing);
    world.read(thread(0, 1), 1, &nothing);
    assert_eq!(world.write(thread(0, 0), 1, &nothing).map(|e| e.who), Some(thread(0, 1)));
}

#[test]
fn more_readers_than_are_kept_apart_still_count() {
    let nothing = View::default();
    let mut world = World::new();
    for block in 0..100 {
        world.read(thread(block, 0), 2, &nothing);
    }
    let some = knows(&(0..99).map(|block| (Level::Block(block), 9)).collect::<Vec<_>>());
    assert!(world.write(thread(0, 0), 10, &some).is_some());
    let mut world = World::new();
    for block in 0..100 {
        world.read(thread(block, 0), 2, &nothing);
    }
    let all = knows(&(0..100).map(|block| (Level::Block(block), 9)).collect::<Vec<_>>());
    assert_eq!(world.write(thread(0, 0), 10, &all), None);
}

#[test]
fn strong_accesses_need_scopes_that_include_each_other() {
    let nothing = View::default();
    let write = |world: &mut World, who, scope| {
        World::judge(who, 1, &nothing, Some(Strong { scope, bytes: 4 }))
            .write(&mut world.cell, &mut world.lists)
    };
    for (other, scope, races) in [
        (thread(0, 9), Scope::Cta, false),
        (thread(1, 0), Scope::Cta, true),
        (thread(1, 0), Scope::Cluster, false),
        (thread(2, 0), Scope::Cluster, true),
        (thread(2, 0), Scope::Gpu, false),
    ] {
        let mut world = World::new();
        write(&mut world, thread(0, 0), scope);
        assert_eq!(write(&mut world, other, scope).is_some(), races, "{other} {scope:?}");
        let mut world = World::new();
        write(&mut world, thread(0, 0), scope);
        assert!(world.read(other, 1, &nothing).is_some(), "a weak read races with any unordered write");
    }
}

/// A tag beside a value: who polls the tag alone is not promised the value.
#[test]
fn strong_accesses_of_other_sizes_are_not_strong_to_each_other() {
    let nothing = View::default();
    let judge = |who, bytes| World::judge(who, 1, &nothing, Some(Strong { scope: Scope::Gpu, bytes }));
    for (written, read) in [(8, 8), (4, 4), (8, 4), (4, 8), (2, 4)] {
        let mut world = World::new();
        judge(thread(0, 0), written).write(&mut world.cell, &mut world.lists);
        let race = judge(thread(1, 0), read).read(&mut world.cell, &mut world.lists);
        assert_eq!(race.is_some(), written != read, "{written} and {read} bytes");
        let mut world = World::new();
        judge(thread(1, 0), read).read(&mut world.cell, &mut world.lists);
        judge(thread(2, 0), read).read(&mut world.cell, &mut world.lists);
        let race = judge(thread(0, 0), written).write(&mut world.cell, &mut world.lists);
        assert_eq!(race.is_some(), written != read, "{read} and {written} bytes");
    }
}

/// A strong write that nothing orders meets the strong read, but not the weak one before it.
#[test]
fn a_strong_read_does_not_stand_for_a_weak_one_before_it() {
    let nothing = View::default();
    let mut world = World::new();
    world.read(thread(0, 3), 2, &nothing);
    let knows_itself = knows(&[(Level::Block(0), 5)]);
    let strong = Some(Strong { scope: Scope::Gpu, bytes: 4 });
    World::judge(thread(0, 3), 9, &knows_itself, strong).read(&mut world.cell, &mut world.lists);
    let race = World::judge(thread(1, 0), 10, &nothing, strong).write(&mut world.cell, &mut world.lists);
    assert!(race.is_some());
}

#[test]
fn an_asynchronous_write_is_nobodys_until_it_is_complete() {
    let nothing = View::default();
    let mut world = World::new();
    let judge = World::judge(5, 1, &nothing, None);
    assert_eq!(judge.write_pending(&mut world.cell, &mut world.lists, COPIER | 5), None);
    assert!(world.read(5, 1, &nothing).is_some(), "not even the thread that asked for it");
    world.cell.complete(5, 2);
    assert_eq!(world.read(5, 2, &nothing), None);
    assert!(world.read(6, 2, &nothing).is_some());
}

#[test]
fn workers_that_only_read_do_not_race() {
    let nothing = View::default();
    let (mut a, mut b) = (World::new(), World::new());
    a.read(1, 1, &nothing);
    b.read(thread(1, 0), 1, &nothing);
    assert_eq!(unordered_pair(&a.cell, &a.lists, &b.cell, &b.lists), None);
    b.write(thread(1, 0), 1, &nothing);
    let (first, second) = unordered_pair(&a.cell, &a.lists, &b.cell, &b.lists).unwrap();
    assert_eq!((first.who, second.who), (1, thread(1, 0)));
}

#[test]
fn different_bytes_of_a_cell_are_different_memory() {
    let nothing = View::default();
    let (mut world, judge) = (World::new(), |who| World::judge(who, 1, &nothing, None));
    let World { cell, lists } = &mut world;
    assert_eq!(judge(1).write_bytes(cell, 0b0011, lists), None);
    assert_eq!(judge(2).write_bytes(cell, 0b1100, lists), None);
    assert_eq!(judge(3).read_bytes(cell, 0b0100, lists).map(|e| e.who), Some(2));
    assert_eq!(judge(1).read_bytes(cell, 0b0001, lists), None);
    assert_eq!(judge(2).write_bytes(cell, 0b0010, lists).map(|e| e.who), Some(1));
    assert!(cell.was_read(lists) && cell.was_written(lists));
    let by = Reading { warp: 0, now: 1, pc: 1, known: 0, neighbours: Neighbours::ALL };
    assert!(!cell.may_be_written(9, 1) && !cell.is_settled(9, 0) && !cell.read_plainly(by, 0));
}

#[test]
fn a_write_of_all_bytes_is_judged_against_each_and_makes_the_cell_whole() {
    let nothing = View::default();
    let (mut world, judge) = (World::new(), |who| World::judge(who, 1, &nothing, None));
    let World { cell, lists } = &mut world;
    (0..3).for_each(|reader| assert_eq!(judge(32 * reader).read_bytes(cell, WHOLE, lists), None));
    assert_eq!(judge(96).read_bytes(cell, 0b0001, lists), None);
    let all = knows(&[(Level::Warp(0), 1), (Level::Warp(1), 1), (Level::Warp(2), 1)]);
    let late = World::judge(128, 2, &all, None);
    assert_eq!(late.write_bytes(cell, 0b1110, lists), None, "warp 3 has read the first byte alone");
    assert_eq!(late.write_bytes(cell, WHOLE, lists).map(|e| e.who), Some(96));
    assert_eq!(cell.last_write().map(|e| e.who), Some(128));
    assert_eq!(judge(160).read_bytes(cell, 0b1000, lists).map(|e| e.who), Some(128));
}

#[test]
fn workers_race_on_the_bytes_that_both_touch() {
    let nothing = View::default();
    let (mut a, mut b) = (World::new(), World::new());
    let judge = |who| World::judge(who, 1, &nothing, None);
    judge(1).write_bytes(&mut a.cell, 0b0011, &mut a.lists);
    judge(thread(1, 1)).write_bytes(&mut b.cell, 0b1100, &mut b.lists);
    assert_eq!(unordered_pair(&a.cell, &a.lists, &b.cell, &b.lists), None);
    judge(thread(1, 2)).read_bytes(&mut b.cell, 0b0010, &mut b.lists);
    let (first, second) = unordered_pair(&a.cell, &a.lists, &b.cell, &b.lists).unwrap();
    assert_eq!((first.who, second.who), (1, thread(1, 2)));
}

#[test]
fn a_strangers_read_stands_for_all_later_ones() {
    let view = View::default();
    let alone = |who, now| Judge {
        neighbours: Neighbours { first: block_of(who), count: 1 },
        ..World::judge(who, now, &view, None)
    };
    let mut world = World::new();
    let World { cell, lists } = &mut world;
    for (who, now) in [(thread(0, 3), 1), (thread(0, 40), 1), (thread(1, 0), 2), (thread(2, 0), 3)] {
        assert_eq!(alone(who, now).read_bytes(cell, WHOLE, lists), None);
    }
    assert_eq!((cell.readers, cell.read_who, cell.read_time), (Readers::One, 0, 1), "the first alone");
    // The last reader itself: it has not met the first.
    let race = alone(thread(2, 0), 3).write_bytes(cell, WHOLE, lists);
    assert_eq!(race.map(|event| event.who), Some(thread(0, 3)));
}

#[test]
fn the_short_way_of_a_read_records_what_the_long_one_does() {
    let view = View::default();
    for alone in [false, true] {
        let (mut short, mut long) = (World::new(), World::new());
        // Two lanes, again after a barrier of the warp, another warp of the block, another block.
        for (who, now, known) in [
            (thread(0, 3), 1, 0),
            (thread(0, 4), 1, 0),
            (thread(0, 5), 3, 2),
            (thread(1, 1), 4, 0),
            (thread(1, 40), 4, 0),
        ] {
            let own = Neighbours { first: block_of(who), count: 1 };
            let neighbours = if alone { own } else { Neighbours::ALL };
            let mut judge = World::judge(who, now, &view, None);
            (judge.neighbours, judge.me.warp_floor) = (neighbours, known);
            let by = Reading { warp: warp_of(who), now, pc: now, known, neighbours };
            if !short.cell.read_plainly(by, 1 << (who & 31)) {
                assert_eq!(judge.read_bytes(&mut short.cell, WHOLE, &mut short.lists), None);
            }
            assert_eq!(judge.read_bytes(&mut long.cell, WHOLE, &mut long.lists), None);
            assert_eq!(
                format!("{:?} {:?}", short.cell, short.lists.lists),
                format!("{:?} {:?}", long.cell, long.lists.lists)
            );
        }
    }
}

#[test]
fn a_part_that_is_read_the_short_way_races_with_a_write_of_it_alone() {
    let view = View::default();
    let by = Reading { warp: 0, now: 1, pc: 7, known: 0, neighbours: Neighbours::ALL };
    let mut world = World::new();
    let World { cell, lists } = &mut world;
    assert!(lists.read_part_plainly(cell, 2, by, 4));
    let other = World::judge(thread(0, 9), 1, &view, None);
    assert_eq!(other.write_bytes(cell, 4, lists), None, "another byte");
    let race = other.write_bytes(cell, 2, lists);
    assert_eq!(race, Some(Event { who: thread(0, 4), time: 1, pc: 7 }));
    assert!(!lists.read_part_plainly(cell, 2, by, 4), "it has been written");
}

#[test]
fn the_short_way_of_a_write_is_closed_by_readers_that_are_not_known() {
    let by = Reading { warp: 0, now: 2, pc: 0, known: 0, neighbours: Neighbours::ALL };
    let mut cell = Cell::NEW;
    assert!(cell.read_plainly(by, 1 << 4));
    assert!(cell.may_be_written(1, thread(0, 4)), "itself");
    assert!(
        !cell.may_be_written(1, thread(0, 5)) && cell.may_be_written(2, thread(0, 500)),
        "its block's barrier"
    );
    assert!(!cell.may_be_written(2, thread(1, 4)), "another block's");
    assert!(cell.read_plainly(by, 1 << 5));
    assert!(!cell.may_be_written(1, thread(0, 4)), "not alone");
}

#[test]
fn bytes_that_are_read_the_short_way_race_as_those_that_are_read_the_long_way() {
    let nothing = View::default();
    let reads = [
        (thread(0, 3), 0b0011, 1),
        (thread(0, 3), 0b1100, 1),
        (thread(0, 4), 0b1100, 1),
        (thread(0, 4), 0b0110, 1),
        (thread(0, 4), 0b0100, 2),
        (thread(0, 40), 0b1000, 2),
        (thread(1, 3), 0b0011, 2),
        (thread(1, 3), 0b1111, 2),
    ];
    let writes =
        [(thread(0, 3), 0b0001), (thread(0, 4), 0b1000), (thread(0, 4), 0b1111), (thread(1, 3), 0b0100)];
    let mut compact = 0;
    for case in 0..reads.len().pow(3) * writes.len() * 2 {
        let (alone, case) = (case % 2 == 1, case / 2);
        let ((who, bytes), case) = (writes[case % writes.len()], case / writes.len());
        let neighbours =
            |who| if alone { Neighbours { first: block_of(who), count: 1 } } else { Neighbours::ALL };
        let judge =
            |who, now| Judge { neighbours: neighbours(who), ..World::judge(who, now, &nothing, None) };
        let (mut short, mut long) = (World::new(), World::new());
        let case: Vec<_> = (0..3).map(|n| reads[case / reads.len().pow(n) % reads.len()]).collect();
        for &(who, bytes, now) in &case {
            let by = Reading { warp: warp_of(who), now, pc: now, known: 0, neighbours: neighbours(who) };
            if !short.lists.read_part_plainly(&mut short.cell, bytes, by, who as usize & 31) {
                assert_eq!(judge(who, now).read_bytes(&mut short.cell, bytes, &mut short.lists), None);
            }
            assert_eq!(judge(who, now).read_bytes(&mut long.cell, bytes, &mut long.lists), None);
        }
        compact += u32::from(short.cell.init & BYTES != 0);
        let parts = |world: &World| world.cell.parts(&world.lists).map(|part| world.lists.some_reader(&part));
        assert_eq!(parts(&short), parts(&long), "{case:?}");
        assert!(short.cell.was_read(&short.lists) && !short.cell.was_written(&short.lists));
        let race = |world: &mut World| judge(who, 2).write_bytes(&mut world.cell, bytes, &mut world.lists);
        assert_eq!(race(&mut short), race(&mut long), "{case:?}, then {bytes:04b} by {who:#x}");
        assert!(short.cell.was_written(&short.lists));
    }
    assert!(compact > 100, "{compact} cases were kept in the cell itself");
}
