//! What leaves by which path? (product.md 4, the table and "Several forms of one message")
//!
//! The journal keeps the arrival bytes once; a [`Rendition`] says for a path what stands on top and which ranges are
//! left out. Nothing else ever changes.

use super::protected::{Row, is_marker, is_submission_only};
use super::{Examined, Field, ReceivedFacts, internal_stamp, missing_fields, received};
use crate::mail::shown;
use crate::route::Path;
use crate::trust::{Class, LoopHeader, Tenants, Verdict};
use std::ops::Range;

/// One form of a message: what stands on top, and which ranges of the arrival bytes are left out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rendition {
    /// Bytes before the first arrival byte: whole fields, each ended by CRLF.
    pub prepend: Vec<u8>,
    /// Ascending, disjoint, not empty.
    pub omit: Vec<Range<u64>>,
}

/// Where a piece of a rendition comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The bytes on top, from this one on.
    Top(usize),
    /// This range of the arrival bytes; empty at the end.
    Arrival(Range<u64>),
}

/// Never the bytes on top: a loop header value is a secret.
impl std::fmt::Debug for Rendition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendition")
            .field("prepend", &format_args!("{} octets", self.prepend.len()))
            .field("omit", &self.omit)
            .finish()
    }
}

impl Rendition {
    /// The size of the rendition of a message that arrived with `arrived` octets: what `SIZE=` says.
    #[must_use]
    pub fn size(&self, arrived: u64) -> u64 {
        let omitted: u64 = self
            .omit
            .iter()
            .map(|range| range.end.saturating_sub(range.start))
            .sum();
        self.prepend.len() as u64 + arrived.saturating_sub(omitted)
    }

    /// Where the octets from `offset` on come from, of a message that arrived with `arrived` octets, up to the next place
    /// where something is left out.
    #[must_use]
    pub fn source(&self, offset: u64, arrived: u64) -> Source {
        let top = self.prepend.len() as u64;
        if offset < top {
            return Source::Top(usize::try_from(offset).unwrap_or(usize::MAX));
        }
        let mut at = offset - top;
        let mut end = arrived;
        for range in &self.omit {
            if range.start > at {
                end = range.start.min(arrived);
                break;
            }
            at += range.end.saturating_sub(range.start);
        }
        Source::Arrival(at..end.max(at))
    }

    /// The rendition of a message that is at hand whole.
    #[must_use]
    pub fn apply(&self, arrival: &[u8]) -> Vec<u8> {
        let mut out = self.prepend.clone();
        let mut from = 0;
        for range in &self.omit {
            let start = usize::try_from(range.start)
                .unwrap_or(usize::MAX)
                .min(arrival.len());
            out.extend_from_slice(arrival.get(from..start).unwrap_or_default());
            from = usize::try_from(range.end)
                .unwrap_or(usize::MAX)
                .min(arrival.len());
        }
        out.extend_from_slice(arrival.get(from..).unwrap_or_default());
        out
    }
}

/// What leaves by `path`. On top stand, in this order: `received`; towards the tenant's own connector its loop header;
/// the internal stamp where the path is stamped; what an application's message lacks.
#[must_use]
pub fn rendition(
    examined: &Examined,
    verdict: &Verdict,
    tenants: &Tenants,
    path: &Path,
    received: &ReceivedFacts<'_>,
) -> Rendition {
    let internal = path.via.is_internal();
    let mut prepend = received::field(received);
    if internal && let Some(header) = &verdict.tenant().loop_header {
        write_loop_header(&mut prepend, header);
    }
    if internal
        && path.stamped
        && let Some(org) = verdict.stamp_org()
    {
        prepend.extend_from_slice(&internal_stamp(received.by, org));
    }
    if let Class::Application { .. } = verdict.class() {
        prepend.extend_from_slice(&missing_fields(
            examined,
            received.by,
            received.id,
            received.unix_seconds,
        ));
    }
    let row = Row::of(verdict, internal);
    let removed = examined
        .fields()
        .filter(|field| row.removes(field.name(), verdict, tenants));
    Rendition {
        prepend,
        omit: merged(removed.map(|field| field.range())),
    }
}

/// Neighbouring ranges become one.
fn merged(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}

