//! The composition root: reads the command line, loads the configuration, and hands over.
//!
//! What fails here fails with one clear sentence and a non-zero exit.

mod accounts;
mod cli;
mod keys;
mod open;
mod output;
mod rotate_encryption;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
use codex_lb_shared::config::{Config, LoadOptions, env_example};
use codex_lb_shared::telemetry::init_logging;

use crate::cli::{AccountsCommand, Cli, Command, ConfigCommand, KeysCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Two TLS libraries' worth of code would panic over the choice; make it before anything asks.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        output::complain("another TLS provider was installed first; this is a bug, please report it");
        return ExitCode::FAILURE;
    }
    // Each stream takes two descriptors, and login shells often allow a thousand. Where the limit stays, so does a
    // smaller number of streams; nothing else depends on it.
    let (Ok(_) | Err(_)) = rlimit::increase_nofile_limit(u64::MAX);
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or(Command::Serve);
    if let Command::Config { command: ConfigCommand::EnvExample } = command {
        return output::print(&env_example());
    }
    let config = Config::load(&LoadOptions::from_process(cli.config))?;
    for warning in &config.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    match command {
        Command::Serve => {
            init_logging(config.log.format, &config.log.filter);
            serve::run(config)
        }
        Command::CheckConfig => output::print_line("the configuration is valid"),
        Command::Config { command: ConfigCommand::Show } => output::print(&config.masked()),
        Command::Config { command: ConfigCommand::EnvExample } => output::print(&env_example()),
        Command::Migrate => block_on(async {
            open::store(&config).await?;
            output::print_line("the database is up to date")
        }),
        Command::Accounts { command: AccountsCommand::Import { files } } => block_on(accounts::import(&config, &files)),
        Command::Accounts { command: AccountsCommand::List } => block_on(accounts::list(&config)),
        Command::Keys { command: KeysCommand::Create { name, expires_at } } => {
            block_on(keys::create(&config, &name, expires_at.as_deref()))
        }
        Command::Keys { command: KeysCommand::List } => block_on(keys::list(&config)),
        Command::Keys { command: KeysCommand::Revoke { id } } => block_on(keys::revoke(&config, &id)),
        Command::Keys { command: KeysCommand::RotateEncryption { generate, discard_old } } => block_on(async {
            if discard_old {
                rotate_encryption::discard_old(&config).await
            } else {
                rotate_encryption::rotate(&config, generate).await
            }
        }),
    }
}

/// Runs a short command on a runtime of its own.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
