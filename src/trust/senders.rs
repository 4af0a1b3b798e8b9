//! Do the senders lie in the tenant's accepted domains? (product.md 3, "Sender")

use super::settings::Tenant;
use super::verdict::{EvidenceItem, EvidenceKind, EvidenceState};
use crate::header::{Examined, Malformed};
use crate::mail::{Mailbox, ReversePath, shown};

/// Who writes, as envelope and header section say; read once, asked for each tenant.
pub(super) struct Senders<'a> {
    reverse_path: &'a ReversePath,
    /// `From:`; a missing one counts as malformed.
    pub(super) from: Result<Vec<Mailbox>, Malformed>,
    /// `Sender:`, where there is one beyond doubt.
    sender: Option<Vec<Mailbox>>,
    /// Every readable `Resent-From:`: a message may be resent more than once (RFC 5322 §3.6.6).
    resent_from: Vec<Vec<Mailbox>>,
}

impl<'a> Senders<'a> {
    pub(super) fn read(reverse_path: &'a ReversePath, header: &Examined) -> Self {
        Self {
            reverse_path,
            from: header.from_mailboxes(),
            sender: header.mailboxes("Sender").ok(),
            resent_from: header
                .named("Resent-From")
                .filter_map(|field| field.mailboxes().ok())
                .collect(),
        }
    }

    /// The envelope sender lies in the accepted domains, or is null.
    pub(super) fn fits_envelope(&self, tenant: &Tenant) -> bool {
        self.reverse_path
            .mailbox()
            .is_none_or(|mailbox| tenant.accepted_domains.contains(mailbox.domain()))
    }

    /// All of From: lie in the accepted domains.
    pub(super) fn fits_from(&self, tenant: &Tenant) -> bool {
        self.from
            .as_ref()
            .is_ok_and(|list| all_accepted(tenant, list))
    }

    /// From:, Sender: or a Resent-From: lies in the accepted domains.
    pub(super) fn fits_header(&self, tenant: &Tenant) -> bool {
        self.fits_from(tenant)
            || self
                .sender
                .as_ref()
                .is_some_and(|list| all_accepted(tenant, list))
            || self
                .resent_from
                .iter()
                .any(|list| all_accepted(tenant, list))
    }

    /// The two items of evidence, given whether each fits.
    pub(super) fn evidence(
        &self,
        fits_envelope: bool,
        fits_header: bool,
        named: impl Fn(&Mailbox) -> Option<String>,
    ) -> [EvidenceItem; 2] {
        let state = |fits: bool| {
            if fits {
                EvidenceState::Matches
            } else {
                EvidenceState::Differs
            }
        };
        let envelope = match self.reverse_path {
            ReversePath::Null => {
                EvidenceItem::bare(EvidenceKind::EnvelopeSender, EvidenceState::Absent)
            }
            ReversePath::Mailbox(mailbox) => EvidenceItem {
                kind: EvidenceKind::EnvelopeSender,
                state: state(fits_envelope),
                tenant: named(mailbox),
                seen: Some(shown(mailbox.as_str().as_bytes())),
            },
        };
        let header = match &self.from {
            Ok(list) => EvidenceItem {
                kind: EvidenceKind::HeaderSender,
                state: state(fits_header),
                tenant: list.first().and_then(&named),
                seen: Some(shown_list(list)),
            },
            Err(fault) => EvidenceItem::bare(
                EvidenceKind::HeaderSender,
                match fault {
                    Malformed::Absent => EvidenceState::Absent,
                    Malformed::Duplicate => EvidenceState::Duplicate,
                    Malformed::Unreadable => EvidenceState::Malformed,
                },
            ),
        };
        [envelope, header]
    }
}

fn all_accepted(tenant: &Tenant, list: &[Mailbox]) -> bool {
    !list.is_empty()
        && list
            .iter()
            .all(|mailbox| tenant.accepted_domains.contains(mailbox.domain()))
}

fn shown_list(list: &[Mailbox]) -> String {
    let list: Vec<&str> = list.iter().map(Mailbox::as_str).collect();
    shown(list.join(", ").as_bytes())
}
