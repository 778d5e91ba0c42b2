//! The textbook job through the library: MNIST, 784-128-10, cross entropy, SGD with momentum, ten epochs.

use kiln_data::{Shuffle, Source, Split, default_dir, fetch, is_present, load};
use kiln_engine::{Error, Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};

fn samples(split: &Split) -> Result<Samples<'_>, Error> {
    Samples::pixels(&split.images.pixels, split.width(), Targets::Labels(&split.labels))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = default_dir()?;
    if !is_present(Source::Mnist, &folder) {
        fetch(Source::Mnist, &folder, &mut |_| ())?;
    }

    let mnist = load(Source::Mnist, &folder)?;
    let (train, test) = (samples(&mnist.train)?, samples(&mnist.test)?);
    let model = Mlp::new(&[784, 128, 10], 0)?;
    let optimizer = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.into();
    let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule: Schedule::default(), train };
    let mut trainer = Trainer::host(job, 2)?;
    let shuffle = Shuffle::new(train.len(), 0);
    for epoch in 0..10 {
        let trained = trainer.epoch(&shuffle.epoch(epoch), 64)?;
        println!("Epoch: {}, Loss: {:.3}, {:?}", epoch + 1, trained.loss, trainer.evaluate(&test)?);
    }
    Ok(())
}
