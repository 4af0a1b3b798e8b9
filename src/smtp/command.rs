//! Client commands (RFC 5321 §4.1.1 and the extensions of product.md section 5).

use crate::mail::{BodyType, Domain, Mailbox, Notify, Ret, ReversePath};
use crate::smtp::decode_xtext;
use crate::smtp::sasl::Mechanism;

/// A command, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `EHLO name`
    Ehlo(String),
    /// `HELO name`
    Helo(String),
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954); `None` for a mechanism that we do not know.
    Auth(Option<Mechanism>, Option<Vec<u8>>),
    /// `MAIL FROM:`
    Mail(Mail),
    /// `RCPT TO:`
    Rcpt(Rcpt),
    /// `DATA`
    Data,
    /// `BDAT size [LAST]` (RFC 3030)
    Bdat(Bdat),
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `VRFY`
    Vrfy,
    /// `EXPN`
    Expn,
    /// `HELP`
    Help,
}

/// `MAIL FROM:` with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The sender, or null.
    pub reverse_path: ReversePath,
    /// `SIZE=` (RFC 1870)
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152)
    pub body: Option<BodyType>,
    /// `SMTPUTF8` (RFC 6531)
    pub smtputf8: bool,
    /// `RET=` (RFC 3461)
    pub ret: Option<Ret>,
    /// `ENVID=` as given (RFC 3461)
    pub envid: Option<Box<str>>,
    /// `XOORG=`, decoded
    pub xoorg: Option<Xoorg>,
    /// `AUTH=` was given (RFC 4954 §5); its value is of no use to us.
    pub auth: bool,
}

/// Exchange's originator organisation. Whether it is to be understood is for whoever judges the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xoorg {
    /// This domain.
    Domain(Domain),
    /// What was given is no domain, so it names nobody.
    Unreadable,
}

/// `RCPT TO:` with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// Whom.
    pub forward_path: ForwardPath,
    /// `NOTIFY=` (RFC 3461)
    pub notify: Option<Notify>,
    /// `ORCPT=` as given (RFC 3461)
    pub orcpt: Option<Box<str>>,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// `BDAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bdat {
    /// Octets that follow.
    pub size: u64,
    /// `LAST`
    pub last: bool,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// No such command: 500 5.5.2.
    Unknown,
    /// The arguments do not fit: 501 5.5.4.
    Arguments,
    /// The address is malformed: 501 5.1.7 for a sender.
    Sender,
    /// The address is malformed: 501 5.1.3 for a recipient.
    Recipient,
    /// A parameter that we do not know, or a value that we never offered: 555 5.5.4.
    Parameter,
}

impl Command {
    /// Parses a command line without its CRLF.
    ///
    /// # Errors
    /// What to tell the client.
    pub fn parse(line: &[u8]) -> Result<Self, CommandFault> {
        let text = std::str::from_utf8(line).map_err(|_| CommandFault::Arguments)?;
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, rest) = match text.find([' ', '\t']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let argument = rest.trim_start_matches([' ', '\t']);
        let bare = |command| {
            if argument.is_empty() {
                Ok(command)
            } else {
                Err(CommandFault::Arguments)
            }
        };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => greeting_name(argument).map(Self::Ehlo),
            "HELO" => greeting_name(argument).map(Self::Helo),
            "STARTTLS" => bare(Self::StartTls),
            "AUTH" => auth(argument),
            "MAIL" => mail(argument).map(Self::Mail),
            "RCPT" => rcpt(argument).map(Self::Rcpt),
            "DATA" => bare(Self::Data),
            "BDAT" => bdat(argument).map(Self::Bdat),
            "RSET" => bare(Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => bare(Self::Quit),
            "VRFY" => Ok(Self::Vrfy),
            "EXPN" => Ok(Self::Expn),
            "HELP" => Ok(Self::Help),
            _ => Err(CommandFault::Unknown),
        }
    }
}

impl Command {
    /// Whether a line, sound or not, announces octets that follow it.
    #[must_use]
    pub fn is_chunk(line: &[u8]) -> bool {
        has_verb(line, &[b"BDAT"])
    }

    /// Whether a line, sound or not, names a sender or a recipient.
    #[must_use]
    pub fn is_envelope(line: &[u8]) -> bool {
        has_verb(line, &[b"MAIL", b"RCPT"])
    }
}

