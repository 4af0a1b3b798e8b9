//! How old is an export, and of which tenant? It says so itself; else the files' own time is taken.

use crate::cli::{Trouble, clock, unix_millis};
use crate::connector::Exported;
use crate::mail::TenantId;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// What `Export-GatepostState.ps1` writes of the export itself.
pub(super) const FILE: &str = "Export.json";

/// From here on a warning: what was set since then is not in it.
const OLD: u64 = 24 * 60 * 60;

/// When an export was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Seconds since 1970.
    at: u64,
    /// By the time of the oldest file, for the export does not say.
    guessed: bool,
}

impl Taken {
    /// From `Export.json` in the folder, else from the oldest of the files.
    ///
    /// # Errors
    /// It is another tenant's export.
    pub(super) fn read(
        said: &[Exported],
        files: &[PathBuf],
        tenant_id: &str,
    ) -> Result<Option<Self>, Trouble> {
        if let Some(own) = said.first() {
            let theirs = own.text("TenantId");
            if !theirs.is_empty() && !theirs.eq_ignore_ascii_case(tenant_id) {
                // What is no GUID may be anything.
                let whose = theirs.parse::<TenantId>().map_or_else(
                    |_| "an export whose TenantId is no GUID".to_owned(),
                    |id| format!("an export of tenant {id}"),
                );
                return Err(Trouble::Use(format!(
                    "{FILE}: {whose}, and the configuration's is {tenant_id}"
                )));
            }
            if let Some(at) = seconds(&own.text("Time")) {
                return Ok(Some(Self { at, guessed: false }));
            }
        }
        let changed = |path: &PathBuf| {
            let changed = std::fs::metadata(path).ok()?.modified().ok()?;
            Some(changed.duration_since(UNIX_EPOCH).ok()?.as_secs())
        };
        let oldest = files.iter().filter_map(changed).min();
        Ok(oldest.map(|at| Self { at, guessed: true }))
    }

    /// As JSON tells it.
    pub(super) fn moment(&self) -> String {
        clock(self.at.saturating_mul(1000))
    }

    /// Seconds since then.
    pub(super) fn age(&self) -> u64 {
        (unix_millis() / 1000).saturating_sub(self.at)
    }

    /// In words, at this age.
    pub(super) fn told(&self, age: u64) -> String {
        let by = if self.guessed {
            ", by the time of its oldest file"
        } else {
            ""
        };
        let then = if age > OLD {
            ": what was changed since is not in it; export again before you act"
        } else {
            ""
        };
        format!("exported at {}, {} ago{by}{then}", self.moment(), long(age))
    }

    /// Whether it deserves a warning.
    pub(super) fn is_old(age: u64) -> bool {
        age > OLD
    }
}

fn seconds(written: &str) -> Option<u64> {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(written, &Rfc3339).ok()?;
    at.unix_timestamp().try_into().ok()
}

/// The largest unit that it has two of.
fn long(seconds: u64) -> String {
    let units = [(86_400, "day(s)"), (3_600, "hour(s)"), (60, "minute(s)")];
    let fitting = units.iter().find(|(unit, _)| seconds >= 2 * unit);
    match fitting {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";

    fn said(json: &str) -> Vec<Exported> {
        Exported::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_export_tells_its_time_else_its_oldest_file_does() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        let at = UNIX_EPOCH + std::time::Duration::from_secs(1_795_594_533);
        for (path, at) in [(&old, at), (&new, at + std::time::Duration::from_secs(60))] {
            std::fs::File::create(path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        }
        let files = [new.clone(), old.clone()];
        let own = said(&format!(
            r#"[{{"Time": "2026-11-20T08:15:33Z", "TenantId": "{TENANT}"}}]"#
        ));
        let taken = Taken::read(&own, &files, TENANT).unwrap().unwrap();
        assert_eq!(taken.moment(), "2026-11-20T08:15:33Z");
        assert_eq!(
            taken.told(7_200),
            "exported at 2026-11-20T08:15:33Z, 2 hour(s) ago"
        );
        for silent in ["[]", r#"{"Time": "yesterday"}"#] {
            let taken = Taken::read(&said(silent), &files, TENANT).unwrap().unwrap();
            assert_eq!(taken.moment(), "2026-11-25T08:15:33Z");
            assert!(
                taken
                    .told(0)
                    .ends_with("0 s ago, by the time of its oldest file")
            );
        }
        assert_eq!(Taken::read(&[], &[], TENANT).unwrap(), None);
    }

    #[test]
    fn older_than_a_day_is_a_warning_with_what_to_do() {
        let taken = Taken {
            at: 0,
            guessed: false,
        };
        for (age, is_old) in [(0, false), (OLD, false), (OLD + 1, true), (9 * OLD, true)] {
            assert_eq!(Taken::is_old(age), is_old);
            assert_eq!(taken.told(age).contains("export again"), is_old, "{age}");
        }
        assert!(taken.told(9 * OLD).contains("9 day(s) ago"));
    }

    #[test]
    fn another_tenants_export_is_refused() {
        let own = said(r#"{"Time": "2026-11-20T08:15:33Z", "TenantId": "99999999-8888"}"#);
        assert!(Taken::read(&own, &[], TENANT).is_err());
    }
}
