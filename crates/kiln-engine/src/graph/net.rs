//! The model on the device: parameters, velocities and gradients, each one arena.

use std::ops::Range;

use crate::gpu::{Activation, Buffer, Gpu, Region, Scalars, Sink};
use crate::{Error, Mlp, Sgd, Tensor};

/// Values that a tensor's place is a multiple of, so that every tensor begins at 16 bytes.
const ALIGN: usize = 4;

/// Layers and their arenas.
pub(super) struct Net {
    /// Inputs, hidden.., outputs.
    pub(super) widths: Vec<usize>,
    model: Mlp, // widths and names; its values are those that training started from
    /// Weight (N, K) and bias (N) of each layer: where they lie in every arena.
    places: Vec<(Range<usize>, Range<usize>)>,
    parameters: Buffer<f32>,
    /// None without momentum.
    velocities: Option<Buffer<f32>>,
    /// Made when gradients are first asked for.
    gradients: Option<Buffer<f32>>,
}

impl Net {
    pub(super) fn new(gpu: &Gpu, model: Mlp, sgd: &Sgd) -> Result<Self, Error> {
        let mut end = 0;
        let mut place = |len: usize| {
            let start = end;
            end = (start + len).next_multiple_of(ALIGN);
            start..start + len
        };
        let places: Vec<_> = (0..model.depth())
            .map(|layer| {
                let (weight, bias) = model.linear(layer);
                (place(weight.len()), place(bias.len()))
            })
            .collect();
        let mut image = vec![0.0; end];
        for (layer, (weight, bias)) in places.iter().enumerate() {
            let (w, b) = model.linear(layer);
            image[weight.clone()].copy_from_slice(w);
            image[bias.clone()].copy_from_slice(b);
        }
        let parameters = Buffer::with(gpu, "parameters", &image)?;
        let velocities = if sgd.momentum == 0.0 { None } else { Some(Buffer::new(gpu, "velocities", end)?) };
        Ok(Self { widths: model.layers().to_vec(), model, places, parameters, velocities, gradients: None })
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

    /// The update of a layer by its gradient.
    pub(super) fn update<'b>(&'b self, layer: usize, sgd: &Sgd, scalars: Region<'b, Scalars>) -> Sink<'b> {
        let (w, b) = self.parameters(layer);
        let decay = sgd.weight_decay as f32;
        let Some(velocities) = &self.velocities else { return Sink::Descent { w, b, scalars, decay } };
        let (vw, vb) = self.of(velocities, layer);
        let (gradient_share, velocity_share) =
            if sgd.nesterov { (1.0, sgd.momentum as f32) } else { (0.0, 1.0) };
        Sink::Momentum { w, b, vw, vb, scalars, decay, gradient_share, velocity_share }
    }

    /// Room for gradients.
    pub(super) fn reserve_gradients(&mut self, gpu: &Gpu) -> Result<(), Error> {
        if self.gradients.is_none() {
            self.gradients = Some(Buffer::new(gpu, "gradients", self.parameters.len())?);
        }
        Ok(())
    }

    /// The place of a layer's gradient.
    pub(super) fn store(&self, layer: usize) -> Result<Sink<'_>, Error> {
        let Some(gradients) = &self.gradients else {
            unreachable!("gradients are reserved before they are stored")
        };
        let (dw, db) = self.of(gradients, layer);
        Ok(Sink::Store { dw, db })
    }

    /// The scalars of so many steps. At the very first step of a run the velocity is the gradient.
    pub(super) fn scalars(&self, sgd: &Sgd, steps: usize, first: bool) -> Vec<Scalars> {
        let lr = sgd.lr as f32;
        let usual =
            Scalars { lr, keep: sgd.momentum as f32, fresh: (1.0 - sgd.dampening) as f32, unused: 0.0 };
        let mut rows = vec![usual; steps];
        if first {
            rows[0] = Scalars { keep: 0.0, fresh: 1.0, ..usual };
        }
        rows
    }

    /// The parameters as they are.
    pub(super) fn download(&self, gpu: &Gpu) -> Result<Mlp, Error> {
        self.fetch(gpu, &self.parameters)
    }

    /// The gradients as they are, under their parameters' names.
    pub(super) fn download_gradients(&self, gpu: &Gpu) -> Result<Vec<Tensor>, Error> {
        let Some(gradients) = &self.gradients else { return Ok(Vec::new()) };
        Ok(self.fetch(gpu, gradients)?.tensors().to_vec())
    }

    fn fetch(&self, gpu: &Gpu, arena: &Buffer<f32>) -> Result<Mlp, Error> {
        let mut image = vec![0.0; arena.len()];
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