fn has_verb(line: &[u8], verbs: &[&[u8]]) -> bool {
    let verb = line.split(|octet| matches!(octet, b' ' | b'\t')).next();
    verb.is_some_and(|verb| verbs.iter().any(|own| verb.eq_ignore_ascii_case(own)))
}

/// Devices put anything here; it only must be one printable word.
fn greeting_name(argument: &str) -> Result<String, CommandFault> {
    let printable = argument
        .chars()
        .all(|letter| !letter.is_control() && !letter.is_whitespace());
    if argument.is_empty() || argument.len() > 255 || !printable {
        return Err(CommandFault::Arguments);
    }
    Ok(argument.to_owned())
}

fn auth(argument: &str) -> Result<Command, CommandFault> {
    let (name, initial) = argument
        .split_once(' ')
        .map_or((argument, None), |(name, rest)| (name, Some(rest.trim())));
    if name.is_empty() {
        return Err(CommandFault::Arguments);
    }
    let initial = initial
        .filter(|text| !text.is_empty())
        .map(|text| text.as_bytes().to_vec());
    Ok(Command::Auth(Mechanism::named(name), initial))
}

/// What blanks part: SP, and a TAB for SP. Whoever parts by other controls reads another command than we (RFC 5321 §4.1.1).
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t']).filter(|word| !word.is_empty())
}

fn bdat(argument: &str) -> Result<Bdat, CommandFault> {
    let mut words = words(argument);
    let size = words.next().ok_or(CommandFault::Arguments)?;
    if size.len() > 20 || !size.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(CommandFault::Arguments);
    }
    let size = size.parse().map_err(|_| CommandFault::Arguments)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandFault::Arguments),
    };
    if words.next().is_some() {
        return Err(CommandFault::Arguments);
    }
    Ok(Bdat { size, last })
}

fn mail(argument: &str) -> Result<Mail, CommandFault> {
    let (path, parameters) = split_path(argument, "FROM:").ok_or(CommandFault::Arguments)?;
    let mut mail = Mail {
        reverse_path: path.parse().map_err(|_| CommandFault::Sender)?,
        size: None,
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
        auth: false,
    };
    let mut seen = Vec::new();
    for parameter in words(parameters) {
        let (keyword, value) = once(parameter, &mut seen)?;
        match (keyword.as_str(), value) {
            ("SIZE", Some(value))
                if value.len() <= 20 && value.bytes().all(|octet| octet.is_ascii_digit()) =>
            {
                mail.size = Some(value.parse().unwrap_or(u64::MAX));
            }
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {
                mail.body = Some(BodyType::SevenBit)
            }
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => {
                mail.body = Some(BodyType::EightBitMime)
            }
            ("BODY", Some(_)) => return Err(CommandFault::Parameter),
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("RET", Some(value)) if value.eq_ignore_ascii_case("FULL") => {
                mail.ret = Some(Ret::Full)
            }
            ("RET", Some(value)) if value.eq_ignore_ascii_case("HDRS") => {
                mail.ret = Some(Ret::Headers)
            }
            ("ENVID", Some(value))
                if !value.is_empty() && value.len() <= 100 && decode_xtext(value).is_some() =>
            {
                mail.envid = Some(value.into());
            }
            ("XOORG", Some(value)) => {
                let org = decode_xtext(value).and_then(|org| String::from_utf8(org).ok());
                let org = org.and_then(|org| org.parse().ok());
                mail.xoorg = Some(org.map_or(Xoorg::Unreadable, Xoorg::Domain));
            }
            ("AUTH", Some(_)) => mail.auth = true,
            ("SIZE" | "SMTPUTF8" | "RET" | "ENVID" | "XOORG" | "AUTH" | "BODY", _) => {
                return Err(CommandFault::Arguments);
            }
            _ => return Err(CommandFault::Parameter),
        }
    }
    Ok(mail)
}

