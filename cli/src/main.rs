//! The `event-distributor` binary: command line, wiring, progress and exit codes. What the roles do is in their crates.

mod allocator;
mod args;
mod check;
mod configure;
mod dead_letters;
mod generate;
mod logging;
mod progress;
mod replay;
mod report;
mod rewrite;
mod trusted;
mod verify;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, ConfigCommand, DlqCommand};

/// Why a command ended, by exit code.
#[derive(Debug)]
pub enum Failure {
    /// 2: the command line or the configuration is wrong; nothing was done.
    Usage(anyhow::Error),
    /// 1: it was right, but did not work out.
    Runtime(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Runtime(error.into())
    }
}

impl Failure {
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }
}

fn main() -> ExitCode {
    allocator::configure();
    let cli = Cli::parse();
    let code = match run(cli) {
        Ok(()) => 0,
        Err(Failure::Usage(error)) => complain(&error, 2),
        Err(Failure::Runtime(error)) => complain(&error, 1),
    };
    ExitCode::from(code)
}

#[allow(clippy::print_stderr, reason = "the last word of a command line program")]
fn complain(error: &anyhow::Error, code: u8) -> u8 {
    eprintln!("error: {error:#}");
    code
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Config { command: ConfigCommand::Print(args) } => configure::print(&args),
        Command::Dlq { command: DlqCommand::List(args) } => wiring::block_on(&args.common, dead_letters::list(&args)),
        Command::Dlq { command: DlqCommand::Replay(args) } => {
            wiring::block_on(&args.common, dead_letters::replay(&args))
        }
        Command::Replay(args) if args.rewrite => wiring::block_on(&args.common, rewrite::rewrite(&args)),
        Command::Replay(args) => wiring::block_on(&args.common, replay::replay(&args)),
        Command::Check(args) => wiring::block_on(&args.common, check::check(&args)),
        Command::Verify(args) => wiring::block_on(&args.common, verify::verify(&args)),
        Command::Run(args) => wiring::block_on(&args.common, wiring::run(&args)),
        Command::Ingest(args) => wiring::block_on(&args.common, wiring::ingest(&args)),
        Command::Distribute(args) => wiring::block_on(&args.common, wiring::distribute(&args)),
    }
}
