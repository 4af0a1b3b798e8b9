//! DKIM read and made in the plainest way (RFC 6376, product.md 3): the oracle of `dkim`, which shares nothing with the code under test
//! but the RSA of the library.

use super::naive::{self, Field};
use mail_auth::common::crypto::{RsaKey, Sha256, SigningKey as _};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::OnceLock;

const KEY: &str = include_str!("../../tests/data/dkim-test.key");

/// The value of a field, without the CRLF at its end.
pub fn value<'a>(field: &Field<'a>) -> &'a [u8] {
    let colon = field.octets.iter().position(|octet| *octet == b':');
    let value = &field.octets[colon.map_or(0, |colon| colon + 1)..];
    value.strip_suffix(b"\r\n").unwrap_or(value)
}

/// A `DKIM-Signature` as RFC 6376 §3.2 and §3.5 have it, and whether it may count for a tenant (product.md 3).
pub struct Read {
    pub value: Vec<u8>,
    tags: Vec<(String, String)>,
    pub counts: bool,
    /// It counts, and nothing in it is such that a reader might be stricter.
    pub is_usual: bool,
}

impl Read {
    pub fn of(value: &[u8], tenant: &str) -> Self {
        let tags = tags(value);
        let mut read = Self {
            value: value.to_vec(),
            counts: tags.is_some(),
            is_usual: false,
            tags: tags.unwrap_or_default(),
        };
        let below = |domain: &str, parent: &str| {
            let labels = domain.strip_suffix(parent);
            is_host(domain) && labels.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        };
        let domain = read.get("d").to_ascii_lowercase();
        // Contoso has accepted its sub-domains.
        let fits = domain == tenant || tenant == "contoso.com" && below(&domain, tenant);
        let algorithm = read.get("a").to_ascii_lowercase();
        let signer = read.get("i").to_ascii_lowercase();
        let identity = signer.rsplit_once('@').map_or("", |(_, domain)| domain);
        read.counts &= read.get("v") == "1"
            && ["rsa-sha256", "ed25519-sha256"].contains(&&*algorithm)
            && fits
            && is_host(&domain)
            && is_host(read.get("s"))
            && !read.has("l")
            && read.names().any(|name| name == "from")
            && (!read.has("i") || below(identity, &domain))
            && !read.get("b").is_empty()
            && !read.get("bh").is_empty()
            && ["t", "x"].iter().all(|name| {
                let number = read.get(name);
                let digits = number.chars().all(|digit| digit.is_ascii_digit());
                !read.has(name) || digits && !number.is_empty()
            });
        let known = ["v", "a", "c", "d", "s", "h", "b", "bh", "i", "t"];
        let name = |name: &str| {
            name.bytes()
                .all(|octet| octet == b'-' || octet.is_ascii_alphanumeric())
        };
        read.is_usual = read.counts
            && read
                .tags
                .iter()
                .all(|(own, _)| known.contains(&own.as_str()))
            && domain == tenant
            && read.get("a") == "rsa-sha256"
            && !signer.contains('=')
            && signer.matches('@').count() < 2
            && read.canonicalization().is_some()
            && read
                .names()
                .all(|own| !own.is_empty() && own != "dkim-signature" && name(&own));
        read
    }

    fn has(&self, name: &str) -> bool {
        self.tags.iter().any(|(own, _)| own == name)
    }

