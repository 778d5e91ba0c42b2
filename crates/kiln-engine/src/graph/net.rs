//! The model on the device: parameters, what the optimizer keeps of each, and gradients, each one arena.

use std::ops::Range;

use crate::gpu::copies::{self, Chunk, Copied, Format};
use crate::gpu::{Activation, AdamWOptions, Buffer, Gpu, Moments, Region, Scalars, SgdOptions, Sink};
use crate::mlp::zeros;
use crate::{AdamW, Error, Mlp, Optimizer, Schedule, Sgd, Tensor};

/// Values that a tensor's place is a multiple of, so that every tensor begins at 16 bytes.
const ALIGN: usize = 4;

/// The scalars of the steps from `first` on, counted over all epochs, one row each.
pub(crate) fn scalars(optimizer: &Optimizer, schedule: &Schedule, first: u64, steps: usize) -> Vec<Scalars> {
    let row = |step: u64| {
        let lr = schedule.lr(optimizer.lr(), step) as f32;
        match optimizer {
            // The velocity of the very first step has no past, and where there is no momentum none has: it is the gradient.
            Optimizer::Sgd(sgd) if step == 0 || sgd.momentum == 0.0 => Scalars::sgd(lr, 0.0, 1.0),
            Optimizer::Sgd(sgd) => Scalars::sgd(lr, sgd.momentum as f32, (1.0 - sgd.dampening) as f32),
            Optimizer::AdamW(adamw) => {
                let (correction1, correction2) = adamw.corrections(step);
                Scalars::adamw(lr, correction1 as f32, correction2 as f32)
            }
        }
    };
    (first..).take(steps).map(row).collect()
}

/// AdamW's options in the precision of the parameters.
pub(super) fn adamw_options(adamw: &AdamW) -> AdamWOptions {
    AdamWOptions {
        fresh1: (1.0 - adamw.beta1) as f32,
        fresh2: (1.0 - adamw.beta2) as f32,
        eps: adamw.eps as f32,
        weight_decay: adamw.weight_decay as f32,
    }
}

/// SGD's options in the precision of the parameters.
pub(crate) fn sgd_options(sgd: &Sgd) -> SgdOptions {
    let (gradient_share, velocity_share) = if sgd.nesterov { (1.0, sgd.momentum as f32) } else { (0.0, 1.0) };
    SgdOptions { weight_decay: sgd.weight_decay as f32, gradient_share, velocity_share }
}

/// Where weight and bias of each layer lie in an arena.
type Places = Vec<(Range<usize>, Range<usize>)>;

/// An arena of `len` values with tensors in the order of [`Mlp::tensors`].
fn image(places: &Places, len: usize, tensors: &[Tensor]) -> Result<Vec<f32>, Error> {
    let mut image = zeros("parameters", &[len])?;
    for ((weight, bias), tensors) in places.iter().zip(tensors.chunks_exact(2)) {
        image[weight.clone()].copy_from_slice(&tensors[0].data);
        image[bias.clone()].copy_from_slice(&tensors[1].data);
    }
    Ok(image)
}

/// Layers and their arenas.
pub(super) struct Net {
    /// Inputs, hidden.., outputs.
    pub(super) widths: Vec<usize>,
    model: Mlp, // widths and names; its values are those that training started from
    /// Weight (N, K) and bias (N) of each layer: where they lie in every arena.
    places: Places,
    parameters: Buffer<f32>,
    /// Copies of the weights, where products read those.
    copies: Option<Copies>,
    /// SGD's velocities, or AdamW's first moments; none for SGD without momentum.
    first: Option<Buffer<f32>>,
    /// AdamW's second moments.
    second: Option<Buffer<f32>>,
    /// Made when gradients are first stored: at once for AdamW, else when they are first asked for.
    gradients: Option<Buffer<f32>>,
}

/// Copies of the weights of all layers, one after the other.
struct Copies {
    format: Format,
    chunks: Buffer<Chunk>,
    places: Vec<Range<usize>>,
}