fn rcpt(argument: &str) -> Result<Rcpt, CommandFault> {
    let (path, parameters) = split_path(argument, "TO:").ok_or(CommandFault::Arguments)?;
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(path.parse().map_err(|_| CommandFault::Recipient)?)
    };
    let mut rcpt = Rcpt {
        forward_path,
        notify: None,
        orcpt: None,
    };
    let mut seen = Vec::new();
    for parameter in words(parameters) {
        let (keyword, value) = once(parameter, &mut seen)?;
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) => {
                rcpt.notify = Some(notify(value).ok_or(CommandFault::Arguments)?)
            }
            ("ORCPT", Some(value)) if value.len() <= 500 && is_original_recipient(value) => {
                rcpt.orcpt = Some(value.into());
            }
            ("NOTIFY" | "ORCPT", _) => return Err(CommandFault::Arguments),
            _ => return Err(CommandFault::Parameter),
        }
    }
    Ok(rcpt)
}

/// Splits `FROM:<path> parameters`. A blank after the colon and a missing pair of angle brackets are what devices send.
fn split_path<'a>(argument: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let head = argument.get(..prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let rest = argument.get(prefix.len()..)?.trim_start_matches(' ');
    let Some(bracketed) = rest.strip_prefix('<') else {
        let (path, parameters) = rest.split_once(' ').unwrap_or((rest, ""));
        return (!path.is_empty() && !path.contains(['<', '>'])).then_some((path, parameters));
    };
    let end = closing_bracket(bracketed)?;
    let path = bracketed.get(..end)?;
    let parameters = bracketed.get(end + 1..)?;
    if !(parameters.is_empty() || parameters.starts_with(' ')) {
        return None;
    }
    // A source route (RFC 5321 §4.1.1.3, appendix C) is dropped.
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    Some((path, parameters))
}

/// Where the path ends: the first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (position, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(position),
            _ => {}
        }
    }
    None
}

/// Splits a parameter; one that stands twice is an error.
fn once<'a>(
    parameter: &'a str,
    seen: &mut Vec<String>,
) -> Result<(String, Option<&'a str>), CommandFault> {
    let (keyword, value) = parameter
        .split_once('=')
        .map_or((parameter, None), |(keyword, value)| (keyword, Some(value)));
    let keyword = keyword.to_ascii_uppercase();
    if seen.contains(&keyword) {
        return Err(CommandFault::Arguments);
    }
    seen.push(keyword.clone());
    Ok((keyword, value))
}

fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return None,
        }
    }
    Some(Notify::On {
        success,
        failure,
        delay,
    })
}

