//! The `kiln` command, as a library: [`main`] is all of it, and [`replay`] is what tests of parity share with it.
//!
//! The only crate that talks to a person. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 a run that was ended before its last
//! epoch, as asked.

mod checkpoint;
mod cli;
mod commands;
mod engine;
mod files;
mod help;
mod model_file;
pub mod replay;
mod settings;
mod stop;
mod tensor_file;
mod terminal;

use std::process::ExitCode;

use cli::{Cli, Command, Usage};
use stop::Interrupted;
use terminal::warn;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    stop::not_by_file_limits();
    let command = Cli::read().command;
    let resident = command.asks_for_resident();
    let result = match command {
        Command::Train(arguments) => commands::train::run(*arguments),
        Command::Sweep(arguments) => commands::sweep::run(&arguments),
        Command::Profile(arguments) => commands::profile::run(&arguments),
        Command::Eval(arguments) => commands::eval::run(&arguments),
        Command::Parity(arguments) => commands::parity::run(&arguments),
        Command::Data(arguments) => commands::data::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&format!("error: {}", help::causes(&error)));
            if let Some(help) = help::of(&error, resident) {
                warn(&format!("help: {help}"));
            }
            if error.chain().any(|cause| cause.is::<Usage>()) {
                return Usage::EXIT_CODE.into();
            }
            match error.downcast_ref() {
                Some(Interrupted { .. }) => Interrupted::EXIT_CODE.into(),
                None => ExitCode::FAILURE,
            }
        }
    }
}
