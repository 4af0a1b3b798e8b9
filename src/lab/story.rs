//! How is the story told? A line for each row, its dialogue where it went wrong, a sum at the end.

use super::Received;
use super::play::Told;
use super::samples::Waiting;
use std::fmt::Write as _;

/// How text is dressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dress {
    /// For a terminal.
    Colours,
    /// For a file or a pipe.
    Plain,
}

impl Dress {
    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// The head of the table.
#[must_use]
pub fn head(dress: Dress) -> String {
    dress.dim(&format!(
        "{:9}{:40} {:10} {}",
        "", "sample", "Exchange", "what happened"
    ))
}

/// One row, as soon as it was played; a failing one with its dialogue so far.
#[must_use]
pub fn row(told: &Told, dress: Dress) -> String {
    let mark = if told.well() {
        dress.green("  ok  ")
    } else {
        dress.red("FAILED")
    };
    let taken = told.acts.iter().find_map(|act| act.exchange.as_ref());
    let exchange = match taken {
        Some(seen) if seen.internal => "internal",
        Some(_) => "external",
        None if told.acts.iter().any(|act| act.outside) => "outside",
        None => "-",
    };
    let first = told
        .acts
        .first()
        .map(|act| act.answer.as_str())
        .unwrap_or_default();
    let more = match told.acts.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let mut text = format!(
        "{mark} {:2} {:40} {exchange:10} {first}{more}",
        told.number, told.name
    );
    let because = taken
        .map(|seen| format!("; {}: {}", seen.tenant, seen.because))
        .unwrap_or_default();
    append(
        &mut text,
        &dress.dim(&format!("{:50} {}{because}", "", told.why)),
    );
    for act in told.acts.iter().filter(|act| !act.faults.is_empty()) {
        for fault in &act.faults {
            append(
                &mut text,
                &dress.red(&format!("          {}: {fault}", act.token)),
            );
        }
        for line in &act.dialogue {
            append(&mut text, &format!("            {line}"));
        }
    }
    text
}

fn append(text: &mut String, line: &str) {
    // Writing into a String cannot fail.
    let written = write!(text, "\n{line}");
    debug_assert!(written.is_ok());
}

/// What was not played, and the sum.
#[must_use]
pub fn sum(story: &[Told], waiting: &[Waiting], dress: Dress) -> String {
    let mut text = String::new();
    for waiting in waiting {
        append(
            &mut text,
            &dress.dim(&format!(
                "  --      {:40} not played: needs {}",
                waiting.name, waiting.needs
            )),
        );
    }
    let failed = story.iter().filter(|told| !told.well()).count();
    let sum = if failed == 0 {
        dress.green(&format!("All {} samples went as they must.", story.len()))
    } else {
        dress.red(&format!(
            "{failed} of {} samples went otherwise than they must.",
            story.len()
        ))
    };
    append(&mut text, "");
    append(&mut text, &sum);
    text.trim_start_matches('\n').to_owned()
}

/// One message's journey, for who sends by hand.
#[must_use]
pub fn journey(message: &Received, dress: Dress) -> String {
    let verdict = if message.is_internal() {
        dress.green("internal")
    } else {
        dress.red("external")
    };
    let subject = message.header("Subject").unwrap_or_default();
    let mut text = format!(
        "Exchange received from <{}> to <{}>: {}",
        crate::mail::shown(message.sender.as_bytes()),
        crate::mail::shown(message.addresses().join(">, <").as_bytes()),
        crate::mail::shown(subject.as_bytes()),
    );
    let tls = message
        .tls
        .as_ref()
        .map_or_else(|| "no TLS".to_owned(), ToString::to_string);
    append(
        &mut text,
        &format!("  tenant   {} by {}", message.tenant(), message.identity),
    );
    append(
        &mut text,
        &format!("  verdict  {verdict}: {}", message.entry.because),
    );
    append(
        &mut text,
        &dress.dim(&format!(
            "  way      connection {}, message {} on it, {tls}, {} octets",
            message.connection,
            message.position,
            message.content.len()
        )),
    );
    append(
        &mut text,
        &dress.dim(&format!(
            "  answer   {}",
            crate::mail::shown(message.reply.as_bytes())
        )),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::play::{ActTold, Seen};
    use super::*;

    fn told(faults: &[&str]) -> Told {
        Told {
            number: 1,
            name: "printer to a colleague",
            why: "it pays for the house",
            acts: vec![ActTold {
                token: "lab-01-0".to_owned(),
                answer: "250 2.0.0 Ok: queued as X".to_owned(),
                exchange: Some(Seen {
                    tenant: "contoso".to_owned(),
                    internal: true,
                    because: "promoted".to_owned(),
                }),
                faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
                dialogue: vec!["C: EHLO x".to_owned()],
                ..ActTold::default()
            }],
        }
    }

    #[test]
    fn a_good_row_tells_what_happened_and_why_it_matters() {
        let text = row(&told(&[]), Dress::Plain);
        assert!(
            text.starts_with("  ok    1 printer to a colleague"),
            "{text}"
        );
        assert!(
            text.contains("internal   250 2.0.0 Ok")
                && text.contains("it pays for the house; contoso: promoted")
        );
        assert!(!text.contains('\x1b'));
        assert!(row(&told(&[]), Dress::Colours).contains("\x1b[32m"));
    }

    #[test]
    fn a_failing_row_shows_its_faults_and_its_dialogue_and_is_counted() {
        let story = [told(&[]), told(&["must be internal"])];
        let text = row(&story[1], Dress::Plain);
        assert!(
            text.starts_with("FAILED  1")
                && text.contains("lab-01-0: must be internal")
                && text.contains("C: EHLO x")
        );
        assert!(
            sum(&story, &[], Dress::Plain)
                .ends_with("1 of 2 samples went otherwise than they must.")
        );
        let waiting = [Waiting {
            name: "user to outside over mx",
            needs: "a route",
        }];
        let sum = sum(&story[..1], &waiting, Dress::Plain);
        assert!(
            sum.contains("over mx")
                && sum.contains("not played")
                && sum.ends_with("All 1 samples went as they must.")
        );
    }
}
