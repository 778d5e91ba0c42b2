//! The host engine from outside: gradients, training, bad input.

mod gradients;
mod naive;
mod optimizers;
mod training;
