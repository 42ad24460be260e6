//! The programs that one build makes lie side by side; what is measured must come from the same build as this.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// The path of a program of this workspace.
///
/// # Errors
/// When it was not built.
pub(crate) fn sibling_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name(name);
    ensure!(path.exists(), "{} is missing: run `cargo build --release --workspace --bins`", path.display());
    Ok(path)
}
