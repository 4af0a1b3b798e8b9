//! May others on this machine read a file that holds a secret?
//!
//! The owner may, and a group that was given the file on purpose (`install -g gatepost -m 640`): only what is open to
//! everybody is told. A file behind a folder that others may not enter is out of their reach, whatever its own mode says.

use std::path::Path;

/// What is wrong and the line that mends it; `None` where all is well, or nobody can say.
#[cfg(unix)]
pub(super) fn exposed(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    const OTHERS_READ: u32 = 0o4;
    const OTHERS_WRITE: u32 = 0o2;
    const OTHERS_ENTER: u32 = 0o1;
    // Where a link leads is what counts, and what lies above it there.
    let real = path.canonicalize().ok()?;
    let mode = |path: &Path| Some(std::fs::metadata(path).ok()?.permissions().mode());
    let own = mode(&real)?;
    let may = match (own & OTHERS_READ != 0, own & OTHERS_WRITE != 0) {
        (true, true) => "read and change",
        (true, false) => "read",
        (false, true) => "change",
        (false, false) => return None,
    };
    let enter = |folder: &Path| mode(folder).is_none_or(|mode| mode & OTHERS_ENTER != 0);
    // A device or a pipe is nobody's file.
    if !real.is_file() || !real.ancestors().skip(1).all(enter) {
        return None;
    }
    // The line is for a shell: the path as it is, unless it would act on a terminal.
    let path = real.to_string_lossy();
    let shown = if path.chars().any(char::is_control) {
        crate::mail::shown(path.as_bytes())
    } else {
        path.into_owned()
    };
    Some(format!(
        "everybody on this machine may {may} {shown} (mode {:04o}): chmod o-rwx {}",
        own & 0o7777,
        word(&shown)
    ))
}

/// Elsewhere there are no modes.
#[cfg(not(unix))]
pub(super) fn exposed(_: &Path) -> Option<String> {
    None
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
}
