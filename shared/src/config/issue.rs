//! One mistake in the configuration, and all of them together. Never holds a secret: values arrive here masked.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The built-in defaults.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable of a `.env.local`.
    DotEnv(PathBuf, String),
    /// A variable of the process environment.
    Environment(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::DotEnv(path, name) => write!(f, "{name} in {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// One mistake: which key, from where, what value, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The key as `section.key`, or what stands in its place, such as a file.
    pub key: String,
    /// Where the value came from.
    pub source: Source,
    /// The value, masked if it is a secret; `None` when there is none to show.
    pub value: Option<String>,
    /// What is wrong, in lower case.
    pub problem: String,
    /// What to write instead, in lower case.
    pub remedy: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value:?}")?;
        }
        write!(f, " ({}): {}; {}", self.source, self.problem, self.remedy)
    }
}

/// Every mistake that was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    issues: Vec<Issue>,
}

impl ConfigErrors {
    pub(super) fn new(issues: Vec<Issue>) -> Self {
        debug_assert!(!issues.is_empty(), "a configuration failed to load without a reason");
        Self { issues }
    }

    /// The mistakes, in the order of the sections.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.issues.len();
        write!(f, "the configuration has {count} mistake{}", if count == 1 { "" } else { "s" })?;
        for issue in &self.issues {
            write!(f, "\n  {issue}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