    pub fn get(&self, name: &str) -> &str {
        let found = self.tags.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value)
    }

    /// What is signed, in small letters.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let names = self.get("h").split(':');
        names.map(|name| name.trim_matches(BLANK).to_ascii_lowercase())
    }

    /// Whether header and body are taken with their blanks relaxed.
    fn canonicalization(&self) -> Option<(bool, bool)> {
        match self.get("c") {
            "" | "simple" | "simple/simple" => Some((false, false)),
            "relaxed" | "relaxed/simple" => Some((true, false)),
            "simple/relaxed" => Some((false, true)),
            "relaxed/relaxed" => Some((true, true)),
            _ => None,
        }
    }

    /// Whether a key record (RFC 6376 §3.6.1) holds the key `key`, for this signature. Around it the library passes over groups of
    /// base64 that are none.
    pub fn is_allowed_by(&self, record: &[u8], key: &str) -> bool {
        let Some(tags) = tags(record) else {
            return false;
        };
        let get = |name: &str| {
            let found = tags.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.as_str())
        };
        let lists = |name: &str, word: &str| {
            get(name).map(|list| list.split(':').any(|own| own.trim_matches(BLANK) == word))
        };
        let version = tags.iter().position(|(name, _)| name == "v");
        let domain = self.get("d").to_ascii_lowercase();
        let signer = self.get("i").to_ascii_lowercase();
        let exact = !self.has("i") || signer.ends_with(&format!("@{domain}"));
        let public: String = get("p").unwrap_or_default().split(BLANK).collect();
        version.is_none_or(|place| place == 0 && get("v") == Some("DKIM1"))
            && lists("h", "sha256") != Some(false)
            && (lists("s", "*") != Some(false) || lists("s", "email") != Some(false))
            && lists("t", "y") != Some(true)
            && (lists("t", "s") != Some(true) || exact)
            && get("k").is_none_or(|kind| kind.eq_ignore_ascii_case("rsa"))
            && public.contains(key)
    }
}

const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// A tag list: printable ASCII and blanks; no name twice, nor in other letters, since not all readers tell these apart.
fn tags(value: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(value).ok()?;
    let is_fit = |letter: char| BLANK.contains(&letter) || letter.is_ascii_graphic();
    let text = text.trim_end_matches(BLANK);
    let text = text.strip_suffix(';').unwrap_or(text);
    let mut tags: Vec<(String, String)> = Vec::new();
    for part in text.split(';') {
        let (name, value) = part.split_once('=')?;
        let name = name.trim_matches(BLANK);
        let mut letters = name.chars();
        let good = letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|other| other == '_' || other.is_ascii_alphanumeric());
        let twice = tags.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !good || twice || !value.chars().all(is_fit) {
            return None;
        }
        tags.push((name.to_owned(), value.trim_matches(BLANK).to_owned()));
    }
    Some(tags)
}

pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let good = label
            .bytes()
            .all(|octet| b"-_".contains(&octet) || octet.is_ascii_alphanumeric());
        good && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 255 && name.split('.').all(label)
}

/// Nothing here is read in two ways. At the end of a body mail-auth keeps lines of blanks that RFC 6376 §3.4.4 drops: such mail
/// is not verified.
pub fn is_plain(fields: &[Field<'_>], body: &[u8]) -> bool {
    let bare = String::from_utf8_lossy(body).replace("\r\n", "");
    let strange = |field: &Field<'_>| {
        let colon = field.name.len();
        field.octets.get(colon) != Some(&b':')
            || field.octets.iter().any(|octet| b"\x0b\x0c".contains(octet))
    };
    let last = &body[body.trim_ascii_end().len()..];
    let keeps = last
        .windows(2)
        .any(|pair| pair[0] == b'\n' && b" \t".contains(&pair[1]));
    let one_way = !bare.contains(['\r', '\n']) && !keeps;
    one_way && body.starts_with(b"\r\n") && !fields.iter().any(strange)
}

/// What was filled in.
pub struct Signed {
    /// Of the field.
    pub value: Vec<u8>,
    pub b: String,
    pub bh: String,
}

