//! Would Exchange Online treat this message as internal, and if not, because of what? (exchange-online.md 3)
//!
//! There are two readings of a header section. *On its way*: what Gatepost delivers, or takes; there the CrossPremises
//! fields count, which an inbound connector with CloudServicesMailEnabled promotes. *In a mailbox*: what Exchange made of
//! it; there its verdict stands in the Organization fields.

mod fields;
mod gate;
mod mailbox;
mod on_its_way;

use super::Mark;
use super::attribution;
use crate::header::Examined;
use crate::mail::{Domain, TenantId, shown};
use crate::trust::{Tenant, Tenants};
use std::sync::Arc;

/// Which of the two a header section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Before Exchange has taken it (again).
    OnItsWay,
    /// As a mailbox shows it.
    Mailbox,
}

impl Reading {
    /// For people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OnItsWay => "on its way to Exchange",
            Self::Mailbox => "as a mailbox shows it",
        }
    }
}

/// For what a field speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bears {
    /// That it is internal.
    Internal,
    /// That it is external.
    External,
    /// Neither; it tells where to look.
    Neither,
}

impl Bears {
    /// For people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
            Self::Neither => "-",
        }
    }
}

/// A field that counts, or a setting beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub field: String,
    /// Its value, escaped and cut; empty where it is not there.
    pub value: String,
    /// For what it speaks.
    pub bears: Bears,
    /// What it says and why that counts.
    pub says: String,
    /// How well this is known.
    pub mark: Mark,
}

/// What is known beside the header section.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The tenants of the configuration; `None`: there is no configuration.
    pub tenants: Option<&'a Tenants>,
    /// Our own name.
    pub hostname: Option<&'a Domain>,
    /// The tenant whose connector would carry it.
    pub tenant: Option<&'a Tenant>,
    /// How Exchange would attribute it there.
    pub attribution: Option<&'a attribution::Answer>,
    /// `cloud_services_mail_enabled` of that connector.
    pub promotes: Option<bool>,
    /// It is the form in which Gatepost delivers it: nothing will be taken away any more.
    pub as_delivered: bool,
    /// The time (seconds since 1970), for `gate_report_until`.
    pub now: u64,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Which reading it is.
    pub reading: Reading,
    /// Nothing says for sure which of the two it is, and in this other reading the answer would be another.
    pub otherwise: Option<Reading>,
    /// `None`: the header section does not say.
    pub internal: Option<bool>,
    /// What was looked at.
    pub rows: Vec<Row>,
    /// Because of what, a clause.
    pub because: String,
    /// What mends it.
    pub mended_by: Option<String>,
}

impl Judgement {
    /// The one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let because = &self.because;
        let sentence = match (self.internal, &self.mended_by) {
            (Some(true), _) => format!("Internal: {because}"),
            (Some(false), Some(mended_by)) => {
                format!("External because {because}; mended by this: {mended_by}")
            }
            (Some(false), None) => format!("External because {because}"),
            (None, Some(mended_by)) => format!("It cannot be told: {because}; {mended_by}"),
            (None, None) => format!("It cannot be told: {because}"),
        };
        sentence + "."
    }
}

/// Whether it is internal, because of what, and what mends it.
struct Conclusion {
    internal: Option<bool>,
    because: String,
    mended_by: Option<String>,
}

impl Conclusion {
    fn internal(because: String) -> Self {
        Self {
            internal: Some(true),
            because,
            mended_by: None,
        }
    }

    fn external(because: impl Into<String>, mended_by: impl Into<String>) -> Self {
        Self {
            internal: Some(false),
            because: because.into(),
            mended_by: Some(mended_by.into()),
        }
    }

    fn unknown(because: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            internal: None,
            because: because.into(),
            mended_by: Some(instead.into()),
        }
    }
}

/// Judges a header section, in the reading that it is seen to be unless one is given.
#[must_use]
pub fn judge(header: &Examined, reading: Option<Reading>, facts: &Facts<'_>) -> Judgement {
    let (reading, is_sure) = reading.map_or_else(|| recognised(header, facts), |own| (own, true));
    let judgement = judge_as(header, reading, facts);
    let other = match reading {
        Reading::OnItsWay => Reading::Mailbox,
        Reading::Mailbox => Reading::OnItsWay,
    };
    let differs = || {
        let told = judge_as(header, other, facts).internal;
        told.is_some() && told != judgement.internal
    };
    Judgement {
        otherwise: (!is_sure && differs()).then_some(other),
        ..judgement
    }
}

