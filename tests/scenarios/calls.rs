//! In which order does the server call the real disk, and when does it say 250? Kills show little of that, since the kernel
//! keeps what was written and not synced; so here strace only listens (or lets calls fail), and what it heard is read.
//!
//! Of each message that was answered 250: its octets were written whole to a segment or to a file of their own, an fdatasync of
//! that file began later and went well, the file's present name was given and its folder synced, and then the answer was sent.

use crate::harness::{Changes, Process, Surroundings, free_port};
use crate::injected::has_strace;
use gatepost::lab::{ApplicationClient, Mail, Security};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Messages that are answered 250 in a round, and that are tried at most.
const ENOUGH: usize = 10;
const MOST: usize = 200;

/// What is listened to; calls on sockets for the answer.
const HEARD: &str =
    "pwritev,pwrite64,write,writev,sendto,sendmsg,fdatasync,fsync,rename,renameat,renameat2";

/// A call: where in the log it began and ended, and how it went.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    name: String,
    arguments: String,
    result: i64,
}

impl Call {
    fn path(&self) -> &str {
        let inside = self.arguments.split_once('<');
        inside.map_or("", |(_, rest)| rest.split('>').next().unwrap_or(""))
    }

    fn is_write(&self) -> bool {
        matches!(
            self.name.as_str(),
            "pwritev" | "pwrite64" | "write" | "writev"
        )
    }

    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fdatasync" | "fsync")
    }

    /// Octets that it was to write, and where.
    fn asked(&self) -> (i64, i64) {
        let number = |text: &str| text.trim().trim_end_matches(')').parse::<i64>().unwrap();
        let mut last = self.arguments.rsplitn(3, ", ");
        let offset = number(last.next().unwrap());
        let count = last.next().unwrap();
        if self.name == "pwrite64" {
            return (number(count), offset);
        }
        let lengths = self.arguments.split("iov_len=").skip(1);
        let digits = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        (lengths.map(|text| number(&digits(text))).sum(), offset)
    }

    fn renamed(&self) -> Option<(&str, &str)> {
        let mut names = self.arguments.split('"').skip(1).step_by(2);
        (self.name.starts_with("rename") && self.result == 0)
            .then(|| names.next().zip(names.next()))
            .flatten()
    }
}

/// The calls of a log of `strace -f`, in the order in which they ended.
fn read(log: &Path) -> Vec<Call> {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let mut begun = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let (began, whole) = if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(thread.to_owned(), (at, first.to_owned()));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((began, first)) = begun.remove(thread) else {
                continue;
            };
            let end = rest.split_once("resumed>").map_or("", |(_, end)| end);
            (began, format!("{first}{end}"))
        } else {
            (at, rest.to_owned())
        };
        let Some((call, result)) = whole.rsplit_once(" = ") else {
            continue;
        };
        let Some((name, arguments)) = call.split_once('(') else {
            continue;
        };
        let result = result.split(' ').next().unwrap_or("?");
        calls.push(Call {
            began,
            ended: at,
            name: name.to_owned(),
            arguments: arguments.trim_end().to_owned(),
            result: result.parse().unwrap_or(-1),
        });
    }
    calls
}

/// Why the answer to the message with this mark, which is `calls[answer]`, should not have been sent.
fn what_is_missing(calls: &[Call], mark: &str, answer: &Call) -> Option<String> {
    let of_the_disk = |call: &&Call| {
        call.ended < answer.began && (call.path().starts_with('/') || call.renamed().is_some())
    };
    let before: Vec<&Call> = calls.iter().filter(of_the_disk).collect();
    let has_mark = |call: &&&Call| call.is_write() && call.arguments.contains(mark);
    let why = |call: &&Call| {
        let (octets, offset) = call.asked();
        if call.result <= 0 {
            return Some(format!("nothing was written: {call:?}"));
        }
        let mut file = call.path().to_owned();
        let mut ended = call.ended;
        // A short write goes on where it ended.
        let mut done = call.result;
        while done < octets {
            let next = before.iter().find(|next| {
                next.began > ended
                    && next.is_write()
                    && next.path() == file
                    && next.result > 0
                    && next.asked() == (octets - done, offset + done)
            });
            let Some(next) = next else {
                return Some(format!("{done} of {octets} octets were written: {call:?}"));
            };
            (done, ended) = (done + next.result, next.ended);
        }
        let mut is_synced = before.iter().any(|sync| {
            sync.is_sync() && sync.path() == file && sync.began > ended && sync.result == 0
        });
        // The name: the last one that it was given, before or behind the write.
        let renamed = before
            .iter()
            .filter_map(|call| Some((call, call.renamed()?)));
        let mut named = None;
        for (call, (from, to)) in renamed {
            if from == file {
                to.clone_into(&mut file);
            }
            if to == file {
                named = Some(call);
            }
        }
        is_synced |= before.iter().any(|sync| {
            sync.is_sync() && sync.path() == file && sync.began > ended && sync.result == 0
        });
        if !is_synced {
            return Some(format!("{file} was not synced after {call:?}"));
        }
        let Some(named) = named else {
            return Some(format!("{file} was never named"));
        };
        let folder = Path::new(&file)
            .parent()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let is_named = before.iter().any(|sync| {
            sync.is_sync() && sync.path() == folder && sync.began > named.ended && sync.result == 0
        });
        (!is_named).then(|| format!("{folder} was not synced after {named:?}"))
    };
    let mut writes = before.iter().filter(has_mark).peekable();
    if writes.peek().is_none() {
        return Some("it was not written".to_owned());
    }
    // Where a write failed, the message may have been written again.
    let faults: Vec<_> = writes.map(why).collect();
    faults
        .into_iter()
        .reduce(|one, other| one.and(other))
        .flatten()
}

