//! How a command ends when it does not end well, and the exit code of that.

use std::fmt;
use std::process::ExitCode;

use relight_ingest::IngestError;
use relight_store::StoreError;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The run failed: 1.
    Run(anyhow::Error),
    /// Bad usage or config: 2.
    Usage(anyhow::Error),
    /// A `--fail-if` held: 3.
    Expectation(String),
}

impl Failure {
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Run(_) => 1,
            Self::Usage(_) => 2,
            Self::Expectation(_) => 3,
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}

impl From<IngestError> for Failure {
    /// What was named wrongly is bad usage; what the disk does not give is a failed run.
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Open { .. }
            | IngestError::Read { .. }
            | IngestError::Write { .. }
            | IngestError::Listen { .. }
            | IngestError::Empty { .. } => Self::Run(error.into()),
            _ => Self::Usage(error.into()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Run(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(error) | Self::Usage(error) => write!(f, "{error:#}"),
            Self::Expectation(what) => f.write_str(what),
        }
    }
}
