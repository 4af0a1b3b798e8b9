//! Oracles: the same questions answered in the plainest way, sharing nothing with the code under test.

/// A field of a header section whose grammar is sound: its name in lower case, and its octets with folding and CRLF.
pub struct Field<'a> {
    pub name: String,
    pub octets: &'a [u8],
}

/// The fields of a message and what follows them: the empty line and the body.
pub fn fields(message: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut fields: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let line = line_at(message, at);
        if line == b"\r\n" {
            break;
        }
        match fields.last_mut() {
            Some((_, end)) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                *end = at + line.len();
            }
            _ => fields.push((at, at + line.len())),
        }
        at += line.len();
    }
    let named = fields.into_iter().map(|(start, end)| {
        let octets = &message[start..end];
        let colon = octets
            .iter()
            .position(|octet| *octet == b':')
            .unwrap_or(octets.len());
        let name = String::from_utf8_lossy(&octets[..colon]);
        Field {
            name: name.trim_end_matches([' ', '\t']).to_ascii_lowercase(),
            octets,
        }
    });
    (named.collect(), &message[at..])
}

fn line_at(message: &[u8], at: usize) -> &[u8] {
    let rest = &message[at..];
    let end = rest.windows(2).position(|pair| pair == b"\r\n");
    &rest[..end.map_or(rest.len(), |end| end + 2)]
}

/// The message without the fields whose name `leaves` says leave.
pub fn without(message: &[u8], leaves: impl Fn(&str) -> bool) -> Vec<u8> {
    let (fields, rest) = fields(message);
    let kept = fields.iter().filter(|field| !leaves(&field.name));
    let mut out: Vec<u8> = kept.flat_map(|field| field.octets.to_vec()).collect();
    out.extend_from_slice(rest);
    out
}

/// The message with the values of the fields that `named` names made illegible, octet for octet.
pub fn blanked(message: &[u8], named: impl Fn(&str) -> bool) -> Vec<u8> {
    let (fields, rest) = fields(message);
    let mut out = Vec::with_capacity(message.len());
    for field in fields {
        let colon = field.octets.iter().position(|octet| *octet == b':');
        let colon = colon.filter(|_| named(&field.name));
        let (name, value) = field
            .octets
            .split_at(colon.map_or(field.octets.len(), |at| at + 1));
        out.extend_from_slice(name);
        out.extend(value.iter().map(|octet| match octet {
            b'\r' | b'\n' | b' ' | b'\t' => *octet,
            _ => b'-',
        }));
    }
    out.extend_from_slice(rest);
    out
}

/// The values of the fields of this name, unfolded, without blanks at their ends.
pub fn values(message: &[u8], name: &str) -> Vec<Vec<u8>> {
    let (fields, _) = fields(message);
    let named = fields.iter().filter(|field| field.name == name);
    let value = |field: &Field<'_>| {
        let colon = field.octets.iter().position(|octet| *octet == b':');
        let mut value = field.octets[colon.map_or(0, |at| at + 1)..].to_vec();
        value.retain(|octet| !b"\r\n".contains(octet));
        let blank = |octet: &u8| b" \t".contains(octet);
        let start = value.iter().position(|octet| !blank(octet));
        let end = value.iter().rposition(|octet| !blank(octet));
        match (start, end) {
            (Some(start), Some(end)) => value[start..=end].to_vec(),
            _ => Vec::new(),
        }
    };
    named.map(value).collect()
}

