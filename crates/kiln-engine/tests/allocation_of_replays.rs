//! Nor does one that is replayed, on the host. (On the device all memory is in arenas, whose owner drops the captures when one moves.)

mod counting;

use kiln_engine::{AdamW, GraphOptions, Job, Loss, Mlp, Optimizer, Samples, Schedule, Sgd, Targets, Trainer};
use kiln_tests::on_device;

const BATCH: usize = 2;

#[test]
fn a_replayed_step_allocates_nothing() {
    on_device!();
    let pixels = vec![7u8; 450 * 16];
    let labels = vec![3u8; 450];
    let train = Samples::pixels(&pixels, 16, Targets::Labels(&labels)).unwrap();
    let sgd = Sgd { lr: 0.001, momentum: 0.9, ..Sgd::default() };
    for optimizer in [Optimizer::from(sgd), AdamW::default().into()] {
        let model = Mlp::new(&[16, 8, 10], 0).unwrap();
        let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule: Schedule::default(), train };
        let options = GraphOptions::default();
        let together = options.choices.captured_steps;
        let mut trainer = Trainer::graph(job, &options).unwrap();
        // An epoch allocates: its learning rates, its losses. One of more steps does no more often.
        let mut epoch = |replays: usize| {
            let order: Vec<u32> = (0..(replays * together * BATCH + 1) as u32).collect();
            let before = counting::all();
            trainer.epoch(&order, BATCH).unwrap();
            counting::all() - before
        };
        epoch(14);
        let counted = [2, 6, 14].map(&mut epoch);
        assert_eq!(counted, [counted[0]; 3], "{optimizer}");
    }
    let before = counting::all();
    drop(std::hint::black_box(vec![0u8; 16]));
    assert_eq!(counting::all() - before, 1, "the count sees a buffer of bytes");
}