impl Copies {
    fn new(gpu: &Gpu, widths: &[usize], format: Format) -> Result<Self, Error> {
        let mut end = 0;
        let places = widths
            .windows(2)
            .map(|layer| {
                let start = end;
                end += format.chunks(layer[1], layer[0]);
                start..end
            })
            .collect();
        Ok(Self { format, chunks: Buffer::new(gpu, "copies of weights", end)?, places })
    }
}

impl Net {
    /// A model on the device, with copies of its weights where a format is given.
    pub(super) fn new(
        gpu: &Gpu,
        model: Mlp,
        optimizer: &Optimizer,
        copied: Option<Format>,
    ) -> Result<Self, Error> {
        let mut end = 0;
        let mut place = |len: usize| {
            let start = end;
            end = (start + len).next_multiple_of(ALIGN);
            start..start + len
        };
        let places: Places = (0..model.depth())
            .map(|layer| {
                let (weight, bias) = model.linear(layer);
                (place(weight.len()), place(bias.len()))
            })
            .collect();
        let parameters = Buffer::with(gpu, "parameters", &image(&places, end, model.tensors())?)?;
        let arena = |wanted: bool, what| wanted.then(|| Buffer::new(gpu, what, end)).transpose();
        let moments = optimizer.moments().len();
        let copies = copied.map(|format| Copies::new(gpu, model.layers(), format)).transpose()?;
        let net = Self {
            widths: model.layers().to_vec(),
            model,
            places,
            parameters,
            copies,
            first: arena(moments > 0, "velocities or first moments")?,
            second: arena(moments > 1, "second moments")?,
            gradients: arena(matches!(optimizer, Optimizer::AdamW(_)), "gradients")?,
        };
        net.copy_weights(gpu)?;
        Ok(net)
    }

    /// Brings the copies of the weights up to date, where there are any.
    pub(super) fn copy_weights(&self, gpu: &Gpu) -> Result<(), Error> {
        if self.copies.is_none() {
            return Ok(());
        }
        (0..self.depth()).try_for_each(|layer| {
            let shape = (self.widths[layer + 1] as u32, self.widths[layer] as u32);
            copies::matrix(gpu, self.parameters(layer).0, self.copy(layer), shape)
        })
    }

