//! Does all come out again, and is all space given back?

use super::super::*;
use super::model::seen;
use super::world::World;

impl World {
    /// Delivers all there is, and looks at every octet; then nothing is left, also of space.
    pub(super) async fn drain(&mut self) -> Result<(), String> {
        self.leases.clear();
        self.now += 1_000_000_000;
        let _released = self.spool.act(None, None, QueueAction::Release, self.now);
        for queue in self.model.queues() {
            while let Some(due) = self.spool.next_due(&queue, self.now) {
                let id = due.message().id.as_u64();
                let mail = self.model.mail(id);
                if *due.message() != mail.message {
                    return Err(format!("{id} came back as {:?}", due.message()));
                }
                let mut octets = Vec::new();
                loop {
                    let piece = self.spool.read(&due, octets.len() as u64).await;
                    let piece = piece.map_err(|error| format!("{id}: {error}"))?;
                    if piece.is_empty() {
                        break;
                    }
                    octets.extend_from_slice(&piece);
                }
                if octets != rendered(&mail.body) {
                    return Err(format!("{id} came back with other octets"));
                }
                let all = due.recipients().iter();
                let all = all.map(|at| (*at, Disposition::Delivered)).collect();
                self.spool.settle(due, all, true);
            }
        }
        for id in self.model.queued() {
            self.model.act(id, QueueAction::Delete, self.now);
        }
        if !seen(&self.spool).is_empty() {
            return Err(format!("not delivered: {:?}", seen(&self.spool)));
        }
        for _ in 0..4 {
            self.write();
            self.tidy();
        }
        self.mark();
        let spool = self.root.join("spool");
        let bodies = names(&spool.join("bodies"));
        // Where a torn write looks like damage, a body that nothing names is kept for a later start.
        if !bodies.is_empty() && !spool.join("damaged").exists() {
            return Err(format!("bodies are left: {bodies:?}"));
        }
        let mut logs = names(&spool);
        logs.retain(|name| name.ends_with(".log"));
        if logs.len() > 2 {
            return Err(format!("space is not given back: {logs:?}"));
        }
        Ok(())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}
