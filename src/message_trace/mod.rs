//! The story of each message: what happened, in order, with evidence. Shown by `gatepost trace`.
//!
//! Rooms hand events to a [`Tracer`], which never blocks them; a thread of its own appends them to daily files of JSON
//! lines and keeps the look-up keys. What the bounded queue cannot take, or the disk has no room for beside the mail, is
//! counted as lost. The trace is not mail: it is not synced.

mod event;
mod inbox;
mod log;
mod query;
mod shelf;

pub use event::{Event, LegSummary, Offered, RecipientResult, TlsFacts, TraceEvent};
pub use query::Query;

use crate::metrics::Metrics;
use inbox::{Line, Sender};
use log::Writer;
use shelf::Shelf;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where rooms hand in events: cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Tracer {
    inbox: Arc<Sender>,
    shelf: Arc<Shelf>,
    lost: prometheus::IntCounter,
}

impl Tracer {
    /// Opens the trace in `directory`; files older than `keep` are deleted with each [`Self::today`]. An index that another process holds, or that
    /// cannot be opened, is done without: look-ups then read the files.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: &Path, keep: Duration, metrics: &Metrics) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let lost = metrics.trace_lost.clone();
        let shelf = Arc::new(Shelf::new(directory.to_owned()));
        let (sender, receiver) = inbox::inbox();
        let writer = Writer::new(Arc::clone(&shelf), keep, lost.clone());
        std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            inbox: Arc::new(sender),
            shelf,
            lost,
        })
    }

    /// Notes an event.
    pub fn record(&self, event: &TraceEvent) {
        self.hand_in(event, Sender::push);
    }

    /// Notes an event, waiting where too many wait already: for work in bulk, on threads that may.
    pub fn record_patiently(&self, event: &TraceEvent) {
        self.hand_in(event, Sender::push_patiently);
    }

    fn hand_in(&self, event: &TraceEvent, push: impl Fn(&Sender, &Line) -> bool) {
        let line = Line::of(event);
        if !line.is_ok_and(|line| push(&self.inbox, &line)) {
            self.lost.inc();
        }
    }

    /// Tells the time (milliseconds since 1970), at the start and now and then: events that are older than is kept go, also
    /// where nothing new comes.
    pub fn today(&self, unix_millis: u64) {
        let today = Some(log::day_of(unix_millis));
        self.inbox.order(|orders| orders.today = today);
    }

    /// Keeps events for as long from now on.
    pub fn keep(&self, keep: Duration) {
        self.inbox.order(|orders| orders.keep = Some(keep));
    }

    /// Completes when everything recorded before can be found.
    pub async fn flush(&self) {
        let (done, written) = tokio::sync::oneshot::channel();
        self.inbox.order(|orders| orders.flushes.push(done));
        if written.await.is_err() {
            tracing::debug!("the trace writer is gone");
        }
    }

    /// Finds the events of messages that fit, grouped by queue id, each group in order; bounded in number.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn find(&self, query: Query) -> std::io::Result<Vec<TraceEvent>> {
        self.flush().await;
        let shelf = Arc::clone(&self.shelf);
        tokio::task::spawn_blocking(move || query::find(&shelf, &query))
            .await
            .map_err(std::io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::mail::shown;
    use crate::trust::Evidence;

    fn refused(at: u64, id: &str, sender: &str) -> TraceEvent {
        let event = Event::Refused {
            listener: "exchange".to_owned(),
            peer: "192.0.2.1:25".to_owned(),
            application: None,
            tenant: None,
            sender: Some(sender.to_owned()),
            recipients: vec!["bob@contoso.com".to_owned()],
            message_id: Some(format!("<{id}@x>")),
            reply: "550 5.7.1 no".to_owned(),
            reason: "stranger".to_owned(),
            evidence: Evidence::default(),
        };
        TraceEvent {
            at,
            id: id.to_owned(),
            event,
        }
    }

    fn operator(at: u64, id: &str) -> TraceEvent {
        TraceEvent {
            at,
            id: id.to_owned(),
            event: Event::Operator {
                action: "retry".to_owned(),
            },
        }
    }

    const DAY: u64 = 86_400_000;

    async fn ids(tracer: &Tracer, text: &str) -> Vec<(String, u64)> {
        let query = Query {
            text: Some(text.to_owned()),
            ..Query::default()
        };
        tracer
            .find(query)
            .await
            .unwrap()
            .into_iter()
            .map(|event| (event.id, event.at / DAY))
            .collect()
    }

    #[tokio::test]
    async fn a_story_begins_with_its_beginning_whoever_wrote_first() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(86_400 * 3650 * 10);
        let tracer = Tracer::open(folder.path(), keep, &Metrics::new().unwrap()).unwrap();
        tracer.record(&operator(DAY, "A"));
        tracer.record(&refused(DAY, "A", "ada@contoso.com"));
        tracer.flush().await;
        let story = tracer.find(Query::default()).await.unwrap();
        assert!(story[0].event.is_first(), "{story:?}");
    }

    #[tokio::test]
    async fn every_key_finds_the_whole_story_also_after_the_index_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let open = || {
            Tracer::open(
                &path,
                Duration::from_secs(86_400 * 3650 * 10),
                &Metrics::new().unwrap(),
            )
            .unwrap()
        };
        let tracer = open();
        tracer.record(&refused(DAY, "A", "ada@contoso.com"));
        tracer.record(&refused(DAY + 1, "B", "eve@fabrikam.com"));
        tracer.record(&operator(2 * DAY, "A"));
        let story = vec![("A".to_owned(), 1), ("A".to_owned(), 2)];
        assert_eq!(
            ids(&tracer, "ADA@contoso.com").await,
            story,
            "all events of the message, also without the key"
        );
        assert_eq!(ids(&tracer, "<A@x>").await, story);
        assert_eq!(ids(&tracer, "A@x").await, story, "without the brackets");
        assert_eq!(ids(&tracer, "bob@contoso.com").await.len(), 3);
        let query = Query {
            text: None,
            since: Some(DAY + 1),
            until: Some(DAY + 2),
        };
        assert_eq!(tracer.find(query).await.unwrap().len(), 1);
        tracer.flush().await;
        drop(tracer);
        // The writer ends with the last tracer; the lock goes with it.
        let index = path.join("index");
        for _ in 0..200 {
            if Index::open(&index).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_dir_all(&index).unwrap();
        assert_eq!(ids(&open(), "ada@contoso.com").await, story, "rebuilt");
    }

    #[tokio::test]
    async fn names_beyond_ascii_are_found_as_typed_and_as_shown() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(86_400 * 36_500);
        let open = || Tracer::open(folder.path(), keep, &Metrics::new().unwrap()).unwrap();
        let tracer = open();
        let long = "\u{fc}".repeat(60) + "@contoso.com";
        let id_long = "x".repeat(230);
        // As a session tells it.
        let event = |id: &str, sender: &str, message_id: &str| {
            let mut event = refused(DAY, id, &shown(sender.as_bytes()));
            if let Event::Refused {
                message_id: own, ..
            } = &mut event.event
            {
                *own = Some(shown(format!("<{message_id}>").as_bytes()));
            }
            event
        };
        tracer.record(&event("A", "J\u{fc}rgen@contoso.com", "\u{e9}1@x"));
        tracer.record(&event("B", "\u{c9}VA@contoso.com", &id_long));
        tracer.record(&event("C", &long, "3@x"));
        tracer.flush().await;
        // With the index, and without it: a second one reads the files.
        for tracer in [&tracer, &open()] {
            for (name, id) in [
                ("J\u{fc}rgen@contoso.com", "A"),
                ("j\u{fc}rgen@CONTOSO.com", "A"),
                ("J\u{dc}RGEN@contoso.com", "A"),
                (r"J\xc3\xbcrgen@contoso.com", "A"),
                (r"j\xc3\xbcrgen@contoso.com", "A"),
                ("\u{e9}1@x", "A"),
                ("<\u{e9}1@x>", "A"),
                (r"<\xc3\xa91@x>", "A"),
                (r"\xc3\xa91@x", "A"),
                ("\u{c9}VA@contoso.com", "B"),
                ("\u{e9}va@contoso.com", "B"),
                (&*id_long, "B"),
                (&*format!("<{id_long}>"), "B"),
                (&*long, "C"),
                (&*shown(long.as_bytes()), "C"),
            ] {
                let found = ids(tracer, name).await;
                assert_eq!(found, [(id.to_owned(), 1)], "{name}");
            }
            for name in ["jurgen@contoso.com", "\u{fc}", "\u{c3}\u{bc}@contoso.com"] {
                assert!(ids(tracer, name).await.is_empty(), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_crash_kept_from_the_index_is_read_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(86_400 * 36_500);
        let open = || Tracer::open(folder.path(), keep, &Metrics::new().unwrap()).unwrap();
        let tracer = open();
        tracer.record(&refused(DAY, "A", "ada@contoso.com"));
        tracer.flush().await;
        drop(tracer);
        let file = folder.path().join("1970-01-02.jsonl");
        let index = folder.path().join("index");
        let mut read = None;
        for _ in 0..200 {
            let opened = Index::open(&index).ok();
            read = opened.map(|index| index.read_until(1).unwrap());
            if read.is_some_and(|read| read > 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // As one who was killed leaves it: lines that the index has not been given, the last one torn.
        let mut text = std::fs::read(&file).unwrap();
        let before = text.len() as u64;
        assert_eq!(read, Some(before));
        for event in [
            operator(DAY + 1, "A"),
            refused(DAY + 2, "B", "ada@contoso.com"),
        ] {
            serde_json::to_writer(&mut text, &event).unwrap();
            text.push(b'\n');
        }
        text.extend_from_slice(b"{\"at\":1,\"id\":\"to");
        std::fs::write(&file, text).unwrap();
        let tracer = open();
        tracer.record(&operator(DAY + 3, "B"));
        let stories = ids(&tracer, "ada@contoso.com").await;
        let names: Vec<&str> = stories.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["A", "A", "B", "B"]);
        // A second one has no index, and says the same.
        let other = open();
        assert_eq!(ids(&other, "ADA@contoso.com").await, stories);
        assert_eq!(ids(&other, "b").await.len(), 2, "an id, in small letters");
    }

    /// Lines are lost before mail is refused, and the trace goes on where there is room again.
    #[test]
    fn the_last_of_the_disk_is_left_to_the_mail() {
        use std::sync::atomic::{AtomicU64, Ordering};
        static FREE: AtomicU64 = AtomicU64::new(0);
        static SIZE: AtomicU64 = AtomicU64::new(0);
        const MIB: u64 = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let shelf = Arc::new(Shelf::new(folder.path().to_owned()));
        let (sender, receiver) = inbox::inbox();
        let keep = Duration::from_secs(86_400 * 36_500);
        let room = |_: &Path| {
            Ok(log::Room {
                free: FREE.load(Ordering::SeqCst),
                size: SIZE.load(Ordering::SeqCst),
            })
        };
        // 256 MiB of a large disk are left, and a quarter of a small one.
        for (size, least) in [(1_000_000 * MIB, 256 * MIB), (300 * MIB, 75 * MIB)] {
            SIZE.store(size, Ordering::SeqCst);
            let lost = metrics.trace_lost.clone();
            let mut writer = Writer::new(Arc::clone(&shelf), keep, lost.clone()).with_room(room);
            let mut batch = inbox::Batch::default();
            let before = lost.get();
            for (free, id, is_lost) in [
                (least + MIB, "A", 0),
                (least, "B", 1),
                (0, "B", 2),
                // Not at once at the edge.
                (least + MIB, "B", 3),
                (least + 17 * MIB, "D", 3),
                (least + MIB, "A", 3),
            ] {
                FREE.store(free, Ordering::SeqCst);
                assert!(sender.push(&Line::of(&operator(DAY, id)).unwrap()));
                receiver.next(&mut batch, true).unwrap();
                writer.write(&batch);
                batch.clear();
                assert_eq!(lost.get() - before, is_lost, "{id} on a disk of {size}");
            }
        }
        // A file system that says nothing of itself.
        FREE.store(0, Ordering::SeqCst);
        SIZE.store(0, Ordering::SeqCst);
        let lost = metrics.trace_lost.clone();
        let mut writer = Writer::new(shelf, keep, lost.clone()).with_room(room);
        let (mut batch, before) = (inbox::Batch::default(), lost.get());
        assert!(sender.push(&Line::of(&operator(DAY, "A")).unwrap()));
        receiver.next(&mut batch, true).unwrap();
        writer.write(&batch);
        assert_eq!(lost.get(), before);
        let text = std::fs::read_to_string(folder.path().join("1970-01-02.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(text.contains("\"A\"") && text.contains("\"D\"") && !text.contains("\"B\""));
    }

    /// Names of the daily files, which nobody else may read.
    fn files(folder: &Path) -> Vec<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                entry.file_name().into_string().unwrap()
            })
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn retention_deletes_files_at_the_start_and_as_days_go_by_also_without_mail() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let keep = Duration::from_secs(3 * 86_400);
            Tracer::open(folder.path(), keep, &Metrics::new().unwrap()).unwrap()
        };
        let tracer = open();
        for day in 1..=10 {
            tracer.record(&operator(day * DAY, "A"));
        }
        tracer.flush().await;
        let days = |range: std::ops::RangeInclusive<u32>| -> Vec<String> {
            range
                .map(|day| format!("1970-01-{:02}.jsonl", day + 1))
                .collect()
        };
        assert_eq!(
            files(folder.path()),
            days(1..=10),
            "an event's date deletes nothing"
        );
        tracer.today(11 * DAY + 5);
        tracer.flush().await;
        assert_eq!(files(folder.path()), days(8..=10), "without one");
        assert_eq!(
            ids(&tracer, "A").await.len(),
            3,
            "what is gone is not found"
        );
        tracer.keep(Duration::from_secs(2 * 86_400));
        tracer.flush().await;
        assert_eq!(
            files(folder.path()),
            days(9..=10),
            "a shorter time after a reload"
        );
        drop(tracer);
        let tracer = open();
        tracer.today(13 * DAY);
        tracer.flush().await;
        assert_eq!(files(folder.path()), days(10..=10), "at the start");
        assert_eq!(ids(&tracer, "A").await, [("A".to_owned(), 10)]);
    }

    #[tokio::test]
    async fn a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let tracer = Tracer::open(
            folder.path(),
            Duration::from_secs(86_400 * 36_500),
            &Metrics::new().unwrap(),
        )
        .unwrap();
        tracer.record(&operator(DAY, "A"));
        tracer.flush().await;
        let path = folder.path().join("1970-01-02.jsonl");
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"at\":1,\"id\":\"to");
        std::fs::write(&path, text).unwrap();
        let query = Query {
            text: None,
            since: Some(0),
            until: None,
        };
        assert_eq!(tracer.find(query).await.unwrap().len(), 1);
    }
}