/// Control octets, which `check` refuses in a value, are never written: they would start another field.
fn write_loop_header(out: &mut Vec<u8>, header: &LoopHeader) {
    out.extend_from_slice(header.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(
        header
            .value
            .expose()
            .iter()
            .filter(|octet| !octet.is_ascii_control()),
    );
    out.extend_from_slice(b"\r\n");
}

/// Overwrites in `section`, the arrival bytes of the header section, the values of secret and loop headers that leave on
/// every path, so that no secret rests on disk. Length, line ends and blanks stay, and with them every range.
pub fn blank_secrets(
    examined: &Examined,
    verdict: &Verdict,
    tenants: &Tenants,
    section: &mut [u8],
) {
    let (inside, outside) = (Row::of(verdict, true), Row::of(verdict, false));
    let leaves = |field: &Field<'_>| {
        let name = field.name();
        is_marker(name, verdict, tenants)
            && inside.removes(name, verdict, tenants)
            && outside.removes(name, verdict, tenants)
    };
    for field in examined.fields().filter(leaves) {
        let value = section.get_mut(field.value_range()).unwrap_or_default();
        for octet in value
            .iter_mut()
            .filter(|octet| !matches!(octet, b'\r' | b'\n' | b' ' | b'\t'))
        {
            *octet = b'-';
        }
    }
}

