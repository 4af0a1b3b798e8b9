//! How does a text stand in PowerShell so that it means itself and nothing else?

/// A text as a single-quoted string of PowerShell, in ASCII whatever the text is.
///
/// PowerShell ends a single-quoted string also at the typographic quotes U+2018 to U+201B, and 5.1 reads a script without
/// BOM in the ANSI code page: what is not printable ASCII is therefore written by its number, `('a' + [char]0x00E9)`.
#[must_use]
pub fn literal(text: &str) -> String {
    let plain = |unit: u16| (0x20..0x7f).contains(&unit);
    let mut out = String::with_capacity(text.len() + 2);
    let mut open = true;
    let mut numbers = false;
    out.push('\'');
    for unit in text.encode_utf16() {
        if plain(unit) != open {
            out.push_str(if open { "'" } else { " + '" });
            open = !open;
        }
        match u8::try_from(unit) {
            Ok(octet) if plain(unit) => {
                if octet == b'\'' {
                    out.push('\'');
                }
                out.push(char::from(octet));
            }
            _ => {
                numbers = true;
                out.push_str(&format!(" + [char]0x{unit:04X}"));
            }
        }
    }
    if open {
        out.push('\'');
    }
    if numbers { format!("({out})") } else { out }
}

/// The elements of a PowerShell list: `'a', 'b'`; nothing for none.
#[must_use]
pub fn literals<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = texts
        .into_iter()
        .map(|text| literal(text.as_ref()))
        .collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader of its own for what [`literal`] may write: a quoted string, or a sum of those and of `[char]0x….`.
    fn read(code: &str) -> Option<String> {
        let sum = code
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'));
        let mut rest = sum.unwrap_or(code);
        let mut units: Vec<u16> = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix("[char]0x") {
                let (digits, after) = after.split_at_checked(4)?;
                units.push(u16::from_str_radix(digits, 16).ok()?);
                rest = after;
            } else {
                let mut letters = rest.strip_prefix('\'')?.chars().peekable();
                loop {
                    match letters.next()? {
                        '\'' if letters.peek() == Some(&'\'') => {
                            letters.next();
                            units.push(u16::from(b'\''));
                        }
                        '\'' => break,
                        // What PowerShell takes for a quote as well must not stand there at all.
                        '\u{2018}'..='\u{201b}' => return None,
                        letter => units.extend(letter.encode_utf16(&mut [0; 2]).iter()),
                    }
                }
                rest = &rest[rest.len() - letters.collect::<String>().len()..];
            }
            if rest.is_empty() {
                return String::from_utf16(&units).ok();
            }
            sum?;
            rest = rest.strip_prefix(" + ")?;
        }
    }

    #[test]
    fn what_powershell_would_read_otherwise_is_written_by_its_number() {
        for (text, code) in [
            ("smarthost.contoso.com", "'smarthost.contoso.com'"),
            ("", "''"),
            ("it's $env:X @(1) `n", "'it''s $env:X @(1) `n'"),
            (
                "R\u{e8}gle d\u{2019}ici",
                "('R' + [char]0x00E8 + 'gle d' + [char]0x2019 + 'ici')",
            ),
            ("\u{1f4e7}", "('' + [char]0xD83D + [char]0xDCE7)"),
            ("a\r\nb", "('a' + [char]0x000D + [char]0x000A + 'b')"),
        ] {
            assert_eq!(literal(text), code);
            assert_eq!(read(code).as_deref(), Some(text));
        }
        assert_eq!(literals(["a", "b"]), "'a', 'b'");
        assert_eq!(literals(Vec::<String>::new()), "");
    }

    proptest! {
        #[test]
        fn every_text_reads_back_and_is_printable_ascii(text in "[ -~]{0,12}|\\PC{0,12}|[\u{2018}-\u{201b}'$@`\"\\p{Any}]{0,12}") {
            let code = literal(&text);
            prop_assert!(code.bytes().all(|octet| (0x20..0x7f).contains(&octet)), "{}", code);
            let back = read(&code);
            prop_assert_eq!(back.as_deref(), Some(text.as_str()), "{}", code);
        }
    }
}