/// Bare CR and bare LF as CRLF.
pub fn repaired(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some((octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'\r' => {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(*other),
        }
    }
    out
}

/// Whether a field of this name holds the value, in any case of letters and however it is folded.
pub fn says(message: &[u8], name: &str, value: &str) -> bool {
    let (fields, _) = fields(message);
    fields
        .iter()
        .filter(|field| field.name == name)
        .any(|field| {
            let mut unfolded = field.octets.to_ascii_lowercase();
            unfolded.retain(|octet| !b"\r\n".contains(octet));
            contains(&unfolded, value.as_bytes())
        })
}

/// What leaves on the way to the outside (product.md 4).
pub fn is_internal(name: &str) -> bool {
    let prefixes = [
        "x-ms-exchange-organization-",
        "x-ms-exchange-forest-",
        "x-ms-exchange-crosspremises-",
        "x-crosspremisesheaders",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || name == "x-organizationheaderspreserved"
        || is_secret(name)
        || is_loop(name)
}

/// What only Exchange may say (product.md 4).
pub fn is_protected(name: &str) -> bool {
    let prefixes = [
        "x-ms-exchange-",
        "x-crosspremises",
        "x-forefront-",
        "x-microsoft-antispam",
        "x-eop",
    ];
    let names = [
        "x-originatororg",
        "x-organizationheaderspreserved",
        "x-ms-journal-report",
        "x-ms-gcc-journal-report",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || names.contains(&name)
        || is_secret(name)
        || is_loop(name)
}

/// What an application may write and nobody must see.
pub fn is_blind(name: &str) -> bool {
    ["bcc", "resent-bcc", "return-path"].contains(&name)
}

/// A secret header of one of the tenants of [`super::world`].
pub fn is_secret(name: &str) -> bool {
    ["x-contoso-gate", "x-fabrikam-gate"].contains(&name)
}

/// Their loop header.
pub fn is_loop(name: &str) -> bool {
    name == "x-gatepost-processed"
}

/// Whether `needle` stands in `hay`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || hay.windows(needle.len()).any(|window| window == needle)
}

/// Cuts `octets` in pieces whose lengths follow from `seed`; 0 leaves them whole.
pub fn pieces(octets: &[u8], seed: u64) -> Vec<&[u8]> {
    if seed == 0 {
        return vec![octets];
    }
    if octets.len() > 16 * 1024 {
        // What was filled in would make too many.
        return octets.chunks(1000 + seed as usize).collect();
    }
    let mut state = seed;
    let mut rest = octets;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = next(state);
        // Short ones are where the faults are.
        let length = match state % 8 {
            0..=3 => 1,
            4 | 5 => 2,
            6 => 3 + (state >> 8) as usize % 8,
            _ => 1 + (state >> 8) as usize % 64,
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Most octets that are filled in: enough for every limit of a header section, of a line and of a reply.
const MOST_FILLING: usize = 320 * 1024;

/// What a script says, and the event behind each segment: 0xff and one of `events`. 0xff, X and a number fill in as many
/// times the letter x as that power of two says.
pub fn segments(script: &[u8], events: &[u8]) -> Vec<(Vec<u8>, Option<u8>)> {
    let mut segments = Vec::new();
    let (mut segment, mut filled) = (Vec::new(), 0);
    let mut rest = script;
    while let Some((octet, after)) = rest.split_first() {
        rest = after;
        match (octet, rest) {
            (0xff, [event, after @ ..]) if events.contains(event) => {
                segments.push((std::mem::take(&mut segment), Some(*event)));
                rest = after;
            }
            (0xff, [b'X', power, after @ ..]) => {
                let length = 1_usize << (power & 31).min(18);
                if filled + length <= MOST_FILLING {
                    filled += length;
                    segment.resize(segment.len() + length, b'x');
                }
                rest = after;
            }
            _ => segment.push(*octet),
        }
    }
    segments.push((segment, None));
    segments
}

/// The next number of a row that looks random (splitmix64).
pub fn next(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648 §4), on one line.
pub fn base64(octets: &[u8]) -> String {
    let group = |three: &[u8]| -> Vec<char> {
        let padded = [three, &[0, 0]].concat();
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        let letter = |place: u32| char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]);
        let filled = three.len() as u32 + 1;
        let all = (0..4).map(|place| if place < filled { letter(place) } else { '=' });
        all.collect()
    };
    octets.chunks(3).flat_map(group).collect()
}

/// What base64 says, blanks and line ends aside; padding only at the end, and it may be missing.
pub fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let mut letters: Vec<u8> = text.to_vec();
    letters.retain(|octet| !b" \t\r\n\x0b\x0c".contains(octet));
    let padding = letters.iter().rev().take_while(|octet| **octet == b'=');
    let padding = padding.count();
    letters.truncate(letters.len() - padding);
    let padded = (letters.len() + padding).is_multiple_of(4) && padding < 3;
    if letters.len() % 4 == 1 || padding > 0 && !padded {
        return None;
    }
    let mut out = Vec::new();
    for group in letters.chunks(4) {
        let value = |bits: u32, letter: &u8| {
            let found = LETTERS.iter().position(|own| own == letter)?;
            Some(bits << 6 | found as u32)
        };
        let bits = group.iter().try_fold(0, value)? << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}