/// The names of protected fields that are removed because their source may not set them, each once, as shown to a
/// person; empty for proven mail. An application's Bcc: and Return-Path: leave too, but are no forgery.
#[must_use]
pub fn removed_names(examined: &Examined, verdict: &Verdict, tenants: &Tenants) -> Vec<String> {
    const MOST: usize = 50;
    let mut names: Vec<String> = Vec::new();
    if verdict.is_from_trusted_connector() {
        return names;
    }
    let row = Row::of(verdict, true);
    for field in examined.fields() {
        let name = field.name();
        let told = shown(name.as_bytes());
        if row.removes(name, verdict, tenants)
            && (!is_submission_only(name) || is_marker(name, verdict, tenants))
            && !names.iter().any(|own| own.eq_ignore_ascii_case(&told))
        {
            names.push(told);
            if names.len() == MOST {
                break;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::super::received::tests::facts;
    use super::*;
    use crate::route::Via;
    use crate::trust::fixtures::{application, contoso, fabrikam, tenants, verdict};
    use crate::trust::{Reason, Tenant};
    use proptest::prelude::*;
    use std::sync::Arc;

    const EXCHANGE_MAIL: &str = "Received: from a by b\r\n\
        From: Ada <ada@contoso.com>\r\n\
        x-contoso-gate : gate-contoso\r\n\
        X-MS-Has-Attach:\r\n\
        X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n\
        X-MS-Exchange-CrossPremises-TransportTrafficSubType:\r\n\
        X-MS-Exchange-crosspremises-transporttrafficsubtype:\r\n\
        X-MS-Exchange-Organization-SCL: 1\r\n\
        X-OrganizationHeadersPreserved:\r\n AM8PR05MB0002\r\n\
        X-CrossPremisesHeadersPromoted: AM8\r\n\
        X-OriginatorOrg: contoso.com\r\n\
        X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n\
        Bcc: secret@contoso.com\r\n\
        X-MS-Exchange-Forest-RulesExecuted: x\r\n\
        X-Gatepost-Processed: of-another\r\n\
        Subject: =ä\r\n\
        \r\n\
        body\r\n.\r\nX-OriginatorOrg: body\r\n";

    fn path(via: Via, stamped: bool) -> Path {
        Path {
            via,
            stamped,
            recipients: vec![0],
        }
    }

    /// What stands on top of, and what is missing from, `message`.
    fn changes(message: &str, class: Class, path: &Path) -> (Vec<String>, Vec<String>) {
        let tenants = tenants([contoso(), fabrikam()]);
        let contoso = tenants.named("contoso").unwrap();
        let examined = examine(message.as_bytes()).unwrap();
        let rendition = rendition(
            &examined,
            &verdict(contoso, class),
            &tenants,
            path,
            &facts(),
        );
        let out = rendition.apply(message.as_bytes());
        assert_eq!(out.len() as u64, rendition.size(message.len() as u64));
        let names = |section: &[u8]| -> Vec<String> {
            examine(section)
                .unwrap()
                .fields()
                .map(|field| field.name().to_owned())
                .collect()
        };
        let mut kept: Vec<String> = names(&out);
        let prepended = names(&rendition.prepend);
        kept.drain(..prepended.len());
        let mut gone = names(message.as_bytes());
        for name in kept {
            let at = gone.iter().position(|own| *own == name).unwrap();
            gone.remove(at);
        }
        let body = &message[examined.len()..];
        assert!(out.ends_with(body.as_bytes()));
        (prepended, gone)
    }

    const INTERNAL: [&str; 7] = [
        "X-MS-Exchange-CrossPremises-AuthAs",
        "X-MS-Exchange-CrossPremises-TransportTrafficSubType",
        "X-MS-Exchange-crosspremises-transporttrafficsubtype",
        "X-MS-Exchange-Organization-SCL",
        "X-OrganizationHeadersPreserved",
        "X-CrossPremisesHeadersPromoted",
        "X-MS-Exchange-Forest-RulesExecuted",
    ];

    fn sorted<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Vec<String> {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort();
        names
    }

    #[test]
    fn back_to_exchange_only_the_secret_header_leaves() {
        let class = Class::Proven {
            foreign_sender: false,
        };
        let (top, gone) = changes(EXCHANGE_MAIL, class, &path(Via::Exchange, false));
        assert_eq!(top, ["Received", "X-Gatepost-Processed"]);
        assert_eq!(gone, ["x-contoso-gate"]);
    }

    #[test]
    fn outside_what_is_internal_leaves_and_tenant_stamps_stay() {
        for via in [Via::Mx, Via::Relay("upstream".into())] {
            let class = Class::Proven {
                foreign_sender: false,
            };
            let (top, gone) = changes(EXCHANGE_MAIL, class, &path(via, false));
            assert_eq!(top, ["Received"]);
            assert_eq!(
                sorted(gone),
                sorted(
                    INTERNAL
                        .into_iter()
                        .chain(["x-contoso-gate", "X-Gatepost-Processed"])
                )
            );
        }
    }

    const VALIDATION: Class = Class::Validation {
        foreign_sender: false,
    };

    #[test]
    fn connector_validation_mail_loses_what_mx_would_lose() {
        let (top, gone) = changes(EXCHANGE_MAIL, VALIDATION, &path(Via::Exchange, false));
        assert_eq!(top, ["Received", "X-Gatepost-Processed"]);
        assert_eq!(
            sorted(gone),
            sorted(
                INTERNAL
                    .into_iter()
                    .chain(["x-contoso-gate", "X-Gatepost-Processed"])
            )
        );
    }

    #[test]
    fn anything_else_keeps_nothing_that_only_exchange_may_say() {
        let untrusted = [
            "x-contoso-gate",
            "X-Gatepost-Processed",
            "X-OriginatorOrg",
            "X-MS-Exchange-CrossTenant-Id",
        ];
        let class = Class::Reported {
            reason: Reason::NoTenant,
        };
        let (top, gone) = changes(EXCHANGE_MAIL, class, &path(Via::Exchange, false));
        assert_eq!(top, ["Received", "X-Gatepost-Processed"]);
        assert_eq!(sorted(gone), sorted(INTERNAL.into_iter().chain(untrusted)));
        for via in [Via::Exchange, Via::Mx] {
            let application = application(&Arc::new(contoso()), &["*@contoso.com"], false);
            let (_, gone) = changes(
                EXCHANGE_MAIL,
                Class::Application { application },
                &path(via, false),
            );
            assert_eq!(
                sorted(gone),
                sorted(INTERNAL.into_iter().chain(untrusted).chain(["Bcc"]))
            );
        }
    }

    #[test]
    fn an_internal_application_is_stamped_below_the_loop_header() {
        let message =
            "From: erp@contoso.com\r\nX-MS-Exchange-CrossPremises-AuthAs: Forged\r\n\r\nhi";
        let erp = |internal| application(&Arc::new(contoso()), &["*@contoso.com"], internal);
        let class = |internal| Class::Application {
            application: erp(internal),
        };
        let stamp = internal_stamp("smarthost.contoso.com", &"contoso.com".parse().unwrap());
        let (top, gone) = changes(message, class(true), &path(Via::Exchange, true));
        let stamp_names = examine(&stamp)
            .unwrap()
            .fields()
            .map(|field| field.name().to_owned())
            .collect::<Vec<_>>();
        let expected = [
            &["Received".to_owned(), "X-Gatepost-Processed".to_owned()],
            &*stamp_names,
            &["Date".to_owned(), "Message-ID".to_owned()],
        ]
        .concat();
        assert_eq!(top, expected);
        assert_eq!(gone, ["X-MS-Exchange-CrossPremises-AuthAs"]);
        for (internal, via, stamped) in [(true, Via::Exchange, false), (false, Via::Exchange, true)]
        {
            let (top, _) = changes(message, class(internal), &path(via, stamped));
            assert_eq!(
                top,
                ["Received", "X-Gatepost-Processed", "Date", "Message-ID"]
            );
        }
        let (top, _) = changes(message, class(true), &path(Via::Mx, true));
        assert_eq!(top, ["Received", "Date", "Message-ID"]);
        let (top, _) = changes(message, Class::Own, &path(Via::Exchange, true));
        assert_eq!(
            top.len(),
            6,
            "our own reports carry the stamp, and are complete"
        );
    }

    #[test]
    fn the_loop_header_carries_the_current_value() {
        let tenants = tenants([contoso()]);
        let tenant = tenants.named("contoso").unwrap();
        let examined = examine(b"From: a@contoso.com\r\n\r\n").unwrap();
        let verdict = verdict(
            tenant,
            Class::Proven {
                foreign_sender: false,
            },
        );
        let rendition = rendition(
            &examined,
            &verdict,
            &tenants,
            &path(Via::Exchange, false),
            &facts(),
        );
        let top = examine(&rendition.prepend).unwrap();
        assert_eq!(
            &*top.named("X-Gatepost-Processed").next().unwrap().text(),
            b"loop-contoso"
        );
        assert!(!format!("{rendition:?}").contains("loop-contoso"));
    }

    #[test]
    fn neighbouring_ranges_are_one() {
        let tenants = tenants([contoso()]);
        let verdict = verdict(
            tenants.named("contoso").unwrap(),
            Class::Proven {
                foreign_sender: false,
            },
        );
        let message = b"X-EOP-A: 1\r\nX-MS-Exchange-Forest-A: 1\r\nX-CrossPremisesHeadersX: 2\r\nA: b\r\nX-MS-Exchange-Forest-B: 1";
        let examined = examine(message).unwrap();
        let rendition = rendition(
            &examined,
            &verdict,
            &tenants,
            &path(Via::Mx, false),
            &facts(),
        );
        assert_eq!(rendition.omit, [12..67, 73..98]);
        assert!(
            rendition
                .apply(message)
                .ends_with(b"X-EOP-A: 1\r\nA: b\r\n")
        );
    }

    #[test]
    fn secrets_that_leave_on_every_path_are_blanked() {
        let message = "X-Contoso-Gate: gate-contoso\r\n\tsecond\r\nx-fabrikam-gate: gate-fabrikam\r\nX-Gatepost-Processed: loop-contoso\r\nA: b\r\n\r\n";
        let blank = |class: Class| {
            let tenants = tenants([contoso(), fabrikam()]);
            let examined = examine(message.as_bytes()).unwrap();
            let mut section = message.as_bytes().to_vec();
            blank_secrets(
                &examined,
                &verdict(tenants.named("contoso").unwrap(), class),
                &tenants,
                &mut section,
            );
            let again = examine(&section).unwrap();
            assert!(
                again
                    .fields()
                    .map(|field| field.range())
                    .eq(examined.fields().map(|field| field.range()))
            );
            String::from_utf8(section).unwrap()
        };
        assert_eq!(
            blank(Class::Proven {
                foreign_sender: false
            }),
            message.replacen("gate-contoso\r\n\tsecond", "------------\r\n\t------", 1)
        );
        let all = "X-Contoso-Gate: ------------\r\n\t------\r\nx-fabrikam-gate: -------------\r\nX-Gatepost-Processed: ------------\r\nA: b\r\n\r\n";
        assert_eq!(blank(VALIDATION), all);
        assert_eq!(
            blank(Class::Reported {
                reason: Reason::NoTenant
            }),
            all
        );
    }

    #[test]
    fn removed_names_are_told_once_and_for_mail_that_may_not_carry_them() {
        let tenants = tenants([contoso()]);
        let contoso = tenants.named("contoso").unwrap();
        let examined = examine(b"X-OriginatorOrg: a\r\nx-originatororg: b\r\nBcc: c@d.example\r\nX-Contoso-Gate: x\r\nX-EOP\\: c\r\nx-eop\\: d\r\nFrom: a\r\n\r\n").unwrap();
        let names = |class| removed_names(&examined, &verdict(contoso, class), &tenants);
        let application = application(contoso, &["*@contoso.com"], false);
        assert_eq!(
            names(Class::Application { application }),
            ["X-OriginatorOrg", "X-Contoso-Gate", "X-EOP\\\\"]
        );
        assert_eq!(
            names(Class::Reported {
                reason: Reason::NoTenant
            }),
            ["X-OriginatorOrg", "X-Contoso-Gate", "X-EOP\\\\"]
        );
        assert!(
            names(Class::Proven {
                foreign_sender: false
            })
            .is_empty()
        );
        assert!(names(VALIDATION).is_empty());
    }

    fn name() -> impl Strategy<Value = String> {
        let names = [
            "From",
            "Received",
            "X-MS-Exchange-Organization-AuthAs",
            "X-MS-Exchange-CrossPremises-AuthAs",
            "X-OriginatorOrg",
            "X-MS-Exchange-CrossTenant-Id",
            "X-OrganizationHeadersPreserved",
            "X-CrossPremisesHeadersFiltered",
            "X-CrossPremisesX",
            "X-MS-Journal-Report",
            "X-MS-Gcc-Journal-Report",
            "X-Forefront-Antispam-Report",
            "X-Microsoft-Antispam",
            "X-EOPAttributedMessage",
            "X-Contoso-Gate",
            "X-Fabrikam-Gate",
            "X-Gatepost-Processed",
            "Bcc",
            "Resent-Bcc",
            "Return-Path",
            "X-MS-Has-Attach",
            "Subject",
        ];
        (prop::sample::select(names.to_vec()), any::<u64>()).prop_map(|(name, cases)| {
            let flip = |(at, c): (usize, char)| {
                if cases >> (at % 64) & 1 == 1 {
                    c.to_ascii_uppercase()
                } else {
                    c.to_ascii_lowercase()
                }
            };
            name.chars().enumerate().map(flip).collect()
        })
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let value = proptest::collection::vec(
            prop_oneof![
                Just("\r\n ".to_owned()),
                Just("\r\n\t".to_owned()),
                "[ -~]{0,12}",
                Just("X-OriginatorOrg: y".to_owned())
            ],
            0..4,
        );
        let blanks = prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\t ")];
        let field = (name(), blanks, value)
            .prop_map(|(name, blanks, value)| format!("{name}{blanks}:{}\r\n", value.concat()));
        let body = proptest::collection::vec(any::<u8>(), 0..40);
        (proptest::collection::vec(field, 0..12), any::<bool>(), body).prop_map(
            |(fields, ended, body)| {
                let mut message = fields.concat().into_bytes();
                if ended {
                    message.extend_from_slice(b"\r\n");
                    message.extend_from_slice(&body);
                }
                message
            },
        )
    }

    /// The rendition as who sends it reads it, no more than seven octets at once.
    fn in_pieces(rendition: &Rendition, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let source = rendition.source(out.len() as u64, message.len() as u64);
            let piece = match source {
                Source::Top(from) => &rendition.prepend[from..],
                Source::Arrival(range) => {
                    &message
                        [usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
                }
            };
            if piece.is_empty() {
                return out;
            }
            out.extend_from_slice(&piece[..piece.len().min(7)]);
        }
    }

    fn classes(tenant: &Arc<Tenant>) -> Vec<Class> {
        vec![
            Class::Proven {
                foreign_sender: false,
            },
            VALIDATION,
            Class::Reported {
                reason: Reason::NoTenant,
            },
            Class::Application {
                application: application(tenant, &["*@contoso.com"], true),
            },
            Class::Own,
        ]
    }

    proptest! {
        #[test]
        fn the_body_never_changes_and_stripping_twice_equals_once(message in message()) {
            let tenants = tenants([contoso(), fabrikam()]);
            let contoso = tenants.named("contoso").unwrap();
            for class in classes(contoso) {
                for via in [Via::Exchange, Via::Mx, Via::Relay("upstream".into())] {
                    let examined = examine(&message).unwrap();
                    let verdict = verdict(contoso, class.clone());
                    let path = path(via, true);
                    let mut once = rendition(&examined, &verdict, &tenants, &path, &facts());
                    prop_assert!(once.omit.windows(2).all(|pair| pair[0].end < pair[1].start));
                    prop_assert_eq!(once.apply(&message).len() as u64, once.size(message.len() as u64));
                    prop_assert_eq!(in_pieces(&once, &message), once.apply(&message));
                    once.prepend.clear();
                    let stripped = once.apply(&message);
                    prop_assert!(stripped.ends_with(&message[examined.len()..]));
                    let again = examine(&stripped).unwrap();
                    prop_assert_eq!(again.is_ended(), examined.is_ended());
                    let mut twice = rendition(&again, &verdict, &tenants, &path, &facts());
                    twice.prepend.clear();
                    prop_assert_eq!(&twice.omit, &vec![]);
                }
            }
        }

        /// An oracle of its own, too.
        #[test]
        fn proven_mail_takes_nothing_internal_outside(message in message()) {
            let tenants = tenants([contoso(), fabrikam()]);
            let contoso = tenants.named("contoso").unwrap();
            for class in classes(contoso).into_iter().take(2) {
                for via in [Via::Mx, Via::Relay("upstream".into())] {
                    let examined = examine(&message).unwrap();
                    let verdict = verdict(contoso, class.clone());
                    // All of it, with what was put on top.
                    let out = rendition(&examined, &verdict, &tenants, &path(via, true), &facts()).apply(&message);
                    let header = String::from_utf8_lossy(&out[..examine(&out).unwrap().len()]).to_lowercase();
                    for line in header.lines().filter(|line| !line.starts_with([' ', '\t'])) {
                        let internal = ["x-ms-exchange-organization-", "x-ms-exchange-forest-", "x-ms-exchange-crosspremises-",
                            "x-organizationheaderspreserved", "x-crosspremisesheaders", "x-contoso-gate", "x-gatepost-processed"];
                        prop_assert!(!internal.iter().any(|name| line.starts_with(name)), "{}", line);
                    }
                }
            }
        }

        /// An oracle of its own: lower case and prefixes, nothing shared with `protected`.
        #[test]
        fn untrusted_mail_keeps_no_protected_field(message in message()) {
            let tenants = tenants([contoso(), fabrikam()]);
            let contoso = tenants.named("contoso").unwrap();
            for class in classes(contoso).into_iter().skip(2) {
                let examined = examine(&message).unwrap();
                let is_application = matches!(class, Class::Application { .. });
                let mut rendition = rendition(&examined, &verdict(contoso, class), &tenants, &path(Via::Exchange, false), &facts());
                rendition.prepend.clear();
                let out = rendition.apply(&message);
                let header = String::from_utf8_lossy(&out[..examine(&out).unwrap().len()]).to_lowercase();
                for line in header.lines().filter(|line| !line.starts_with([' ', '\t'])) {
                    let protected = ["x-ms-exchange-", "x-originatororg", "x-organizationheaderspreserved", "x-crosspremises",
                        "x-ms-journal-report", "x-ms-gcc-journal-report", "x-forefront-", "x-microsoft-antispam", "x-eop",
                        "x-contoso-gate", "x-fabrikam-gate", "x-gatepost-processed"];
                    prop_assert!(!protected.iter().any(|name| line.starts_with(name)), "{}", line);
                    if is_application {
                        prop_assert!(!["bcc", "resent-bcc", "return-path"].iter().any(|name| line.starts_with(name)), "{}", line);
                    }
                }
                let kept = examined.fields().filter(|field| field.is("Subject") || field.is("X-MS-Has-Attach")).count();
                let after = examine(&out).unwrap();
                prop_assert_eq!(after.count("Subject") + after.count("X-MS-Has-Attach"), kept);
            }
        }
    }
}
