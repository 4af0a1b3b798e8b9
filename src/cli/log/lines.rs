//! What if nobody reads the log? A pipe that is full makes its writer wait, and a session or a delivery that waits for its
//! log line is mail that stands still.
//!
//! So lines are left here, and a thread of its own carries them to standard error. Where it cannot, they wait in bounded
//! memory; what comes then is lost and counted, and the log says so once it is read again. A standard error that is closed
//! is no fault of mail either.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Octets of lines that may wait.
const MOST: usize = 4 * 1024 * 1024;

/// Where lines are left: cheap to clone, never waits for who reads them.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
    written: Condvar,
    most: usize,
    counter: OnceLock<prometheus::IntCounter>,
}

#[derive(Debug, Default)]
struct Waiting {
    octets: Vec<u8>,
    /// Lines that found no room since the last that were written.
    lost: u64,
    /// Some are on their way.
    writing: bool,
}

impl Lines {
    /// Lines that go to `out`, on a thread of its own.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_room(MOST, out)
    }

    fn with_room(most: usize, out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            more: Condvar::new(),
            written: Condvar::new(),
            most,
            counter: OnceLock::new(),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || own.carry(out))?;
        Ok(Self(shared))
    }

    /// Lost lines are counted here, too.
    pub(super) fn count_in(&self, counter: prometheus::IntCounter) {
        let lost = self.0.waiting().lost;
        if self.0.counter.set(counter).is_ok() {
            self.0.count(lost);
        }
    }

    /// Waits until everything is written; not for long, for perhaps nobody reads.
    pub(super) fn flush(&self, patience: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.writing || !waiting.octets.is_empty();
        let waited = self
            .0
            .written
            .wait_timeout_while(self.0.waiting(), patience, is_busy);
        // Whether it came to that or not: this is the end.
        drop(waited);
    }
}

impl Write for Lines {
    /// Takes a line as a whole, or loses it; tells no error.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting();
        if waiting.octets.len().saturating_add(line.len()) > self.0.most {
            waiting.lost += 1;
            drop(waiting);
            self.0.count(1);
        } else {
            waiting.octets.extend_from_slice(line);
            drop(waiting);
            self.0.more.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, lines: u64) {
        if let Some(counter) = self.counter.get() {
            counter.inc_by(lines);
        }
    }

    fn carry(&self, mut out: impl Write) {
        loop {
            let (octets, lost) = {
                let idle = |waiting: &mut Waiting| waiting.octets.is_empty();
                let waiting = self.more.wait_while(self.waiting(), idle);
                let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
                waiting.writing = true;
                (
                    std::mem::take(&mut waiting.octets),
                    std::mem::take(&mut waiting.lost),
                )
            };
            let written = out.write_all(&octets).and_then(|()| out.flush());
            if written.is_err() {
                // Closed, or its disk is full: nobody can be told.
                let lines = octets.iter().filter(|octet| **octet == b'\n').count();
                self.count(lines as u64);
            } else if lost > 0 {
                // A line like any other, in the format of the log: it comes back here.
                tracing::warn!(
                    lines = lost,
                    "the log was not read quickly enough: lines are lost here, mail is not"
                );
            }
            self.waiting().writing = false;
            self.written.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::sync::mpsc;

    /// Takes what it is allowed to take.
    struct Reader {
        may: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(io::Error::other)?;
            self.taken.send(octets.to_vec()).map_err(io::Error::other)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn who_does_not_read_costs_lines_and_no_time() {
        let (allow, may) = mpsc::channel();
        let (taken, seen) = mpsc::channel();
        let mut lines = Lines::with_room(10, Reader { may, taken }).unwrap();
        let counter = prometheus::IntCounter::new("lost", "lost").unwrap();
        lines.count_in(counter.clone());
        lines.write_all(b"first\n").unwrap();
        // It is taken off the pile and hangs; ten octets more may wait, the rest is lost.
        while !lines.0.waiting().writing {
            std::thread::yield_now();
        }
        for _ in 0..1000 {
            lines.write_all(b"next\n").unwrap();
        }
        assert_eq!(counter.get(), 998);
        lines.flush(Duration::from_millis(1));
        allow.send(()).unwrap();
        allow.send(()).unwrap();
        assert_eq!(seen.recv_timeout(LONG).unwrap(), b"first\n");
        assert_eq!(seen.recv_timeout(LONG).unwrap(), b"next\nnext\n");
        lines.flush(LONG);
        assert_eq!(lines.0.waiting().lost, 0, "told");
    }

    #[test]
    fn a_log_that_is_closed_is_no_error_and_what_is_open_gets_every_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::to(writer).unwrap();
        lines.write_all(b"one\n").unwrap();
        lines.write_all(b"two\n").unwrap();
        lines.flush(LONG);
        let mut seen = [0; 8];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one\ntwo\n");
        drop(reader);
        let counter = prometheus::IntCounter::new("lost", "lost").unwrap();
        lines.count_in(counter.clone());
        lines.write_all(b"three\n").unwrap();
        lines.flush(LONG);
        assert_eq!(counter.get(), 1);
    }
}