/// Fills in the placeholders. Tags that stand twice or make no list are signed all the same, so that it is the reader who
/// refuses them.
pub fn sign(message: Vec<u8>) -> (Vec<u8>, Option<Signed>) {
    static SIGNER: OnceLock<RsaKey<Sha256>> = OnceLock::new();
    let signer = SIGNER.get_or_init(|| {
        let der = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        RsaKey::from_key_der(der).expect("an RSA key")
    });
    let (fields, body) = naive::fields(&message);
    let mut end = 0;
    let own = fields.iter().find(|field| {
        end += field.octets.len();
        field.name == "dkim-signature" && naive::contains(field.octets, b"@B@")
    });
    let Some(own) = own else {
        return (message, None);
    };
    let start = end - own.octets.len();
    let text = String::from_utf8_lossy(own.octets).into_owned();
    let list = text.split_once(':').map_or("", |(_, list)| list);
    let tag = |name: &str| {
        let mut pairs = list.rsplit(';').filter_map(|part| part.split_once('='));
        let found = pairs.find(|(own, _)| own.trim_matches(BLANK).eq_ignore_ascii_case(name));
        let value = found.map_or("", |(_, value)| value.trim_matches(BLANK));
        (name.to_owned(), value.to_owned())
    };
    let read = Read {
        value: Vec::new(),
        tags: vec![tag("c"), tag("h")],
        counts: false,
        is_usual: false,
    };
    let (header, whole) = read.canonicalization().unwrap_or_default();
    let body = body.strip_prefix(b"\r\n").unwrap_or(body);
    let bh = naive::base64(signer.hash(&*canonical_body(body, whole)).as_ref());
    let text = text.replace("@BH@", &bh);
    let Some((before, after)) = text.split_once("@B@") else {
        return (message, None);
    };
    let mut data: Vec<u8> = Vec::new();
    for place in signed_fields(&read, &fields) {
        data.extend(canonical_field(fields[place].octets, header));
    }
    // Its own value is left out, from the equals sign to the semicolon, and its last line end.
    let (open, left) = before.split_at(before.rfind('=').map_or(0, |at| at + 1));
    let close = after.strip_suffix("\r\n").unwrap_or(after);
    let close = &close[close.find(';').unwrap_or(close.len())..];
    let last = canonical_field(format!("{open}{close}").as_bytes(), header);
    data.extend(if header {
        last.strip_suffix(b"\r\n").unwrap_or(&last)
    } else {
        &last
    });
    let b = naive::base64(&signer.sign(&*data).expect("a signature"));
    let text = format!("{open}{left}{b}{after}");
    let filled = Field {
        name: String::new(),
        octets: text.as_bytes(),
    };
    let value = value(&filled).to_vec();
    let made = [&message[..start], text.as_bytes(), &message[end..]].concat();
    (made, Some(Signed { value, b, bh }))
}

/// Which fields are signed, in that order: of each name from the bottom up (RFC 6376 §5.4.2).
pub fn signed_fields(read: &Read, fields: &[Field<'_>]) -> Vec<usize> {
    let mut taken = Vec::new();
    for name in read.names() {
        let next = (0..fields.len())
            .rev()
            .find(|place| fields[*place].name == name && !taken.contains(place));
        taken.extend(next);
    }
    taken
}

/// RFC 6376 §3.4.1, §3.4.2.
fn canonical_field(octets: &[u8], relaxed: bool) -> Vec<u8> {
    if !relaxed {
        return octets.to_vec();
    }
    let colon = octets
        .iter()
        .position(|octet| *octet == b':')
        .unwrap_or(octets.len());
    let (name, value) = octets.split_at(colon);
    let mut out = name.trim_ascii_end().to_ascii_lowercase();
    out.push(b':');
    let mut value: Vec<u8> = value
        .iter()
        .skip(1)
        .copied()
        .filter(|octet| !b"\r\n".contains(octet))
        .collect();
    value = collapsed(&value);
    out.extend(value.strip_prefix(b" ").unwrap_or(&value));
    if out.ends_with(b" ") {
        out.pop();
    }
    out.extend(b"\r\n");
    out
}

/// RFC 6376 §3.4.3, §3.4.4.
fn canonical_body(body: &[u8], relaxed: bool) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 2..).unwrap_or_default();
        let line = if relaxed {
            collapsed(line)
        } else {
            line.to_vec()
        };
        out.extend(if relaxed {
            line.strip_suffix(b" ").unwrap_or(&line)
        } else {
            &line
        });
        out.extend(b"\r\n");
    }
    while out.ends_with(b"\r\n\r\n") || out == b"\r\n" {
        out.truncate(out.len() - 2);
    }
    if out.is_empty() && !relaxed {
        out.extend(b"\r\n");
    }
    out
}

/// Runs of blanks and tabs as one blank.
fn collapsed(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for octet in line {
        match octet {
            b' ' | b'\t' if out.last() == Some(&b' ') => {}
            b' ' | b'\t' => out.push(b' '),
            other => out.push(*other),
        }
    }
    out
}
