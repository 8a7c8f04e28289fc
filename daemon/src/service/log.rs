//! Log lines go to stderr from a thread of their own. When whatever reads them is slow, or stuck
//! behind the very device that is being served, lines are dropped: nothing here ever waits.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait.
const LINES: usize = 1024;

/// Lines are written until the guard is dropped. `DMREMAP_LOG` chooses what is logged, as
/// `debug` or `dmremap_policyd::driver=trace`.
pub fn start() -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("DMREMAP_LOG")
        .from_env_lossy();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // The journal has its own clock, and colours are for terminals only.
    let lines = lines.with_ansi(false).with_target(false);
    let set = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => lines.without_time().try_init(),
        None => lines.try_init(),
    };
    if let Err(error) = set {
        eprintln!("no log: {error}");
    }
    guard
}
