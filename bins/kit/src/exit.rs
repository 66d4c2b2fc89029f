//! How a binary ends: a line that says what to mend, and a code that tells a supervisor whether trying again helps.

use std::{error::Error, fmt, process::ExitCode};

/// `EX_CONFIG` of sysexits(3): somebody must change something first, so a supervisor should not start it again.
pub const EX_CONFIG: u8 = 78;

/// The program does not start as it is set up. Each line names what is wrong and how to mend it.
#[derive(Debug)]
pub struct Refused(pub Vec<String>);

impl Refused {
    /// One reason.
    pub fn because(line: impl Into<String>) -> Self {
        Self(vec![line.into()])
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Error for Refused {}

/// Tells on stderr why `program` ends, and with which code: 78 for [`Refused`], 1 for all else.
pub fn report(program: &str, error: &(dyn Error + Send + Sync + 'static)) -> ExitCode {
    if let Some(Refused(lines)) = error.downcast_ref() {
        for line in lines {
            eprintln!("{program}: {line}");
        }
        return ExitCode::from(EX_CONFIG);
    }
    let mut line = format!("{program}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("{line}");
    ExitCode::FAILURE
}
