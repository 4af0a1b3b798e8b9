//! What a client meant, read off its own octets and the replies to them in the plainest way: envelope and content of each
//! message (RFC 5321 §3.3, §4.5.2, RFC 3030 §2).

use super::content;

/// Where the client is.
#[derive(Debug, Default)]
enum Within {
    /// Commands, and the answers to 334, which are none.
    #[default]
    Lines,
    Challenge,
    /// Behind 354.
    Data(Vec<u8>),
    Chunk {
        left: u64,
        last: bool,
        octets: Vec<u8>,
        replies: Vec<u8>,
    },
}

/// A message as its client sees it.
#[derive(Clone, Debug, Default)]
pub struct Meant {
    /// What stood between `<` and `>`.
    pub sender: Vec<u8>,
    /// The same of each recipient that was granted, in order.
    pub recipients: Vec<Vec<u8>>,
    pub content: Vec<u8>,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Client {
    within: Within,
    line: Vec<u8>,
    /// The envelope so far; its content is not there yet.
    envelope: Meant,
    /// Of the chunks that were taken since MAIL.
    chunks: Vec<u8>,
    /// A chunk was refused since MAIL: nothing more may come of the message.
    spoiled: bool,
}

impl Client {
    /// How much of `octets` may be sent before somebody looks at the replies: up to the end of a line, or of the chunk.
    pub fn stretch(&self, octets: &[u8]) -> usize {
        if let Within::Chunk { left, .. } = self.within {
            return usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(octets.len());
        }
        let line = octets.iter().position(|octet| *octet == b'\n');
        line.map_or(octets.len(), |at| at + 1)
    }

    /// A stretch was sent, and answered with `replies`; the message that it ended, if it did.
    pub fn sent(&mut self, stretch: &[u8], replies: &[u8]) -> Option<Meant> {
        match &mut self.within {
            Within::Lines | Within::Challenge => {
                self.line.extend_from_slice(stretch);
                if !stretch.ends_with(b"\n") {
                    return None;
                }
                let line = std::mem::take(&mut self.line);
                self.command(&line, replies)
            }
            Within::Data(octets) => {
                octets.extend_from_slice(stretch);
                if octets != b".\r\n" && !octets.ends_with(b"\r\n.\r\n") {
                    return None;
                }
                let (content, end) = content::reference(octets);
                assert_eq!(end, Some(octets.len()), "the first end is the end");
                self.within = Within::Lines;
                Some(self.ended(content))
            }
            Within::Chunk {
                left,
                octets,
                replies: all,
                ..
            } => {
                *left -= stretch.len() as u64;
                octets.extend_from_slice(stretch);
                all.extend_from_slice(replies);
                self.chunk()
            }
        }
    }

    /// What came in clear text behind STARTTLS is nobody's.
    pub fn secured(&mut self) {
        *self = Self::default();
    }

    fn ended(&mut self, content: Vec<u8>) -> Meant {
        Meant {
            content,
            ..std::mem::take(&mut self.envelope)
        }
    }

    fn command(&mut self, line: &[u8], replies: &[u8]) -> Option<Meant> {
        // Anything else is no line at all, whatever it says.
        let line = line.strip_suffix(b"\r\n")?;
        if line.iter().any(|octet| b"\r\0".contains(octet)) {
            return None;
        }
        let challenged = matches!(self.within, Within::Challenge);
        self.within = match replies.starts_with(b"334") {
            true => Within::Challenge,
            false => Within::Lines,
        };
        if challenged {
            return None;
        }
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
        let granted = replies.starts_with(b"250");
        match words.next().unwrap_or_default() {
            _ if line.starts_with(b" ") || line.starts_with(b"\t") => {}
            "MAIL" | "RSET" | "EHLO" | "HELO" if granted => {
                self.chunks.clear();
                self.spoiled = false;
                self.envelope = Meant {
                    sender: path(line),
                    ..Meant::default()
                };
            }
            "RCPT" if granted => self.envelope.recipients.push(path(line)),
            "DATA" if replies.starts_with(b"354") => self.within = Within::Data(Vec::new()),
            "BDAT" => {
                let size = words.next().and_then(|word| word.parse().ok());
                self.within = Within::Chunk {
                    left: size.unwrap_or(u64::MAX),
                    last: words.next() == Some("LAST"),
                    octets: Vec::new(),
                    replies: replies.to_vec(),
                };
                return self.chunk();
            }
            _ => {}
        }
        None
    }

    fn chunk(&mut self) -> Option<Meant> {
        let Within::Chunk { left: 0, .. } = self.within else {
            return None;
        };
        let chunk = std::mem::take(&mut self.within);
        let Within::Chunk {
            last,
            octets,
            replies,
            ..
        } = chunk
        else {
            return None;
        };
        self.chunks.extend_from_slice(&octets);
        self.spoiled |= !replies.starts_with(b"250");
        if !last || self.spoiled {
            return None;
        }
        let content = std::mem::take(&mut self.chunks);
        Some(self.ended(content))
    }
}

/// What stands between `<` and the `>` that ends it; a quoted one ends nothing. A source route leaves (RFC 5321 §4.1.1.3).
/// Devices leave out the brackets: then it is the word behind the colon.
fn path(line: &[u8]) -> Vec<u8> {
    let behind = line.iter().position(|octet| *octet == b':');
    let argument = line[behind.map_or(line.len(), |at| at + 1)..].trim_ascii_start();
    if !argument.starts_with(b"<") {
        let mut words = argument.split(|octet| b" \t".contains(octet));
        return words.next().unwrap_or_default().to_vec();
    }
    let mut octets = argument.iter().copied().skip(1);
    let (mut path, mut quoted) = (Vec::new(), false);
    while let Some(octet) = octets.next() {
        match octet {
            b'>' if !quoted => break,
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                path.push(octet);
                path.extend(octets.next());
                continue;
            }
            _ => {}
        }
        path.push(octet);
    }
    match path.iter().position(|octet| *octet == b':') {
        Some(at) if path.starts_with(b"@") => path.split_off(at + 1),
        _ => path,
    }
}
