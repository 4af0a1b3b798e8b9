//! What stands in the scripts in the place of `'@Name@'`?

use super::Plan;

/// The value of a token in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// One text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl Plan {
    /// The tokens of the scripts with their values; no secret is among them. Without the way from Exchange to us its values
    /// are empty, and an empty `SmartHosts` is what the scripts know that by.
    #[must_use]
    pub fn tokens(&self) -> Vec<(&'static str, Token)> {
        let text = |text: &str| Token::Text(text.to_owned());
        let flag = if self.cloud { "True" } else { "False" };
        let outward = self.outward.as_ref();
        let hosts = outward.map(|_| self.hostname.to_string());
        vec![
            ("TenantId", text(&self.tenant_id)),
            ("SmartHosts", Token::List(hosts.into_iter().collect())),
            (
                "TlsDomain",
                text(outward.map_or("", |outward| &outward.tls_domain)),
            ),
            (
                "TlsSenderCertificateName",
                text(&self.certificate.connector_name),
            ),
            (
                "AcceptedDomains",
                Token::List(self.accepted.iter().map(ToString::to_string).collect()),
            ),
            ("CloudServicesMailEnabled", text(flag)),
            (
                "SecretHeaderName",
                text(outward.map_or("", |outward| &outward.secret.name)),
            ),
            (
                "LoopHeaderName",
                text(outward.map_or("", |outward| &outward.looped.name)),
            ),
            (
                "PilotGroup",
                text(
                    outward
                        .and_then(|outward| outward.pilot_group.as_deref())
                        .unwrap_or_default(),
                ),
            ),
            ("ExchangeEnvironmentName", text(&self.environment)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{LOOPED, SECRET, inward, plan};

    #[test]
    fn no_token_is_a_secret() {
        for plan in [plan(), inward()] {
            let tokens = format!("{:?}", plan.tokens());
            assert!(!tokens.contains(SECRET) && !tokens.contains(LOOPED));
        }
    }
}
