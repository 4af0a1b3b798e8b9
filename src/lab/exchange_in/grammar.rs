//! The few pieces of SMTP grammar that the simulated Exchange reads by itself.

/// `FROM:<path> PARAMETERS`; a quoted local part may hold what it likes.
pub(in crate::lab) fn path(rest: &str, keyword: &str) -> Option<(String, Vec<String>)> {
    let start = rest.get(..keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let inner = rest.get(keyword.len()..)?.trim_start().strip_prefix('<')?;
    let mut quoted = false;
    let mut escaped = false;
    let end = inner.find(|character| {
        let closes = character == '>' && !quoted;
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && quoted && !escaped;
        closes
    })?;
    let parameters = inner.get(end + 1..)?;
    let parameters = parameters
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    Some((inner.get(..end)?.to_owned(), parameters))
}

/// Whether the content holds a CR or LF that is not part of CRLF.
pub(in crate::lab) fn has_bare_newline(content: &[u8]) -> bool {
    let mut previous = 0;
    for &octet in content {
        if (octet == b'\n') != (previous == b'\r') {
            return true;
        }
        previous = octet;
    }
    previous == b'\r'
}

/// Takes the dots off (RFC 5321 §4.5.2).
pub(in crate::lab) fn unstuffed(stuffed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stuffed.len());
    for line in stuffed.split_inclusive(|octet| *octet == b'\n') {
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parameters_are_read() {
        let (address, parameters) =
            path("FROM:<\"a> b\"@x.example> SIZE=1 BODY=8BITMIME", "FROM:").unwrap();
        assert_eq!(address, "\"a> b\"@x.example");
        assert_eq!(parameters, ["SIZE=1", "BODY=8BITMIME"]);
        assert_eq!(path("from: <>", "FROM:").unwrap().0, "");
        assert!(path("FROM:a@b", "FROM:").is_none());
    }

    #[test]
    fn bare_newlines_show_and_dots_come_off() {
        assert!(!has_bare_newline(b"a\r\n\r\n"));
        assert!(
            has_bare_newline(b"a\n") && has_bare_newline(b"a\rb") && has_bare_newline(b"a\r\n\r")
        );
        assert_eq!(unstuffed(b"..\r\n.a\r\nb.\r\n"), b".\r\na\r\nb.\r\n");
    }
}
