//! Which of Microsoft's clouds is the tenant in, and does the configuration name the same one?

use super::facts::{ENVIRONMENTS, Facts};
use super::finding::Findings;

/// The instance of the endpoint data that this version ships.
pub(in crate::connector) const WORLDWIDE: &str = "Worldwide";

/// What is known of a cloud (exchange-online.md section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connector) struct Cloud {
    /// One of [`ENVIRONMENTS`].
    environment: &'static str,
    /// Its instance of the endpoint data.
    pub(in crate::connector) instance: &'static str,
    /// In what the names of its tenants' hosts end.
    ends: &'static [&'static str],
}

/// Nothing is known of `O365GermanyCloud`.
const CLOUDS: [Cloud; 4] = [
    Cloud {
        environment: ENVIRONMENTS[0],
        instance: WORLDWIDE,
        ends: &["protection.outlook.com", "mx.microsoft"],
    },
    Cloud {
        environment: "O365China",
        instance: "China",
        ends: &["protection.partner.outlook.cn"],
    },
    Cloud {
        environment: "O365USGovGCCHigh",
        instance: "USGOVGCCHigh",
        ends: &["protection.office365.us"],
    },
    Cloud {
        environment: "O365USGovDoD",
        instance: "USGOVDoD",
        ends: &["protection.office365.us"],
    },
];

impl Cloud {
    fn holds(self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.ends.iter().any(|end| {
            host.strip_suffix(end)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

/// What is known of the cloud of this name.
pub(in crate::connector) fn of(environment: &str) -> Option<Cloud> {
    let mut all = CLOUDS.into_iter();
    all.find(|cloud| cloud.environment == environment)
}

/// Tells of names and networks of another cloud. Its own gates would refuse what Exchange sends, or Gatepost would
/// deliver past the tenant.
pub(super) fn judge(facts: &Facts<'_>, findings: &mut Findings) {
    // Without, nobody has said which it is.
    let Some(environment) = facts.environment else {
        return;
    };
    let cloud = of(environment);
    if let Some(delivery) = facts.connector {
        let theirs: Vec<&str> = CLOUDS
            .iter()
            .filter(|other| other.holds(delivery.host))
            .map(|other| other.environment)
            .collect();
        if !theirs.is_empty() && !theirs.contains(&environment) {
            findings.warn(
                format!("tenant.{}.inbound_connector.host", facts.tenant.name),
                format!(
                    "{} is a host of the cloud {}, and the set is made for {environment}: render with its --environment, or give the host that the tenant's MX names",
                    delivery.host,
                    theirs.join(" or "),
                ),
            );
        }
    }
    if environment == ENVIRONMENTS[0] || facts.doors.is_empty() {
        return;
    }
    if facts
        .client_names
        .iter()
        .any(|name| of(ENVIRONMENTS[0]).is_some_and(|worldwide| worldwide.holds(name.as_str())))
    {
        findings.warn(
            "exchange_online.client_certificate_names",
            format!("holds a name of the worldwide cloud; which name the client certificates of {environment} carry is not documented: let Exchange's test mail come once, read it in the log, and set it here; until then that mail meets 451 4.7.1"),
        );
    }
    if facts.has_shipped_networks {
        let instance = cloud.map_or_else(String::new, |cloud| {
            format!(
                " (https://endpoints.office.com/endpoints/{})",
                cloud.instance
            )
        });
        findings.warn(
            "exchange_online.endpoints",
            format!("the published networks are those that this version ships, of the worldwide cloud: fetch the data of {environment}{instance} into a file of its own and name it here, or list its blocks in networks"),
        );
    }
}