fn judge_as(header: &Examined, reading: Reading, facts: &Facts<'_>) -> Judgement {
    let mut rows = fields::rows(header, reading, facts);
    let conclusion = match reading {
        Reading::Mailbox => mailbox::conclude(header),
        Reading::OnItsWay => on_its_way::conclude(header, facts, &mut rows),
    };
    Judgement {
        reading,
        otherwise: None,
        internal: conclusion.internal,
        rows,
        because: conclusion.because,
        mended_by: conclusion.mended_by,
    }
}

const ORGANIZATION: &str = "X-MS-Exchange-Organization-";
const CROSS_PREMISES: &str = "X-MS-Exchange-CrossPremises-";
const CROSS_TENANT: &str = "X-MS-Exchange-CrossTenant-";

/// What Exchange stamps on all that leaves it, and Gatepost with its own stamp; one of them, once.
const STAMPS: [&str; 2] = ["X-MS-Exchange-CrossTenant-Id", "X-OriginatorOrg"];

/// A mailbox shows Organization fields beside what only Exchange's transport adds; alone they may be forged, in a mail that
/// has not been there yet. The reading, and whether that is sure.
fn recognised(header: &Examined, facts: &Facts<'_>) -> (Reading, bool) {
    let organization = |name: &str| header.has(&format!("{ORGANIZATION}{name}"));
    if facts.as_delivered {
        return (Reading::OnItsWay, true);
    }
    // Its front end writes both, and nobody lets them out again.
    if organization("MessageDirectionality") && header.has("X-EOPAttributedMessage") {
        return (Reading::Mailbox, true);
    }
    if topmost_is_ours(header, facts) {
        return (Reading::OnItsWay, true);
    }
    let transport = organization("MessageDirectionality")
        || organization("Network-Message-Id")
        || organization("ExpirationStartTime")
        || header.has("X-MS-Exchange-Transport-EndToEndLatency")
        || header.has("X-EOPAttributedMessage")
        || came_by_exchange(header);
    // Of a paste of a few lines nobody knows more than it shows.
    let excerpt = !header.has("From") && !header.has("X-MS-Exchange-CrossPremises-AuthAs");
    let told = organization("AuthAs") || organization("MessageDirectionality");
    if told && (transport || excerpt) {
        (Reading::Mailbox, transport)
    } else {
        // What is meant for a mailbox is not seen elsewhere.
        (Reading::OnItsWay, !told && !excerpt)
    }
}

fn topmost_is_ours(header: &Examined, facts: &Facts<'_>) -> bool {
    let (Some(first), Some(own)) = (header.named("Received").next(), facts.hostname) else {
        return false;
    };
    let text = String::from_utf8_lossy(&first.text()).to_ascii_lowercase();
    let mut words = text.split_ascii_whitespace();
    words.any(|word| word == "by") && words.next() == Some(own.as_str())
}

/// By its product, or, in an excerpt that has lost it, by the name of one of its hosts.
fn came_by_exchange(header: &Examined) -> bool {
    header.named("Received").any(|field| {
        let text = String::from_utf8_lossy(&field.text()).to_ascii_lowercase();
        let mut words = text.split_ascii_whitespace();
        let by_host = words.any(|word| word == "by")
            && words
                .next()
                .is_some_and(|host| host.ends_with(".prod.outlook.com"));
        by_host || text.contains("microsoft smtp server")
    })
}

/// The tenant that a message is meant to be of: by Exchange's stamps, else by who writes.
#[must_use]
pub fn tenant_of(header: &Examined, tenants: &Tenants) -> Option<Arc<Tenant>> {
    let id = value(header, &format!("{CROSS_TENANT}Id"));
    let id = id.and_then(|id| id.parse::<TenantId>().ok());
    if let Some(id) = id {
        return tenants.of_id(id).cloned();
    }
    let org = value(header, "X-OriginatorOrg").and_then(|org| org.parse::<Domain>().ok());
    if let Some(org) = org {
        return tenants.of_org(&org).cloned();
    }
    let from = sender_of(header)?;
    tenants.accepting(&from).cloned()
}

/// The domain of who writes it, for attribution: From:.
#[must_use]
pub fn sender_of(header: &Examined) -> Option<Domain> {
    let from = header.from_mailboxes().ok()?;
    from.first().map(|mailbox| mailbox.domain().clone())
}

/// The first value of a field as shown to a person; `None` where it is not there.
fn value(header: &Examined, name: &str) -> Option<String> {
    header.named(name).next().map(|field| shown(&field.text()))
}

fn says(header: &Examined, name: &str, wanted: &str) -> bool {
    value(header, name).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests;
