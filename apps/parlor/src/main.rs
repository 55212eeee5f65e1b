//! `parlor`: the server and its tools in one binary.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addresses;
mod arguments;
mod check;
mod control;
mod external;
mod load_test;
mod metrics;
mod outbox;
mod participant;
mod process;
mod room;
mod serve;
mod settings;
mod token;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "A real-time media server that speaks LiveKit's protocol")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<arguments::Arguments>),
    /// Make access tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Look at rooms, create and delete them.
    #[command(subcommand)]
    Room(room::Command),
    /// Look at the participants of a room, and remove them.
    #[command(subcommand)]
    Participant(participant::Command),
    /// Put load on a server and report what its participants see.
    LoadTest(Box<load_test::Arguments>),
}

/// Why a command failed, in words for the person who typed it.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Token(command) => token::run(&command),
        Command::Room(command) => room::run(&command),
        Command::Participant(command) => participant::run(&command),
        Command::LoadTest(arguments) => load_test::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("parlor: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
