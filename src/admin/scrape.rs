//! What does `/metrics` cost where many ask at once, or one without end? Everybody may ask: the text is made once for all who
//! wait for it, and after it the maker rests for longer than it took.

use bytes::Bytes;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The rest, in times of what the text took.
const REST: u32 = 4;
/// No rest is longer.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The last text.
#[derive(Debug, Default)]
pub(super) struct Scrape(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    begun: Instant,
    rested: Instant,
    text: Bytes,
}

impl Scrape {
    /// A text that was made after the call, by this caller or another.
    ///
    /// # Errors
    /// That of `make`.
    pub(super) async fn text<E>(
        &self,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(made) = &*last {
            if made.begun > asked {
                return Ok(made.text.clone());
            }
            tokio::time::sleep_until(made.rested).await;
        }
        let begun = Instant::now();
        let text = make()?;
        let rest = (begun.elapsed() * REST).min(LONGEST_REST);
        *last = Some(Made {
            begun,
            rested: Instant::now() + rest,
            text: text.clone(),
        });
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn many_who_ask_at_once_share_what_was_made_after_they_asked() {
        let (scrape, made) = (Arc::new(Scrape::default()), Arc::new(AtomicU64::new(0)));
        let ask = || {
            let (scrape, made) = (Arc::clone(&scrape), Arc::clone(&made));
            async move {
                let asked = made.load(Ordering::SeqCst);
                let make = || {
                    let number = made.fetch_add(1, Ordering::SeqCst) + 1;
                    Ok::<_, ()>(Bytes::from(number.to_string()))
                };
                let text = scrape.text(make).await.unwrap();
                let number: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                assert!(number > asked, "no older than the question");
            }
        };
        ask().await;
        ask().await;
        assert_eq!(made.load(Ordering::SeqCst), 2, "one after the other");
        let mut asking = JoinSet::new();
        for _ in 0..100 {
            asking.spawn(ask());
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        let made = made.load(Ordering::SeqCst);
        assert!((3..=4).contains(&made), "{made}");
    }
}
