//! How a command ends: what it says on standard error and its exit code, which scripts rely on.

use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Anything that went wrong: exit code 1.
    Error(String),
    /// The command line makes no sense: exit code 2.
    Usage(String),
    /// What was checked is not as it should be, or there is a difference: exit code 3.
    CheckFailed(String),
    /// Resources are invalid: exit code 4.
    Rejected(String),
    /// It took too long: exit code 5.
    Timeout(String),
}

/// What every command returns.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Error(_) => 1,
            Self::Usage(_) => 2,
            Self::CheckFailed(_) => 3,
            Self::Rejected(_) => 4,
            Self::Timeout(_) => 5,
        }
    }

    /// What to say; may be empty when the command has said everything on standard output.
    pub(crate) fn message(&self) -> &str {
        let (Self::Error(message)
        | Self::Usage(message)
        | Self::CheckFailed(message)
        | Self::Rejected(message)
        | Self::Timeout(message)) = self;
        message
    }

    /// Prints the message and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message().is_empty() {
            eprintln!("error: {}", self.message());
        }
        ExitCode::from(self.code())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Error(error.to_string())
    }
}
