//! What do Exchange's stamps say? The fields that prove or contradict a tenant, read strictly (product.md 3).

use crate::header::{Examined, Field};
use crate::mail::{Domain, Envelope, TenantId, shown};

/// A field that may stand once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading<T> {
    Absent,
    One(T),
    Malformed,
    /// There more than once; what could be read.
    Duplicate(Vec<T>),
}

impl<T: PartialEq> Reading<T> {
    /// The fields of this name through `read`, with what was seen as shown to a person.
    fn of(
        header: &Examined,
        name: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> (Self, Option<String>) {
        let fields: Vec<Field<'_>> = header.named(name).collect();
        let reading = match fields.as_slice() {
            [] => return (Self::Absent, None),
            [field] => read(&field.text()).map_or(Self::Malformed, Self::One),
            several => Self::Duplicate(
                several
                    .iter()
                    .filter_map(|field| read(&field.text()))
                    .collect(),
            ),
        };
        let texts: Vec<Vec<u8>> = fields
            .iter()
            .map(|field| field.text().into_owned())
            .collect();
        (reading, Some(shown(&texts.join(&b" | "[..]))))
    }

    /// Twice or malformed: refuses, whatever else the message says.
    pub(super) fn is_ambiguous(&self) -> bool {
        match self {
            Self::Malformed | Self::Duplicate(_) => true,
            Self::Absent | Self::One(_) => false,
        }
    }

    /// What it names; a value that stands twice names, but proves nothing.
    pub(super) fn values(&self) -> &[T] {
        match self {
            Self::Absent | Self::Malformed => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Duplicate(values) => values,
        }
    }
}

/// The stamps of one message.
pub(super) struct Stamps {
    /// `XOORG` of MAIL.
    pub(super) xoorg: Option<Domain>,
    /// `X-OriginatorOrg`.
    pub(super) org: Reading<Domain>,
    pub(super) org_seen: Option<String>,
    /// `X-MS-Exchange-CrossTenant-Id`.
    pub(super) id: Reading<TenantId>,
    pub(super) id_seen: Option<String>,
    /// The tenants of every `X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp`: it proves nothing, and a
    /// second one is no fault, but each may contradict.
    pub(super) connecting: Vec<TenantId>,
    pub(super) connecting_seen: Option<String>,
}

const CONNECTING_IP: &str = "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp";

impl Stamps {
    pub(super) fn read(envelope: &Envelope, header: &Examined) -> Self {
        let (org, org_seen) = Reading::of(header, "X-OriginatorOrg", organisation);
        let (id, id_seen) = Reading::of(header, "X-MS-Exchange-CrossTenant-Id", |text| {
            ascii(text)?.parse().ok()
        });
        let (_, connecting_seen) = Reading::of(header, CONNECTING_IP, |_| Some(()));
        let connecting = header
            .named(CONNECTING_IP)
            .flat_map(|field| connecting_tenants(&field.text()))
            .collect();
        Self {
            xoorg: envelope.xoorg.clone(),
            org,
            org_seen,
            id,
            id_seen,
            connecting,
            connecting_seen,
        }
    }
}

fn ascii(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.is_ascii())
}

/// An originator organisation: a domain name. A U-label must be one: a name that becomes plain ASCII by mapping look-alikes
/// (full-width letters) is malformed, and so are address literals and trailing dots.
fn organisation(text: &[u8]) -> Option<Domain> {
    let text = std::str::from_utf8(text).ok()?;
    let domain: Domain = text.parse().ok()?;
    let literal = domain.as_str().starts_with('[');
    (!literal && (text.is_ascii() || domain.as_str().contains("xn--"))).then_some(domain)
}

/// The GUIDs of `TenantId=<guid>;Ip=[a.b.c.d];Helo=[name]`.
fn connecting_tenants(text: &[u8]) -> Vec<TenantId> {
    let parameters = text.split(|&octet| octet == b';');
    parameters
        .filter_map(|parameter| {
            let (key, value) = ascii(parameter)?.split_once('=')?;
            let is_tenant = key.trim().eq_ignore_ascii_case("TenantId");
            if is_tenant {
                value.trim().parse().ok()
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organisations_are_read_strictly() {
        assert_eq!(
            organisation(b"Contoso.COM").as_ref().map(Domain::as_str),
            Some("contoso.com")
        );
        assert_eq!(
            organisation("bücher.example".as_bytes())
                .as_ref()
                .map(Domain::as_str),
            Some("xn--bcher-kva.example")
        );
        for text in [
            "",
            "contoso.com.",
            "contoso.com, fabrikam.com",
            "contoso.com fabrikam.com",
            "contoso.com (fabrikam.com)",
            "[192.0.2.1]",
            "\u{ff43}ontoso.com",
            "contoso\u{3002}com",
            "contoso.com\u{a0}",
        ] {
            assert_eq!(organisation(text.as_bytes()), None, "{text}");
        }
        assert_eq!(organisation(b"contos\xf6.com"), None);
        let look_alike = organisation("\u{441}ontoso.com".as_bytes()).unwrap();
        assert_ne!(look_alike.as_str(), "contoso.com");
    }

    #[test]
    fn every_connecting_tenant_is_found() {
        let a = "11111111-2222-3333-4444-555555555555";
        let b = "b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25";
        let text = format!("TenantId={a};Ip=[203.0.113.66];Helo=[x; tenantid = {b} ;y]");
        let found: Vec<String> = connecting_tenants(text.as_bytes())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, [a, b]);
        assert!(
            connecting_tenants(b"TenantId={11111111-2222-3333-4444-555555555555};Ip").is_empty()
        );
    }
}
