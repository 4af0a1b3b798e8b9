//! Content framing: dots, newlines, and the facts about them.

use super::naive::pieces;
use gatepost::smtp::data::{ContentFacts, DotDecoder, DotStuffer, Progress, Repair, Scanner};

/// The first octet cuts, the rest is content, and a stream that a client sent after DATA.
pub fn data(octets: &[u8]) {
    let Some((&seed, octets)) = octets.split_first() else {
        return;
    };
    for seed in [0, u64::from(seed) + 1] {
        decoded_as_the_rule_says(octets, seed);
        stuffing_reads_back(octets, seed);
        facts_are_those_of_the_whole(octets, seed);
        repaired_has_no_bare_newline(octets, seed);
    }
}

/// RFC 5321 §4.5.2 to the letter, over the whole stream: content and, where the end came, what it took.
pub(super) fn reference(stream: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        // At the start of a line.
        let line = &stream[at..];
        if line.starts_with(b".\r\n") {
            return (content, Some(at + 3));
        }
        let line = line.strip_prefix(b".").unwrap_or(line);
        let length = line.windows(2).position(|pair| pair == b"\r\n");
        match length {
            Some(length) => {
                content.extend_from_slice(&line[..length + 2]);
                at = stream.len() - line.len() + length + 2;
            }
            None => {
                content.extend_from_slice(line);
                return (content, None);
            }
        }
    }
}

fn decode(stream: &[u8], seed: u64) -> (Vec<u8>, Option<usize>) {
    let (mut decoder, mut content, mut before) = (DotDecoder::default(), Vec::new(), 0);
    for piece in pieces(stream, seed) {
        match decoder.decode(piece, &mut content) {
            Progress::More => before += piece.len(),
            Progress::End(taken) => {
                assert!(taken <= piece.len());
                return (content, Some(before + taken));
            }
        }
    }
    (content, None)
}

fn decoded_as_the_rule_says(stream: &[u8], seed: u64) {
    let (content, end) = decode(stream, seed);
    let (expected, expected_end) = reference(stream);
    assert_eq!(end, expected_end);
    if end.is_some() {
        assert_eq!(content, expected);
    } else {
        // A dot, or a dot and a CR, at the very end wait for what comes.
        assert!(expected.starts_with(&content) && expected.len() - content.len() <= 1);
    }
}

fn stuffing_reads_back(content: &[u8], seed: u64) {
    let (mut stuffer, mut wire) = (DotStuffer::default(), Vec::new());
    for piece in pieces(content, seed) {
        stuffer.push(piece, &mut wire);
    }
    stuffer.finish(&mut wire);
    wire.extend_from_slice(b"QUIT\r\n");
    let (back, end) = decode(&wire, seed);
    assert_eq!(end, Some(wire.len() - 6), "the end is where it was put");
    let mut expected = content.to_vec();
    if !expected.is_empty() && !expected.ends_with(b"\r\n") {
        expected.extend_from_slice(if expected.ends_with(b"\r") {
            b"\n"
        } else {
            b"\r\n"
        });
    }
    assert_eq!(back, expected);
}

fn facts_are_those_of_the_whole(content: &[u8], seed: u64) {
    let mut scanner = Scanner::default();
    for piece in pieces(content, seed) {
        scanner.push(piece);
    }
    let at = |position: Option<usize>| position.and_then(|position| content.get(position)).copied();
    let cr = |(position, octet): (usize, &u8)| {
        *octet == b'\r' && at(position.checked_add(1)) != Some(b'\n')
    };
    let lf = |(position, octet): (usize, &u8)| {
        *octet == b'\n' && at(position.checked_sub(1)) != Some(b'\r')
    };
    let expected = ContentFacts {
        size: content.len() as u64,
        bare_cr: content.iter().enumerate().any(cr),
        bare_lf: content.iter().enumerate().any(lf),
        nul: content.contains(&0),
        eight_bit: content.iter().any(|octet| *octet > 127),
        ends_with_crlf: content.ends_with(b"\r\n"),
    };
    assert_eq!(scanner.facts(), expected);
}

fn repaired_has_no_bare_newline(content: &[u8], seed: u64) {
    let (mut repair, mut out) = (Repair::default(), Vec::new());
    for piece in pieces(content, seed) {
        repair.push(piece, &mut out);
    }
    repair.finish(&mut out);
    let mut scanner = Scanner::default();
    scanner.push(&out);
    let facts = scanner.facts();
    assert!(!facts.bare_cr && !facts.bare_lf);
    let text = |octets: &[u8]| -> Vec<u8> {
        let text = octets
            .iter()
            .filter(|octet| !matches!(octet, b'\r' | b'\n'));
        text.copied().collect()
    };
    assert_eq!(text(&out), text(content), "only newlines change");
}