/// `rfc822;xtext`, or `utf-8;` with the characters of RFC 6533 §3.
fn is_original_recipient(value: &str) -> bool {
    value.split_once(';').is_some_and(|(kind, address)| {
        let atom = !kind.is_empty()
            && kind
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        let utf8 = kind.eq_ignore_ascii_case("utf-8");
        let good = |letter: char| {
            letter.is_ascii_graphic() || (utf8 && !letter.is_ascii() && !letter.is_control())
        };
        atom && !address.is_empty()
            && address.chars().all(good)
            && (utf8 || decode_xtext(address).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail(line: &str) -> Result<Mail, CommandFault> {
        match Command::parse(line.as_bytes())? {
            Command::Mail(mail) => Ok(mail),
            other => panic!("{other:?}"),
        }
    }

    fn rcpt(line: &str) -> Result<Rcpt, CommandFault> {
        match Command::parse(line.as_bytes())? {
            Command::Rcpt(rcpt) => Ok(rcpt),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mail_with_all_parameters() {
        let mail = mail("mail from:<Bob@Contoso.com> SIZE=1000 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=a+20b XOORG=contoso.com AUTH=<>").unwrap();
        assert_eq!(mail.reverse_path.to_string(), "Bob@Contoso.com");
        assert_eq!(mail.size, Some(1000));
        assert_eq!(mail.body, Some(BodyType::EightBitMime));
        assert!(mail.smtputf8 && mail.auth);
        assert_eq!(mail.ret, Some(Ret::Headers));
        assert_eq!(mail.envid.as_deref(), Some("a+20b"));
        assert_eq!(
            mail.xoorg,
            Some(Xoorg::Domain("contoso.com".parse().unwrap()))
        );
    }

    #[test]
    fn paths_in_the_dialects_of_clients() {
        assert_eq!(
            mail("MAIL FROM:<>").unwrap().reverse_path,
            ReversePath::Null
        );
        assert_eq!(
            mail("MAIL FROM: <a@b.example>")
                .unwrap()
                .reverse_path
                .to_string(),
            "a@b.example"
        );
        assert_eq!(mail("MAIL FROM:a@b.example SIZE=1").unwrap().size, Some(1));
        assert_eq!(
            mail("MAIL FROM:<@x.example,@y.example:a@b.example>")
                .unwrap()
                .reverse_path
                .to_string(),
            "a@b.example"
        );
        assert_eq!(
            mail("MAIL FROM:<\"a> b\"@b.example>")
                .unwrap()
                .reverse_path
                .to_string(),
            "\"a> b\"@b.example"
        );
        assert_eq!(
            rcpt("RCPT TO:<Postmaster>").unwrap().forward_path,
            ForwardPath::Postmaster
        );
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(
            mail("MAIL FROM:<a@b.example> BODY=BINARYMIME"),
            Err(CommandFault::Parameter)
        );
        assert_eq!(
            mail("MAIL FROM:<a@b.example> FOO=1"),
            Err(CommandFault::Parameter)
        );
        assert_eq!(
            mail("MAIL FROM:<a@b.example> SIZE=1 SIZE=2"),
            Err(CommandFault::Arguments)
        );
        assert_eq!(
            mail("MAIL FROM:<a@b.example> SIZE=x"),
            Err(CommandFault::Arguments)
        );
        for org in ["a+20b", "a..example", "+", "a."] {
            let mail = mail(&format!("MAIL FROM:<a@b.example> XOORG={org}")).unwrap();
            assert_eq!(mail.xoorg, Some(Xoorg::Unreadable), "{org}");
        }
        assert_eq!(mail("MAIL FROM:<a b@c.example>"), Err(CommandFault::Sender));
        assert_eq!(mail("MAIL FROM:<a@b.example"), Err(CommandFault::Arguments));
        assert_eq!(
            mail("MAIL FROM:<a@b.example>SIZE=1"),
            Err(CommandFault::Arguments)
        );
        assert_eq!(rcpt("RCPT TO:<>"), Err(CommandFault::Recipient));
        assert_eq!(
            rcpt("RCPT TO:<a@b.example> FOO"),
            Err(CommandFault::Parameter)
        );
        assert_eq!(Command::parse(b"XYZZY"), Err(CommandFault::Unknown));
        assert_eq!(Command::parse(b"DATA now"), Err(CommandFault::Arguments));
        assert_eq!(
            Command::parse(b"BDAT 18446744073709551616"),
            Err(CommandFault::Arguments)
        );
        assert_eq!(Command::parse(b"BDAT -1"), Err(CommandFault::Arguments));
        for line in [&b"BDAT 5\x0cLAST"[..], b"BDAT 5\x0bLAST", b"BDAT\x0c5"] {
            let refused = matches!(
                Command::parse(line),
                Err(CommandFault::Arguments | CommandFault::Unknown)
            );
            assert!(refused, "{line:?}");
        }
        assert_eq!(
            mail("MAIL FROM:<a@b.example> SIZE=1\x0cBODY=7BIT"),
            Err(CommandFault::Arguments)
        );
    }

    #[test]
    fn dsn_parameters_of_rcpt() {
        let rcpt =
            rcpt("RCPT TO:<a@b.example> NOTIFY=success,FAILURE ORCPT=rfc822;a+2Bx@b.example")
                .unwrap();
        assert_eq!(
            rcpt.notify,
            Some(Notify::On {
                success: true,
                failure: true,
                delay: false
            })
        );
        assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;a+2Bx@b.example"));
        assert_eq!(
            self::rcpt("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY"),
            Err(CommandFault::Arguments)
        );
    }

    #[test]
    fn chunks() {
        assert_eq!(
            Command::parse(b"BDAT 10 last"),
            Ok(Command::Bdat(Bdat {
                size: 10,
                last: true
            }))
        );
        assert_eq!(
            Command::parse(b"bdat 0"),
            Ok(Command::Bdat(Bdat {
                size: 0,
                last: false
            }))
        );
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "[ -~\u{e4}]{0,80}") {
            for verb in ["", "MAIL FROM:", "RCPT TO:", "AUTH ", "BDAT "] {
                drop(Command::parse(format!("{verb}{line}").as_bytes()));
            }
        }
    }
}
