//! The command line's grammar.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A gateway that pools ChatGPT accounts behind one OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    /// The configuration file; without one, the built-in defaults and the environment.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve (the default).
    Serve,
    /// Bring the database up to date and stop.
    Migrate,
    /// Read the configuration, tell every mistake, and stop.
    CheckConfig,
    /// Show the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The accounts of the pool.
    Accounts {
        #[command(subcommand)]
        command: AccountsCommand,
    },
    /// The api keys that callers present, and the key that encrypts account tokens.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The configuration in force, secrets masked.
    Show,
    /// Every environment variable with its default.
    EnvExample,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Add the logins of `auth.json` files (see `codex login`). A login that is known gets its new tokens.
    Import {
        /// The files.
        #[arg(required = true, value_name = "AUTH_JSON")]
        files: Vec<PathBuf>,
    },
    /// List the accounts.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print its secret, this once.
    Create {
        /// What to call it.
        #[arg(long)]
        name: String,
        /// When it ends, such as 2027-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List the keys.
    List,
    /// Revoke a key for good.
    Revoke {
        /// Its id, as `keys list` shows it.
        id: String,
    },
    /// Move the accounts' tokens to a new encryption key, while servers run or not. See docs/encryption-key.md.
    RotateEncryption {
        /// Make a new key although other machines might use the same PostgreSQL database without having it.
        #[arg(long)]
        generate: bool,
        /// Remove the key that the last rotation moved away from.
        #[arg(long, conflicts_with = "generate")]
        discard_old: bool,
    },
}
