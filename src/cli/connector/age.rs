//! How old is an export, and of which tenant? It says so itself; else the files' own time is taken.
//!
//! What cannot be so is told as it stands there: a time ahead of ours is a wrong clock, here or there.

use crate::cli::{Trouble, unix_millis};
use crate::connector::Exported;
use crate::mail::TenantId;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What `Export-GatepostState.ps1` writes of the export itself.
pub(super) const FILE: &str = "Export.json";

/// From here on a warning: what was set since then is not in it.
const OLD: i64 = 24 * 60 * 60;
/// So far may clocks be apart before it is told.
const APART: i64 = 5 * 60;

/// By what the moment of an export is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// It says so.
    Itself,
    /// The time of the oldest file, for the export does not say.
    Files,
    /// The same, for what it says is no time.
    FilesForNoTime,
}

/// When an export was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    at: OffsetDateTime,
    by: By,
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
        let mut by = By::Files;
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
            let time = own.text("Time");
            if let Ok(at) = OffsetDateTime::parse(&time, &Rfc3339) {
                let by = By::Itself;
                return Ok(Some(Self { at, by }));
            }
            if !time.is_empty() {
                by = By::FilesForNoTime;
            }
        }
        let changed = |path: &PathBuf| std::fs::metadata(path).ok()?.modified().ok();
        let oldest = files.iter().filter_map(changed).min();
        Ok(oldest.map(|at| Self { at: at.into(), by }))
    }

    /// As JSON tells it.
    pub(super) fn moment(&self) -> String {
        let whole = self.at.replace_nanosecond(0).unwrap_or(self.at);
        let utc = whole.to_offset(time::UtcOffset::UTC);
        utc.format(&Rfc3339).unwrap_or_default()
    }

    /// Seconds since then; less than nothing where it lies in the future.
    pub(super) fn age(&self) -> i64 {
        let now = i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX);
        now.saturating_sub(self.at.unix_timestamp())
    }

    /// In words, at this age.
    pub(super) fn told(&self, age: i64) -> String {
        let by = match self.by {
            By::Itself => String::new(),
            By::Files => ", by the time of its oldest file".to_owned(),
            By::FilesForNoTime => {
                format!(", by the time of its oldest file, for the Time of {FILE} is none")
            }
        };
        let moment = self.moment();
        if age < -APART {
            let ahead = long(age.unsigned_abs());
            return format!(
                "exported at {moment}{by}, which is in the future by {ahead}: the clock there or here is wrong, and how old it is nobody can tell; export again before you act"
            );
        }
        let then = if age > OLD {
            ": what was changed since is not in it; export again before you act"
        } else {
            ""
        };
        let ago = long(age.max(0).unsigned_abs());
        format!("exported at {moment}, {ago} ago{by}{then}")
    }

    /// Whether it deserves a warning.
    pub(super) fn deserves_a_look(&self, age: i64) -> bool {
        !(-APART..=OLD).contains(&age) || self.by == By::FilesForNoTime
    }
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
    use std::time::UNIX_EPOCH;

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
        for (silent, end, deserves_a_look) in [
            ("[]", "0 s ago, by the time of its oldest file", false),
            (
                r#"{"Time": null}"#,
                "0 s ago, by the time of its oldest file",
                false,
            ),
            (
                r#"{"Time": "yesterday"}"#,
                "oldest file, for the Time of Export.json is none",
                true,
            ),
        ] {
            let taken = Taken::read(&said(silent), &files, TENANT).unwrap().unwrap();
            assert_eq!(taken.moment(), "2026-11-25T08:15:33Z");
            assert!(taken.told(0).ends_with(end), "{}", taken.told(0));
            assert_eq!(taken.deserves_a_look(0), deserves_a_look);
        }
        assert_eq!(Taken::read(&[], &[], TENANT).unwrap(), None);
    }

    #[test]
    fn older_than_a_day_is_a_warning_with_what_to_do() {
        let taken = Taken {
            at: UNIX_EPOCH.into(),
            by: By::Itself,
        };
        for (age, is_old) in [(0, false), (OLD, false), (OLD + 1, true), (9 * OLD, true)] {
            assert_eq!(taken.deserves_a_look(age), is_old);
            assert_eq!(taken.told(age).contains("export again"), is_old, "{age}");
        }
        assert!(taken.told(9 * OLD).contains("9 day(s) ago"));
    }

    #[test]
    fn a_time_ahead_or_of_another_century_is_told_as_it_stands_there() {
        for (time, moment) in [
            ("1900-01-02T03:04:05Z", "1900-01-02T03:04:05Z"),
            ("2999-01-02T03:04:05.25+02:00", "2999-01-02T01:04:05Z"),
        ] {
            let own = said(&format!(r#"{{"Time": "{time}"}}"#));
            let taken = Taken::read(&own, &[], TENANT).unwrap().unwrap();
            assert_eq!((taken.moment().as_str(), taken.by), (moment, By::Itself));
        }
        let taken = Taken {
            at: UNIX_EPOCH.into(),
            by: By::Itself,
        };
        for (age, told) in [
            (-APART, "0 s ago"),
            (-APART - 1, "in the future by 5 minute(s): the clock"),
            (-90 * OLD, "in the future by 90 day(s): the clock"),
        ] {
            assert!(taken.told(age).contains(told), "{}", taken.told(age));
            assert_eq!(taken.deserves_a_look(age), age < -APART);
        }
    }

    #[test]
    fn another_tenants_export_is_refused() {
        let own = said(r#"{"Time": "2026-11-20T08:15:33Z", "TenantId": "99999999-8888"}"#);
        assert!(Taken::read(&own, &[], TENANT).is_err());
    }
}
