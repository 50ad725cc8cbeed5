//! The `event-distributor` binary: command line, wiring, progress and exit codes. The roles are in crates of their own.

mod abandon;
mod allocator;
mod args;
mod check;
mod compact;
mod configure;
mod ddl;
mod dead_letters;
mod generate;
mod logging;
mod print;
mod progress;
mod repair;
mod replay;
mod report;
mod rewrite;
mod stores;
mod table;
mod trusted;
mod verify;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, ConfigCommand, DlqCommand, LogFormat, TableCommand};
use common::printable;

/// The reason why a command failed, by exit code.
#[derive(Debug)]
pub enum Failure {
    /// 2: the command line or the configuration is invalid; nothing was done.
    Usage(anyhow::Error),
    /// 1: the configuration is valid, but the command failed.
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explain(&error)),
    };
    let format = cli.command.log_format();
    let (error, code) = match run(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Runtime(error)) => (error, 1),
    };
    print::error(format, &format!("{error:#}"));
    ExitCode::from(code)
}

/// Prints help, the version, or the error in the command line.
fn explain(error: &clap::Error) -> u8 {
    let plain = error.render().to_string();
    let wants_json = || args::wants_json_logs(std::env::args_os());
    if error.use_stderr() && (wants_json() || printable::lines(&plain) != plain) {
        let format = if wants_json() { LogFormat::Json } else { LogFormat::Text };
        print::error(format, plain.trim_start_matches("error: ").trim_end());
    } else {
        // In colour. A failure cannot be reported.
        let _ = error.print();
    }
    if error.use_stderr() { 2 } else { 0 }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Config { command: ConfigCommand::Print(args) } => configure::print(&args),
        Command::Dlq { command: DlqCommand::List(args) } => wiring::block_on(&args.common, dead_letters::list(&args)),
        Command::Dlq { command: DlqCommand::Replay(args) } => {
            wiring::block_on(&args.common, dead_letters::replay(&args))
        }
        Command::Abandon(args) => wiring::block_on(&args.common, abandon::abandon(&args)),
        Command::Repair(args) => wiring::block_on(&args.common, repair::repair(&args)),
        Command::Replay(args) => wiring::block_on(&args.common, replay::replay(&args)),
        Command::Rewrite(args) => wiring::block_on(&args.common, rewrite::rewrite(&args)),
        Command::Table { command: TableCommand::Rebuild(args) } => {
            wiring::block_on(&args.common, table::rebuild(&args))
        }
        Command::Ddl(args) => wiring::block_on(&args.common, ddl::ddl(&args)),
        Command::Compact(args) => wiring::block_on(&args.common, compact::compact(&args)),
        Command::Check(args) => wiring::block_on(&args.common, check::check(&args)),
        Command::Verify(args) => wiring::block_on(&args.common, verify::verify(&args)),
        Command::Run(args) => wiring::block_on(&args.common, wiring::run(&args)),
        Command::Ingest(args) => wiring::block_on(&args.common, wiring::ingest(&args)),
        Command::Distribute(args) => wiring::block_on(&args.common, wiring::distribute(&args)),
    }
}
