//! Content on its way in: memory while small, a file of its own once large; gone when dropped.

use super::{SpoolError, spool_error};
use crate::journal::large::{Bodies, Incoming, LARGE};
use bytes::Bytes;

/// Bytes of a message that nothing has promised to keep yet.
#[derive(Debug)]
pub struct Draft {
    bodies: Bodies,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Vec<u8>),
    File(Box<Incoming>),
    /// A write is under way, or was given up.
    Moving,
}

impl Draft {
    pub(super) fn new(bodies: Bodies) -> Self {
        Self {
            bodies,
            content: Content::Memory(Vec::new()),
        }
    }

    /// Appends arrival bytes. Small ones stay in memory; a large body goes to its file on a blocking thread.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        if let Content::Memory(kept) = &mut self.content
            && kept.len() + bytes.len() <= LARGE
        {
            // Copied: `bytes` may be a corner of a large read buffer, which a queued message would keep alive.
            kept.extend_from_slice(&bytes);
            return Ok(());
        }
        let content = std::mem::replace(&mut self.content, Content::Moving);
        let bodies = self.bodies.clone();
        let written = tokio::task::spawn_blocking(move || {
            let incoming = match content {
                Content::Memory(kept) => {
                    let mut incoming = Box::new(bodies.create()?);
                    incoming.write(&kept)?;
                    incoming.write(&bytes)?;
                    incoming
                }
                Content::File(mut incoming) => {
                    incoming.write(&bytes)?;
                    incoming
                }
                Content::Moving => return Err(crate::journal::JournalError::Closed),
            };
            Ok(incoming)
        });
        let incoming = written
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?;
        self.content = Content::File(incoming.map_err(spool_error)?);
        Ok(())
    }

    /// The bytes so far, once more in memory: the caller sees to it that there is room.
    ///
    /// # Errors
    /// The disk is failing, or a write has failed before.
    pub async fn read_back(&self) -> Result<Vec<u8>, SpoolError> {
        let incoming = match &self.content {
            Content::Memory(kept) => return Ok(kept.clone()),
            Content::File(incoming) => incoming,
            Content::Moving => return Err(spool_error(crate::journal::JournalError::Closed)),
        };
        tokio::task::spawn_blocking(incoming.read_back())
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?
            .map_err(spool_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_draft_reads_back_from_memory_and_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = Draft::new(Bodies::new(folder.path().to_owned(), Arc::new(RealDisk)));
        let small: Vec<u8> = (0..LARGE).map(|number| (number % 251) as u8).collect();
        draft.append(Bytes::from(small.clone())).await.unwrap();
        assert!(matches!(draft.content, Content::Memory(_)));
        assert_eq!(draft.read_back().await.unwrap(), small);
        draft.append(Bytes::from_static(b"more")).await.unwrap();
        assert!(matches!(draft.content, Content::File(_)));
        assert_eq!(
            draft.read_back().await.unwrap(),
            [&small[..], b"more"].concat()
        );
    }
}