    /// The copy of a layer's weight (N, K).
    pub(super) fn copy(&self, layer: usize) -> Copied<'_> {
        let Some(Copies { format, chunks, places }) = &self.copies else {
            unreachable!("copies are asked for where products read them")
        };
        Copied { chunks: chunks.part(places[layer].clone()), format: *format }
    }

    /// Replaces all parameters by those of a model of the same layers.
    pub(super) fn upload(&mut self, gpu: &Gpu, model: &Mlp) -> Result<(), Error> {
        assert_eq!(model.layers(), self.widths, "a model of other layers");
        self.parameters.upload(gpu, &image(&self.places, self.parameters.len(), model.tensors())?)?;
        self.copy_weights(gpu)
    }

    /// All parameters, and all velocities if there are any, to be written: there must be no copies that would stay behind.
    pub(super) fn arenas(&mut self) -> (&mut Buffer<f32>, Option<&mut Buffer<f32>>) {
        assert!(self.copies.is_none(), "copies would stay behind");
        (&mut self.parameters, self.first.as_mut())
    }

    pub(super) fn depth(&self) -> usize {
        self.places.len()
    }

    pub(super) fn activation(&self, layer: usize) -> Activation {
        if layer + 1 < self.depth() { Activation::Relu } else { Activation::Identity }
    }

    /// Weight (N, K) and bias (N) of a layer.
    pub(super) fn parameters(&self, layer: usize) -> (Region<'_, f32>, Region<'_, f32>) {
        self.of(&self.parameters, layer)
    }

    fn of<'b>(&self, arena: &'b Buffer<f32>, layer: usize) -> (Region<'b, f32>, Region<'b, f32>) {
        let (weight, bias) = &self.places[layer];
        (arena.part(weight.clone()), arena.part(bias.clone()))
    }

    /// SGD's update of a layer by its gradient.
    pub(super) fn update<'b>(&'b self, layer: usize, sgd: &Sgd, scalars: Region<'b, Scalars>) -> Sink<'b> {
        let (w, b) = self.parameters(layer);
        let SgdOptions { weight_decay: decay, gradient_share, velocity_share } = sgd_options(sgd);
        let Some(velocities) = &self.first else { return Sink::Descent { w, b, scalars, decay } };
        let (vw, vb) = self.of(velocities, layer);
        Sink::Momentum { w, b, vw, vb, scalars, decay, gradient_share, velocity_share }
    }

    /// Room for gradients.
    pub(super) fn reserve_gradients(&mut self, gpu: &Gpu) -> Result<(), Error> {
        if self.gradients.is_none() {
            self.gradients = Some(Buffer::new(gpu, "gradients", self.parameters.len())?);
        }
        Ok(())
    }

    fn stored(&self) -> &Buffer<f32> {
        let Some(gradients) = &self.gradients else {
            unreachable!("gradients are reserved before they are stored")
        };
        gradients
    }

    /// The place of a layer's gradient.
    pub(super) fn store(&self, layer: usize) -> Sink<'_> {
        let (dw, db) = self.of(self.stored(), layer);
        Sink::Store { dw, db }
    }

    /// The same, for what comes on top.
    pub(super) fn add(&self, layer: usize) -> Sink<'_> {
        let (dw, db) = self.of(self.stored(), layer);
        Sink::Add { dw, db }
    }

    /// All gradients.
    pub(super) fn gradients(&self) -> Region<'_, f32> {
        self.stored().all()
    }

    /// What SGD's kernel works on: parameters and velocities, whole.
    pub(super) fn sgd(&self) -> (Region<'_, f32>, Option<Region<'_, f32>>) {
        (self.parameters.all(), self.first.as_ref().map(Buffer::all))
    }

    /// What AdamW's kernel works on: parameters and moments, whole.
    pub(super) fn adamw(&self) -> (Region<'_, f32>, Moments<'_>) {
        let (Some(first), Some(second)) = (&self.first, &self.second) else {
            unreachable!("AdamW's arenas are made with the net")
        };
        (self.parameters.all(), Moments { first: first.all(), second: second.all() })
    }

    /// The parameters as they are.
    pub(super) fn download(&self, gpu: &Gpu) -> Result<Mlp, Error> {
        self.fetch(gpu, &self.parameters)
    }

    /// The gradients as they are, under their parameters' names.
    pub(super) fn download_gradients(&self, gpu: &Gpu) -> Result<Vec<Tensor>, Error> {
        let Some(gradients) = &self.gradients else { return Ok(Vec::new()) };
        Ok(self.fetch(gpu, gradients)?.into_tensors())
    }

    /// What the optimizer keeps, as [`TrainingState::moments`](crate::TrainingState::moments) has it.
    pub(super) fn download_moments(&self, gpu: &Gpu) -> Result<Vec<Vec<Tensor>>, Error> {
        let moments = [&self.first, &self.second].into_iter().flatten();
        moments.map(|arena| Ok(self.fetch(gpu, arena)?.into_tensors())).collect()
    }

    /// Replaces what the optimizer keeps.
    pub(super) fn upload_moments(&mut self, gpu: &Gpu, moments: &[Vec<Tensor>]) -> Result<(), Error> {
        let arenas = [&mut self.first, &mut self.second].into_iter().flatten();
        for (arena, tensors) in arenas.zip(moments) {
            arena.upload(gpu, &image(&self.places, arena.len(), tensors)?)?;
        }
        Ok(())
    }

    /// Values of an arena under their parameters' names.
    pub(super) fn fetch(&self, gpu: &Gpu, arena: &Buffer<f32>) -> Result<Mlp, Error> {
        let mut image = zeros("parameters", &[arena.len()])?;
        arena.download(gpu, &mut image)?;
        let mut model = self.model.clone();
        for (layer, (weight, bias)) in self.places.iter().enumerate() {
            let (w, b) = model.linear_mut(layer);
            w.copy_from_slice(&image[weight.clone()]);
            b.copy_from_slice(&image[bias.clone()]);
        }
        Ok(model)
    }
}
