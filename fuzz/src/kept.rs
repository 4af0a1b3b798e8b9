//! What is held of a message that is kept, by readers that share nothing with the gates.

use super::client::Meant;
use super::naive;
use super::world::{CONTOSO, FABRIKAM};
use gatepost::route::{From, Via};
use gatepost::spool::Message;

/// By which rules it came in.
pub struct Rules {
    pub connector: bool,
    /// Bare newlines are repaired.
    pub repair: bool,
    /// Contoso's gate only reports.
    pub reports: bool,
    /// Every DKIM signature verifies.
    pub signed: bool,
}

/// Envelope and content are what was meant, octet for octet, but for the markers that leave by every way: their values are
/// blanked.
pub fn assert_as_meant(rules: &Rules, message: &Message, content: &[u8], meant: &Meant) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).to_lowercase();
    let sender = message.envelope.reverse_path.to_string();
    assert_eq!(sender.to_lowercase(), text(&meant.sender));
    let kept = message.envelope.recipients.iter();
    let kept: Vec<String> = kept
        .map(|recipient| recipient.mailbox.as_str().to_lowercase())
        .collect();
    let recipients: Vec<String> = meant.recipients.iter().map(|path| text(path)).collect();
    assert_eq!(kept, recipients);
    let whole = match rules.repair {
        true => naive::repaired(&meant.content),
        false => meant.content.clone(),
    };
    let is_marker = |name: &str| naive::is_secret(name) || naive::is_loop(name);
    // Of mail that a gate only reports it is not known to a plain reader whether it was proven.
    let fits = standings(rules, message, meant)
        .into_iter()
        .any(|standing| {
            let (inside, outside) = (
                standing.leaves(message, true),
                standing.leaves(message, false),
            );
            let blank = |name: &str| is_marker(name) && inside(name) && outside(name);
            content == naive::blanked(&whole, blank)
        });
    assert!(
        fits,
        "{} is kept: {}, meant was {}",
        message.id,
        content.escape_ascii(),
        meant.content.escape_ascii()
    );
}

/// What a message counts as (product.md 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Proven,
    Validation,
    Reported,
    Application,
}

impl Standing {
    /// Which fields leave, by the tenant's connector or by another way.
    fn leaves(self, message: &Message, inside: bool) -> impl Fn(&str) -> bool {
        let own_gate = format!("x-{}-gate", message.tenant);
        move |name| match self {
            Self::Proven if inside => name == own_gate,
            Self::Proven | Self::Validation => naive::is_internal(name),
            Self::Reported => naive::is_protected(name),
            Self::Application => naive::is_protected(name) || naive::is_blind(name),
        }
    }
}

/// What it may be: one thing, but where a gate reports and two items would do.
fn standings(rules: &Rules, message: &Message, meant: &Meant) -> Vec<Standing> {
    if !rules.connector {
        return vec![Standing::Application];
    }
    let sender = message.envelope.reverse_path.to_string();
    let proven = match sender
        .to_lowercase()
        .starts_with("o365connectorvalidation@")
    {
        true => Standing::Validation,
        false => Standing::Proven,
    };
    let is_proven = is_proven(rules, message, &meant.content);
    match rules.reports && &*message.tenant == "contoso" {
        true if is_proven => vec![proven, Standing::Reported],
        true => vec![Standing::Reported],
        false => {
            assert!(is_proven, "{message:?}: {}", meant.content.escape_ascii());
            vec![proven]
        }
    }
}

/// Two items of its tenant, and none of another.
fn is_proven(rules: &Rules, message: &Message, content: &[u8]) -> bool {
    let tenant = &message.tenant;
    let id = if &**tenant == "contoso" {
        CONTOSO
    } else {
        FABRIKAM
    };
    let is_own = |domain: &[u8]| {
        let domain = String::from_utf8_lossy(domain).to_lowercase();
        let own = format!("{tenant}.com");
        domain == own || &**tenant == "contoso" && domain.ends_with(&format!(".{own}"))
    };
    let orgs = naive::values(content, "x-originatororg");
    let ids = naive::values(content, "x-ms-exchange-crosstenant-id");
    let gate = naive::values(content, &format!("x-{tenant}-gate"));
    let secret = format!("{tenant}-secret");
    let signs = |field: &Vec<u8>| {
        let mut tags = field.split(|octet| *octet == b';');
        tags.any(|tag| {
            let mut tag = tag.to_vec();
            tag.retain(|octet| !b" \t".contains(octet));
            tag.strip_prefix(b"d=").is_some_and(is_own)
        })
    };
    let signatures = naive::values(content, "dkim-signature");
    let xoorg = message.envelope.xoorg.as_ref();
    let items = [
        orgs.iter().any(|org| is_own(org)),
        ids.iter()
            .any(|own| own.eq_ignore_ascii_case(id.as_bytes())),
        gate.iter().any(|own| own == secret.as_bytes()),
        xoorg.is_some_and(|xoorg| is_own(xoorg.as_str().as_bytes())),
        rules.signed && signatures.iter().any(signs),
    ];
    let foreign = orgs.iter().any(|org| !is_own(org))
        || ids
            .iter()
            .any(|own| !own.eq_ignore_ascii_case(id.as_bytes()))
        || xoorg.is_some_and(|xoorg| !is_own(xoorg.as_str().as_bytes()));
    let doubled = orgs.len() > 1 || ids.len() > 1;
    items.iter().filter(|holds| **holds).count() >= 2 && !foreign && !doubled
}

/// Each recipient has one way, and by each way leaves exactly what must.
pub fn assert_message(rules: &Rules, message: &Message, content: &[u8], meant: &Meant) {
    assert_eq!(message.from == From::Connector, rules.connector);
    assert_eq!(message.facts.size, content.len() as u64);
    let legs = message.legs.iter();
    let mut positions: Vec<usize> = legs.flat_map(|leg| leg.recipients.clone()).collect();
    positions.sort_unstable();
    let all = 0..message.envelope.recipients.len();
    assert!(positions.into_iter().eq(all), "each has one way");
    let fits = standings(rules, message, meant)
        .into_iter()
        .any(|standing| {
            message.legs.iter().all(|leg| {
                let out = leg.rendition.apply(content);
                let rest = &out[leg.rendition.prepend.len()..];
                let leaves = standing.leaves(message, leg.via == Via::Exchange);
                rest == naive::without(content, leaves)
            })
        });
    let told = || -> Vec<String> {
        let legs = message.legs.iter();
        legs.map(|leg| leg.rendition.apply(content).escape_ascii().to_string())
            .collect()
    };
    assert!(fits, "{:?} of {}", told(), content.escape_ascii());
    // The secret's text may stand anywhere else: in the body, in another field, or in Received:, as what the peer calls itself.
    let (own_gate, secret) = (
        format!("x-{}-gate", message.tenant),
        format!("{}-secret", message.tenant),
    );
    let elsewhere = naive::without(content, |name| name == own_gate);
    for leg in &message.legs {
        let out = naive::without(&leg.rendition.apply(content), |name| name == "received");
        assert!(
            !rules.connector
                || !naive::contains(&out, secret.as_bytes())
                || naive::contains(&elsewhere, secret.as_bytes())
        );
    }
}
