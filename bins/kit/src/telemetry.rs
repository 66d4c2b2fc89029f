//! Logs: human-readable lines on stderr, chosen by `JISCORD_LOG`.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        MakeWriter,
        format::{Writer, debug_fn},
    },
    util::SubscriberInitExt,
};

use crate::exit::Refused;

/// Starts logging for the whole process. `filter` is a [`Config`](crate::Config)'s, which was checked when it was read.
pub fn install(filter: &str) -> Result<(), Refused> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Refused::because(format!("JISCORD_LOG: {error}")))?;
    subscriber(filter, io::stderr, io::stderr().is_terminal())
        .try_init()
        .map_err(|error| Refused::because(format!("logging was set up already: {error}")))
}

fn subscriber<W>(filter: EnvFilter, writer: W, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .fmt_fields(debug_fn(on_one_line).delimited(" "))
        .finish()
}

/// A field without what a terminal would obey, and without line breaks: some fields hold what others have said, who could
/// make it look like a line of the log.
fn on_one_line(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(to, "{}=", field.name())?;
    }
    for c in format!("{value:?}").chars() {
        if c.is_control() { write!(to, "{}", c.escape_default()) } else { to.write_char(c) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_say_stays_on_its_line() {
        let page = Page::default();
        let writer = page.clone();
        let log = subscriber(EnvFilter::new("trace"), move || writer.clone(), false);
        tracing::subscriber::with_default(log, || {
            let said = "x\r\n2026-01-01 ERROR jiscord: all is lost \u{1b}[31m\u{7}\u{9b}1m";
            let span = tracing::info_span!("request", path = %said);
            span.in_scope(|| tracing::warn!(displayed = %said, debugged = ?said, said, n = 7, "hello {said}"));
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.ends_with('\n') && !text.trim_end().contains(char::is_control), "{text:?}");
        let there = [" WARN ", "request{path=x\\r\\n2026", "hello x\\r\\n2026", " displayed=x\\r\\n2026", " n=7", "\\u{1b}[31m"];
        for part in there {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
