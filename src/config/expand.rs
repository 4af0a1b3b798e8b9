//! How do secrets stay out of the file? `${NAME}` is the environment, `${file:PATH}` a file beside the configuration.
//!
//! Replaced after TOML is parsed, so that a quote or a newline in a secret cannot change the file's meaning, and once:
//! what comes in is not looked at again. A `$` without `{` stands for itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A secret file larger than this is a mistake (or a device that never ends).
const LARGEST_FILE: u64 = 1024 * 1024;

/// Replaces every `${…}` of `text`, and names each file that it read to `files`. The error names what could not be
/// replaced, never a value.
pub(super) fn expand(
    text: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
    base: &Path,
    files: &mut dyn FnMut(&Path),
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, remainder) = after.split_once('}').ok_or("a ${ without its }")?;
        out.push_str(before);
        match name.strip_prefix("file:") {
            Some(path) => {
                let written = path;
                let path = base.join(written);
                out.push_str(&from_file(&path, written)?);
                files(&path);
            }
            None => out.push_str(&from_environment(name, environment)?),
        }
        rest = remainder;
    }
    out.push_str(rest);
    Ok(out)
}

fn from_environment(
    name: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<String, String> {
    let first_is_digit = name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty()
        || first_is_digit
        || !name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
    {
        return Err(format!(
            "${{{}}} is neither ${{NAME}} nor ${{file:PATH}}",
            name.escape_debug()
        ));
    }
    let value =
        environment(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
    value
        .into_string()
        .map_err(|_| format!("the environment variable {name} is not UTF-8"))
}

fn from_file(path: &Path, written: &str) -> Result<String, String> {
    if written.is_empty() {
        return Err("${file:} names no file".to_owned());
    }
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let mut content = String::new();
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    file.take(LARGEST_FILE + 1)
        .read_to_string(&mut content)
        .map_err(|error| cannot(error.to_string()))?;
    if content.len() as u64 > LARGEST_FILE {
        return Err(cannot("larger than 1 MiB".to_owned()));
    }
    if content.ends_with('\n') {
        content.pop();
        if content.ends_with('\r') {
            content.pop();
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, base: &Path) -> Result<String, String> {
        let environment = |name: &str| match name {
            "GATE" => Some("s3cret".into()),
            "NESTED" => Some("${GATE}".into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        expand(text, &environment, base, &mut |_| ())
    }

    #[test]
    fn variables_are_replaced_once_wherever_they_stand() {
        let here = Path::new(".");
        assert_eq!(
            expanded("a${GATE}b${GATE}", here).as_deref(),
            Ok("as3cretbs3cret")
        );
        assert_eq!(expanded("${NESTED}", here).as_deref(), Ok("${GATE}"));
        assert_eq!(expanded("${EMPTY}", here).as_deref(), Ok(""));
        assert_eq!(
            expanded("$argon2id$v=19$", here).as_deref(),
            Ok("$argon2id$v=19$")
        );
        assert_eq!(
            expanded("$$ {GATE} $GATE", here).as_deref(),
            Ok("$$ {GATE} $GATE")
        );
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        let here = Path::new(".");
        assert_eq!(
            expanded("${MISSING}", here).unwrap_err(),
            "the environment variable MISSING is not set"
        );
        assert_eq!(expanded("${GATE", here).unwrap_err(), "a ${ without its }");
        for bad in ["${}", "${a-b}", "${1A}", "${FILE:x}"] {
            assert!(
                expanded(bad, here).unwrap_err().contains("neither"),
                "{bad}"
            );
        }
        assert!(expanded("${file:}", here).is_err());
        assert!(
            expanded("${file:no/such}", here)
                .unwrap_err()
                .contains("cannot read ./no/such")
        );
    }

    #[test]
    fn one_final_newline_of_a_file_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        for (content, expected) in [
            ("a\n", "a"),
            ("a\n\n", "a\n"),
            ("a\r\n", "a"),
            ("a", "a"),
            ("\n", ""),
            ("a ", "a "),
        ] {
            std::fs::write(folder.path().join("secret"), content).unwrap();
            assert_eq!(
                expanded("[${file:secret}]", folder.path()),
                Ok(format!("[{expected}]"))
            );
        }
        std::fs::write(folder.path().join("secret"), [0xff, 0xfe]).unwrap();
        assert!(expanded("${file:secret}", folder.path()).is_err());
        assert!(expanded("${file:.}", folder.path()).is_err());
    }

    #[test]
    fn endless_files_end() {
        assert!(
            expanded("${file:/dev/zero}", Path::new("."))
                .unwrap_err()
                .contains("larger than")
        );
    }
}
