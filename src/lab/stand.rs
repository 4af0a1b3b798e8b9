//! What have the lab's two servers in common, the simulated Exchange and the one outside? They accept within bounds, answer
//! by the script where it has something to say, and keep what they took until it is fetched.

use super::script::Action;
use super::wire::Wire;
use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// The messages that are kept before they are fetched; older ones make room.
pub(super) const KEPT: usize = 20_000;

/// A panic elsewhere leaves nothing half-written behind: the lock stays usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was taken, oldest first, until it is fetched.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    kept: Mutex<VecDeque<Arc<T>>>,
    news: Notify,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl<T> Inbox<T> {
    pub(super) fn keep(&self, message: Arc<T>) {
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(message);
        drop(kept);
        self.news.notify_waiters();
    }

    /// What was not fetched yet.
    pub(super) fn waiting(&self) -> Vec<Arc<T>> {
        lock(&self.kept).iter().cloned().collect()
    }

    /// Fetches the first one that is wanted, waited for so long at most; others stay.
    pub(super) async fn fetch(
        &self,
        wait: Duration,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        let take = || {
            let mut kept = lock(&self.kept);
            let position = kept.iter().position(|message| wanted(message))?;
            kept.remove(position)
        };
        let look = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(found) = take() {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(wait, look).await.ok()
    }
}

/// Serves each connection in a task of its own, as many at once as there are places; ends when those are closed.
pub(super) async fn accept<F, E>(
    listener: TcpListener,
    places: Arc<Semaphore>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display,
{
    let mut sessions = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((tcp, peer)) = listener.accept().await else {
            continue;
        };
        let session = serve(tcp, peer);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(async move {
            if let Err(error) = session.await {
                tracing::debug!(%peer, %error, "a connection of the lab ended");
            }
            drop(place);
        });
    }
}

/// Whether the connection goes on, and whether the answer was a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    No,
    Closed,
}

/// Answers as the script has it, else truly.
pub(super) async fn act(wire: &mut Wire, action: Option<Action>, truth: &str) -> io::Result<Said> {
    match action {
        None => plain(wire, truth).await,
        Some(Action::Reply(reply)) => plain(wire, &reply).await,
        Some(Action::ReplyAndClose(reply)) => {
            plain(wire, &reply).await?;
            Ok(Said::Closed)
        }
        Some(Action::Drop) => Ok(Said::Closed),
        Some(Action::Stall(time)) => {
            tokio::time::sleep(time).await;
            plain(wire, truth).await
        }
    }
}

pub(super) async fn plain(wire: &mut Wire, reply: &str) -> io::Result<Said> {
    wire.say(&format!("{reply}\r\n")).await?;
    Ok(if reply.starts_with(['2', '3']) {
        Said::Yes
    } else {
        Said::No
    })
}