/// Whether it was taken.
async fn session_of(session: &mut gatepost::lab::Client, mail: &Mail) -> bool {
    session
        .transaction(mail)
        .await
        .is_ok_and(|answer| answer.accepted())
}

/// Some messages, one after the other, under strace with `inject`; how many were answered 250, and how many were not.
async fn round(inject: Option<&str>) -> (usize, usize) {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let config = around.configuration(ports, &Changes::default());
    let log = around.folder.path().join("strace");
    let server = {
        let (config, log, inject) = (config.clone(), log.clone(), inject.map(str::to_owned));
        let starting = move || Process::listened_to(&config, HEARD, inject.as_deref(), &log);
        tokio::task::spawn_blocking(starting).await.unwrap()
    };
    let listener = SocketAddr::from(([127, 0, 0, 1], ports[2]));
    let roots = around.authority.roots().unwrap();
    let client = ApplicationClient::new(listener, crate::harness::HOSTNAME, &roots).unwrap();
    // In clear text, so that strace hears the answers.
    let scanner = client
        .security(Security::Clear)
        .from_address("127.0.7.7".parse().unwrap());
    let (mut kept, mut refused) = (Vec::new(), 0);
    let mut session = scanner.connect().await.unwrap();
    for number in 0..MOST {
        if kept.len() == ENOUGH {
            break;
        }
        let octets = if number % 6 == 3 {
            1_300_000
        } else {
            500 * number
        };
        let line = "a line of the body, seventy octets of it, and then another one of them\r\n";
        let body = line.repeat(1 + octets / line.len());
        let mark = format!("X-Load: {number}-of-it\r\n");
        let content = format!("{mark}From: scanner@contoso.com\r\nSubject: x\r\n\r\n{body}");
        let mail = Mail::new(
            "scanner@contoso.com",
            "bob@contoso.com",
            content.into_bytes(),
        );
        let answer = session_of(&mut session, &mail).await;
        if answer {
            kept.push(mark.replace("\r\n", "\\r\\n"));
        } else {
            refused += 1;
            // A pace: the committer gets well within a second.
            tokio::time::sleep(Duration::from_millis(50)).await;
            session = scanner.connect().await.unwrap();
        }
    }
    session.quit().await;
    server.kill();
    let calls = read(&log);
    let is_answer = |call: &&Call| call.arguments.contains("Ok: queued as");
    let answers: Vec<_> = calls.iter().filter(is_answer).collect();
    assert_eq!(answers.len(), kept.len(), "each answer is heard");
    for (mark, answer) in kept.iter().zip(answers) {
        if let Some(why) = what_is_missing(&calls, mark, answer) {
            panic!("with {inject:?}, {mark} was answered 250, and {why}");
        }
    }
    (kept.len(), refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_250_is_sent_after_the_calls_that_keep_what_it_promises() {
    if !has_strace() {
        println!("skipped: strace is missing, or may not trace here");
        return;
    }
    for (inject, fails) in [
        (None, false),
        (Some("fdatasync:error=EIO:when=3+4"), true),
        (Some("pwritev,pwrite64:error=ENOSPC:when=4+5"), true),
        // As if so much had been written; strace leaves the call out.
        (Some("pwritev:retval=100:when=3+2"), false),
    ] {
        let (kept, refused) = round(inject).await;
        println!("{inject:?}: {kept} answered 250, {refused} not");
        assert_eq!(kept, ENOUGH, "{inject:?}");
        assert_eq!(fails, refused > 0, "{inject:?}: {refused}");
    }
}
