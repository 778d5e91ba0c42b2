//! Lines on standard output, a progress bar on standard error where that is a terminal.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use kiln_engine::Progress;
use serde::Serialize;

/// Writes a line to standard output; an error where nobody reads it any more.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

/// Writes a line of JSON to standard output.
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string(value)?)
}

/// Writes a line to standard error. Where nobody reads that either, there is nobody left to tell.
pub(crate) fn warn(line: &str) {
    _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// `1 epoch`, `10 epochs`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A bar of `len` units, in which `{rate}` is units a second. It draws on a terminal only.
pub(crate) fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate =
        |state: &ProgressState, text: &mut dyn fmt::Write| _ = write!(text, "{:.0}/s", state.per_sec());
    bar.with_style(style.with_key("rate", rate))
}

/// The bar of an epoch, which goes with it.
pub(crate) struct EpochBar<'a> {
    bar: ProgressBar,
    name: String,
    /// Whether someone has asked for an end, which comes after this epoch.
    stop: &'a AtomicBool,
}

impl<'a> EpochBar<'a> {
    pub(crate) fn new(name: String, samples: usize, stop: &'a AtomicBool) -> Self {
        let bar = bar(samples as u64, "{msg} {wide_bar} {pos}/{len} samples, {rate}, {eta}");
        bar.set_message(name.clone());
        Self { bar, name, stop }
    }

    pub(crate) fn show(&self, now: Progress) {
        let end = if self.stop.load(Relaxed) { ", ending as asked" } else { "" };
        self.bar.set_position(now.samples as u64);
        self.bar.set_message(format!("{}: loss {:.3}{end}", self.name, now.loss));
    }
}

impl Drop for EpochBar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
