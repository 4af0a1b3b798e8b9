//! Which fields may a message not carry along which way? The name sets of product.md 4, the table.

use crate::route::From;
use crate::trust::{Class, Tenant, Tenants, Verdict};
use std::sync::Arc;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Proven mail to the tenant's own inbound connector: the secret header leaves.
    Return,
    /// Proven mail to the outside: what is internal to the organisation leaves.
    Outside,
    /// Anything else: whatever only Exchange may say leaves.
    Untrusted,
    /// Anything else from an application: blind copies and Return-Path as well.
    Application,
}

impl Row {
    /// The row for a verdict's mail on an internal (the tenant's connector) or external path.
    ///
    /// Connector validation mail loses what mx would lose on every path (product.md 3).
    pub(super) fn of(verdict: &Verdict, internal: bool) -> Self {
        match (verdict.class(), internal) {
            (Class::Proven { .. }, true) => Self::Return,
            (Class::Proven { .. }, false) | (Class::Validation { .. }, _) => Self::Outside,
            (Class::Application { .. }, _) => Self::Application,
            (Class::Reported { .. } | Class::Own, _) => Self::Untrusted,
        }
    }

    /// The row for what a report shows of a message (product.md 7): nothing protected, wherever it came from, and of an application
    /// no blind copies.
    pub(super) fn returned(from: From) -> Self {
        match from {
            From::Connector => Self::Untrusted,
            From::Submission => Self::Application,
        }
    }

    /// Whether a field of this name leaves.
    pub(super) fn removes(self, name: &str, verdict: &Verdict, tenants: &Tenants) -> bool {
        match self {
            Self::Return => {
                let secret = verdict.tenant().secret_header.as_ref();
                secret.is_some_and(|header| header.name.eq_ignore_ascii_case(name))
            }
            Self::Outside | Self::Untrusted | Self::Application => {
                self.protects(name) || is_marker(name, verdict, tenants)
            }
        }
    }

    /// Whether it leaves whatever the tenants call their markers.
    pub(super) fn protects(self, name: &str) -> bool {
        match self {
            Self::Return => false,
            Self::Outside => is_internal(name),
            Self::Untrusted => is_exchange_only(name),
            Self::Application => is_exchange_only(name) || is_submission_only(name),
        }
    }
}

/// A secret or loop header of any tenant: one tenant's marker must not reach the outside through another's mail, nor be
/// brought in by it. The verdict's own tenant may be of an older configuration than `tenants`.
pub(super) fn is_marker(name: &str, verdict: &Verdict, tenants: &Tenants) -> bool {
    is_marker_of(
        name,
        std::iter::once(verdict.tenant()).chain(tenants.iter()),
    )
}

/// A secret or loop header of one of these tenants.
pub(super) fn is_marker_of<'a>(
    name: &str,
    mut tenants: impl Iterator<Item = &'a Arc<Tenant>>,
) -> bool {
    tenants.any(|tenant| {
        let secret = tenant.secret_header.as_ref().map(|header| &header.name);
        let loops = tenant.loop_header.as_ref().map(|header| &header.name);
        secret
            .into_iter()
            .chain(loops)
            .any(|own| own.eq_ignore_ascii_case(name))
    })
}

/// What a message says only inside its organisation: leaves towards the outside.
fn is_internal(name: &str) -> bool {
    opens_with_x(name)
        && (starts(name, "X-MS-Exchange-Organization-")
            || starts(name, "X-MS-Exchange-Forest-")
            || starts(name, "X-MS-Exchange-CrossPremises-")
            || name.eq_ignore_ascii_case("X-OrganizationHeadersPreserved")
            || starts(name, "X-CrossPremisesHeaders"))
}

/// What only Exchange may say: leaves where Exchange did not say it.
pub(super) fn is_exchange_only(name: &str) -> bool {
    opens_with_x(name)
        && (starts(name, "X-MS-Exchange-")
            || name.eq_ignore_ascii_case("X-OriginatorOrg")
            || name.eq_ignore_ascii_case("X-OrganizationHeadersPreserved")
            || starts(name, "X-CrossPremises")
            || name.eq_ignore_ascii_case("X-MS-Journal-Report")
            || name.eq_ignore_ascii_case("X-MS-Gcc-Journal-Report")
            || starts(name, "X-Forefront-")
            || starts(name, "X-Microsoft-Antispam")
            || starts(name, "X-EOP"))
}

/// What an application may write but a recipient must not see (RFC 5322 §3.6.3; RFC 5321 §4.4: Return-Path is the
/// final delivery's).
pub(super) fn is_submission_only(name: &str) -> bool {
    ["Bcc", "Resent-Bcc", "Return-Path"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
}

/// Every Exchange name does; most fields are sorted out here.
fn opens_with_x(name: &str) -> bool {
    matches!(name.as_bytes(), [b'x' | b'X', b'-', ..])
}

fn starts(name: &str, prefix: &str) -> bool {
    name.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_names() {
        for name in [
            "X-MS-Exchange-Organization-SCL",
            "x-ms-exchange-organization-authas",
            "X-MS-EXCHANGE-FOREST-RulesExecuted",
            "X-MS-Exchange-CrossPremises-AuthAs",
            "X-OrganizationHeadersPreserved",
            "X-CrossPremisesHeadersPromoted",
            "X-CrossPremisesHeadersFilteredBySendConnector",
        ] {
            assert!(is_internal(name), "{name}");
            assert!(is_exchange_only(name), "{name}");
        }
        for name in [
            "X-OriginatorOrg",
            "X-MS-Exchange-CrossTenant-Id",
            "X-MS-Exchange-Organization",
            "X-OrganizationHeadersPreservedBy",
            "X-MS-Exchange-SenderADCheck",
            "From",
            "X-Mailer",
        ] {
            assert!(!is_internal(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_exchange_may_write() {
        for name in [
            "X-MS-Exchange-SenderADCheck",
            "x-originatororg",
            "X-CrossPremisesAnything",
            "x-ms-journal-report",
            "X-MS-Gcc-Journal-Report",
            "X-Forefront-Antispam-Report",
            "X-Microsoft-Antispam-Mailbox-Delivery",
            "X-Microsoft-Antispam",
            "X-EOPAttributedMessage",
            "x-eoptenantattributedmessage",
        ] {
            assert!(is_exchange_only(name), "{name}");
        }
        for name in [
            "X-MS-Has-Attach",
            "X-Forefront",
            "X-Mailer",
            "From",
            "Bcc",
            "X",
            "",
            "X-MS-ExchangeX",
        ] {
            assert!(!is_exchange_only(name), "{name}");
        }
    }

    #[test]
    fn submission_names() {
        assert!(
            is_submission_only("bcc")
                && is_submission_only("RESENT-BCC")
                && is_submission_only("return-path")
        );
        assert!(!is_submission_only("Cc"));
    }
}
