//! May others on this machine read a file that holds a secret, or have put it there?
//!
//! The owner may, and a group that was given the file on purpose (`install -g gatepost -m 640`): only what is open to
//! everybody is told. A file behind a folder that others may not enter is out of their reach, whatever its own mode says.

use std::path::Path;

/// What is wrong and the line that mends it; `None` where all is well, or nobody can say.
#[cfg(unix)]
pub(super) fn exposed(path: &Path) -> Option<String> {
    // Where a link leads is what counts, and what lies above it there.
    let real = path.canonicalize().ok()?;
    let own = mode(&real)?;
    let may = match (own & OTHERS_READ != 0, own & OTHERS_WRITE != 0) {
        (true, true) => "read and change",
        (true, false) => "read",
        (false, true) => "change",
        (false, false) => return None,
    };
    // A device or a pipe is nobody's file.
    (real.is_file() && is_in_reach(&real)).then(|| open(&real, may, own))
}

/// Why a file, or the folder that it lies in, may be somebody else's doing, or known to everybody; `None` where only we or
/// root can have written it, and where it is not there.
#[cfg(unix)]
#[must_use]
pub fn foreign(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if metadata.is_symlink() {
        return Some(format!("{} is a link", named(path)));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Some(format!(
            "{} belongs to another user (uid {owner})",
            named(path)
        ));
    }
    if !metadata.is_dir() {
        return exposed(path);
    }
    // That others may read the names in it is no harm.
    let real = path.canonicalize().ok()?;
    let own = metadata.mode();
    (own & OTHERS_WRITE != 0 && is_in_reach(&real)).then(|| open(&real, "change", own))
}

/// Elsewhere there are no modes.
#[cfg(not(unix))]
pub(super) fn exposed(_: &Path) -> Option<String> {
    None
}

/// Elsewhere there are no owners that we know of.
#[cfg(not(unix))]
#[must_use]
pub fn foreign(_: &Path) -> Option<String> {
    None
}

#[cfg(unix)]
const OTHERS_READ: u32 = 0o4;
#[cfg(unix)]
const OTHERS_WRITE: u32 = 0o2;

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(std::fs::metadata(path).ok()?.permissions().mode())
}

/// Whether others may enter every folder above.
#[cfg(unix)]
fn is_in_reach(real: &Path) -> bool {
    const OTHERS_ENTER: u32 = 0o1;
    let enter = |folder: &Path| mode(folder).is_none_or(|mode| mode & OTHERS_ENTER != 0);
    real.ancestors().skip(1).all(enter)
}

#[cfg(unix)]
fn open(real: &Path, may: &str, mode: u32) -> String {
    let shown = named(real);
    format!(
        "everybody on this machine may {may} {shown} (mode {:04o}): chmod o-rwx {}",
        mode & 0o7777,
        word(&shown)
    )
}

/// The line is for a shell: the path as it is, unless it would act on a terminal.
#[cfg(unix)]
fn named(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.chars().any(char::is_control) {
        crate::mail::shown(path.as_bytes())
    } else {
        path.into_owned()
    }
}

/// As a shell takes it for one word.
#[cfg(unix)]
fn word(path: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+,@%=:".contains(letter);
    if path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    fn set(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_is_open_to_everybody_is_told_with_the_line_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        set(folder.path(), 0o755);
        let path = folder.path().canonicalize().unwrap().join("smart host.key");
        std::fs::write(&path, "secret").unwrap();
        for (mode, told) in [
            (0o600, None),
            (0o640, None),
            (0o660, None),
            (0o644, Some("may read ")),
            (0o604, Some("may read ")),
            (0o666, Some("may read and change ")),
            (0o602, Some("may change ")),
        ] {
            set(&path, mode);
            let found = exposed(&path);
            assert_eq!(found.is_some(), told.is_some(), "{mode:o}: {found:?}");
            let (Some(found), Some(told)) = (found, told) else {
                continue;
            };
            let whole = format!("(mode {mode:04o}): chmod o-rwx '{}'", path.display());
            assert!(found.contains(told) && found.ends_with(&whole), "{found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }

    #[test]
    fn the_line_names_the_path_whole_and_in_its_own_letters() {
        let folder = tempfile::tempdir().unwrap();
        set(folder.path(), 0o755);
        let inner = folder
            .path()
            .canonicalize()
            .unwrap()
            .join("schlüssel")
            .join("d".repeat(240));
        std::fs::create_dir_all(&inner).unwrap();
        let path = inner.join("smarthost.key");
        std::fs::write(&path, "").unwrap();
        for own in [inner.parent().unwrap(), &inner] {
            set(own, 0o755);
        }
        set(&path, 0o644);
        let found = exposed(&path).unwrap();
        assert!(
            found.ends_with(&format!("chmod o-rwx '{}'", path.display())),
            "{found}"
        );
        let bell = inner.join("a\u{7}b");
        std::fs::write(&bell, "").unwrap();
        set(&bell, 0o644);
        assert!(!exposed(&bell).unwrap().contains('\u{7}'));
    }

    #[test]
    fn a_folder_that_others_may_not_enter_keeps_them_out() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, link) = (folder.path().join("in"), folder.path().join("link"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("key"), "").unwrap();
        std::os::unix::fs::symlink(inner.join("key"), &link).unwrap();
        set(&inner.join("key"), 0o644);
        for (outside, inside, told) in [
            (0o755, 0o755, true),
            (0o700, 0o755, false),
            (0o755, 0o750, false),
        ] {
            set(folder.path(), outside);
            set(&inner, inside);
            assert_eq!(exposed(&inner.join("key")).is_some(), told);
            assert_eq!(
                exposed(&link).is_some(),
                told,
                "where the link leads counts"
            );
        }
        assert_eq!(exposed(&folder.path().join("missing")), None);
        assert_eq!(exposed(Path::new("/dev/null")), None);
    }

    #[test]
    fn what_somebody_else_may_have_put_there_is_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, link) = (folder.path().join("in"), folder.path().join("link"));
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("values");
        std::fs::write(&file, "secret").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        set(folder.path(), 0o755);
        for (outside, inside, folder_told, file_told) in [
            (0o700, 0o600, false, false),
            (0o755, 0o600, false, false),
            (0o755, 0o640, false, false),
            (0o755, 0o644, false, true),
            (0o700, 0o644, false, false),
            (0o777, 0o600, true, false),
            (0o773, 0o602, true, true),
        ] {
            set(&inner, outside);
            set(&file, inside);
            let told = (foreign(&inner), foreign(&file));
            let expected = (folder_told, file_told);
            assert_eq!((told.0.is_some(), told.1.is_some()), expected, "{told:?}");
        }
        assert!(foreign(&link).unwrap().ends_with("is a link"));
        assert_eq!(foreign(&inner.join("missing")), None);
        set(&inner, 0o700);
        set(&file, 0o600);
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            for path in [&file, &inner] {
                std::os::unix::fs::chown(path, Some(65534), None).unwrap();
                let told = foreign(path).unwrap();
                assert!(told.ends_with("another user (uid 65534)"), "{told}");
            }
        }
    }
}
