//! A training step allocates nothing. What `gemm` allocates for itself in a product is told apart by its alignment:
//! flags are bytes, packed panels lie on 128 bytes; everything of Kiln's is made of floats, integers and pointers.

mod counting;

use kiln_engine::{AdamW, Curve, Job, Loss, Mlp, Optimizer, Samples, Schedule, Sgd, Targets, Trainer};

#[test]
fn a_step_allocates_nothing() {
    let pixels = vec![7u8; 640 * 784];
    let labels = vec![3u8; 640];
    let train = Samples::pixels(&pixels, 784, Targets::Labels(&labels)).unwrap();
    let curve = Curve::Cosine { half_period_steps: 20, min_lr: 0.0 };
    let order: Vec<u32> = (0..630).collect();
    let sgd = Sgd { lr: 0.001, momentum: 0.9, ..Sgd::default() };
    for optimizer in [Optimizer::from(sgd), AdamW::default().into()] {
        let model = Mlp::new(&[784, 128, 96, 10], 0).unwrap();
        let schedule = Schedule { warmup_steps: 5, curve };
        let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule, train };
        let mut trainer = Trainer::host(job, 1).unwrap();
        trainer.epoch(&order, 64).unwrap();
        let before = counting::of_numbers();
        trainer.epoch(&order, 64).unwrap();
        let counted = counting::of_numbers() - before;
        assert_eq!(counted, 0, "ten steps and a tail, {optimizer}");
    }
    let boxed = counting::of_numbers();
    drop(std::hint::black_box(vec![0.0f32; 16]));
    assert_eq!(counting::of_numbers() - boxed, 1, "the count sees a buffer of floats");
}
