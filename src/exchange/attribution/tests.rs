use super::*;
use crate::trust::certificate::WhyAbsent;
use crate::trust::presented::{Above, Purposes};

fn domains(list: &[&str]) -> DomainSet {
    DomainSet::new(list.iter().map(|domain| domain.parse().unwrap()).collect())
}

fn certificate(name: &str) -> Presented {
    Presented {
        alternative: vec![name.to_owned()],
        common: Some(name.to_owned()),
        issuer: "CN=Public CA".to_owned(),
        self_issued: false,
        not_before: 0,
        not_after: 1_800_000_000,
        purposes: Purposes::Client,
        fault: None,
        above: None,
    }
}

/// Two tenants; contoso's connector has this name.
struct Bench {
    contoso: DomainSet,
    fabrikam: DomainSet,
    name: &'static str,
    connector_type: ConnectorType,
    other_name: &'static str,
}

impl Bench {
    fn new(name: &'static str) -> Self {
        Self {
            contoso: domains(&["contoso.com", "gate.contoso.com", "contoso.onmicrosoft.com"]),
            fabrikam: domains(&["fabrikam.com"]),
            name,
            connector_type: ConnectorType::OnPremises,
            other_name: "gate.fabrikam.com",
        }
    }

    fn ask(&self, change: impl FnOnce(&mut Asked)) -> Answer {
        let mut asked = Asked {
            host: Some("contoso-com.mail.protection.outlook.com"),
            certificate: Some(certificate("gate.contoso.com")),
            sender: Some("contoso.com"),
            recipient: "contoso.com",
            reject_direct_send: None,
        };
        change(&mut asked);
        let connector = |name: &str, connector_type| {
            Some(Connector {
                certificate_name: name.to_owned(),
                connector_type,
            })
        };
        let organizations = [
            Organization {
                name: "contoso",
                accepted: &self.contoso,
                connector: connector(self.name, self.connector_type),
            },
            Organization {
                name: "fabrikam",
                accepted: &self.fabrikam,
                connector: connector(self.other_name, ConnectorType::OnPremises),
            },
        ];
        let sender = asked.sender.map(|domain| domain.parse::<Domain>().unwrap());
        attribute(&Question {
            organizations: &organizations,
            expected: Some("contoso"),
            host: asked.host,
            certificate: asked.certificate.as_ref(),
            sender: sender.as_ref(),
            recipient: &asked.recipient.parse().unwrap(),
            reject_direct_send: asked.reject_direct_send,
        })
    }
}

struct Asked {
    host: Option<&'static str>,
    certificate: Option<Presented>,
    sender: Option<&'static str>,
    recipient: &'static str,
    reject_direct_send: Option<bool>,
}

fn replies(answer: &Answer) -> Vec<&'static str> {
    let code = |reply: &Reply| reply.text.get(..10).unwrap();
    answer.replies.iter().map(code).collect()
}

fn told(answer: &Answer) -> (Verdict, Option<&str>, Option<By>) {
    (answer.verdict, answer.tenant.as_deref(), answer.by)
}

const OWN: (Verdict, Option<&str>, Option<By>) =
    (Verdict::Attributed, Some("contoso"), Some(By::Certificate));
const REFUSED: (Verdict, Option<&str>, Option<By>) = (Verdict::Refused, None, None);
const ANYBODY: (Verdict, Option<&str>, Option<By>) =
    (Verdict::External, Some("contoso"), Some(By::Recipient));

#[test]
fn a_certificate_whose_name_is_an_accepted_domain_carries_every_sender() {
    let bench = Bench::new("gate.contoso.com");
    for (sender, recipient) in [
        (Some("contoso.com"), "contoso.com"),
        (Some("contoso.com"), "elsewhere.example"),
        (None, "contoso.com"),
        (None, "elsewhere.example"),
        (Some("forwarded.example"), "elsewhere.example"),
        (Some("fabrikam.com"), "fabrikam.com"),
    ] {
        let answer = bench.ask(|asked| {
            asked.sender = sender;
            asked.recipient = recipient;
        });
        assert_eq!(told(&answer), OWN, "{sender:?} {recipient}");
        assert_eq!(answer.mended_by, None);
    }
}

#[test]
fn without_a_connector_that_fits_only_the_recipients_tenant_takes_it_as_anybodys() {
    let bench = Bench::new("gate.contoso.com");
    for worthless in [None, Some(certificate("other.contoso.com"))] {
        let answer = |sender, recipient, reject| {
            bench.ask(|asked| {
                asked.certificate = worthless.clone();
                asked.sender = sender;
                asked.recipient = recipient;
                asked.reject_direct_send = reject;
            })
        };
        let relay = answer(Some("contoso.com"), "elsewhere.example", None);
        assert_eq!(told(&relay), REFUSED);
        assert_eq!(replies(&relay), ["550 5.7.64", "451 4.4.62"]);
        let inside = answer(Some("contoso.com"), "contoso.com", None);
        assert_eq!(told(&inside), ANYBODY);
        assert_eq!(replies(&inside), ["250 2.6.0 ", "550 5.7.68", "550 5.7.51"]);
        let rejected = answer(Some("contoso.com"), "contoso.com", Some(true));
        assert_eq!(told(&rejected), REFUSED);
        assert_eq!(replies(&rejected), ["550 5.7.68"]);
        let let_in = answer(Some("contoso.com"), "contoso.com", Some(false));
        assert_eq!(replies(&let_in), ["250 2.6.0 ", "550 5.7.51"]);
        // Direct send is mail of an own domain; the null sender and strangers are none.
        for sender in [None, Some("elsewhere.example")] {
            let outside = answer(sender, "contoso.com", Some(true));
            assert_eq!(told(&outside), ANYBODY);
            assert_eq!(replies(&outside), ["250 2.6.0 ", "550 5.7.51"]);
        }
    }
}

#[test]
fn the_accepted_domain_rule_asks_for_the_certificates_domain_or_the_senders() {
    let bench = Bench::new("relay.example");
    let ask = |sender| {
        bench.ask(|asked| {
            asked.certificate = Some(certificate("relay.example"));
            asked.sender = sender;
            asked.recipient = "elsewhere.example";
        })
    };
    assert_eq!(told(&ask(Some("contoso.com"))), OWN);
    let null = ask(None);
    assert_eq!(told(&null), REFUSED);
    assert_eq!(replies(&null)[0], "550 5.7.64");
    assert!(
        null.because.contains("neither its name relay.example"),
        "{}",
        null.because
    );
    assert!(null.steps.iter().any(|step| step.says.contains("ATTR36")));
}

#[test]
fn a_name_that_only_an_entry_with_sub_domains_accepts_is_inferred_and_in_doubt_where_the_sender_does_not_help()
 {
    let mut bench = Bench::new("mail.contoso.com");
    let ask = |bench: &Bench, sender| {
        bench.ask(|asked| {
            asked.certificate = Some(certificate("mail.contoso.com"));
            asked.sender = sender;
        })
    };
    let rule = |answer: &Answer| {
        let step = answer
            .steps
            .iter()
            .find(|step| step.what == "accepted domain");
        let step = step.unwrap();
        (step.state, step.mark)
    };
    bench.contoso = domains(&["*.contoso.com"]);
    for sender in [None, Some("forwarded.example")] {
        let answer = ask(&bench, sender);
        assert_eq!(answer.verdict, Verdict::Doubtful);
        assert_eq!(rule(&answer), (State::Unknown, Mark::Inferred));
        assert!(
            answer.because.contains("*.contoso.com"),
            "{}",
            answer.because
        );
        assert!(
            answer
                .mended_by
                .unwrap()
                .starts_with("add mail.contoso.com ")
        );
    }
    let own = ask(&bench, Some("contoso.com"));
    assert_eq!(told(&own), OWN);
    assert_eq!(rule(&own), (State::Holds, Mark::Documented));
    for entry in ["mail.contoso.com", "*.mail.contoso.com"] {
        bench.contoso = domains(&["*.contoso.com", entry]);
        let answer = ask(&bench, None);
        assert_eq!(told(&answer), OWN, "{entry}");
        assert_eq!(rule(&answer), (State::Holds, Mark::Documented));
    }
}

#[test]
fn a_name_below_an_accepted_domain_is_in_doubt_where_the_sender_does_not_help() {
    let bench = Bench::new("mail.contoso.com");
    let ask = |sender| {
        bench.ask(|asked| {
            asked.certificate = Some(certificate("mail.contoso.com"));
            asked.sender = sender;
        })
    };
    assert_eq!(told(&ask(Some("contoso.com"))), OWN);
    let null = ask(None);
    assert_eq!(null.verdict, Verdict::Doubtful);
    assert_eq!(replies(&null), ["250 2.6.0 ", "550 5.7.64"]);
    assert_eq!(
        null.mended_by.as_deref(),
        Some(
            "add mail.contoso.com as an accepted domain, or set TlsSenderCertificateName to *.contoso.com"
        )
    );
    // With the wildcard on the connector its domain is the accepted one.
    let wildcard = Bench::new("*.contoso.com").ask(|asked| {
        asked.certificate = Some(certificate("mail.contoso.com"));
        asked.sender = None;
    });
    assert_eq!(told(&wildcard), OWN);
    assert!(wildcard.steps.iter().any(|step| step.what == "wildcard"));
}

#[test]
fn a_certificate_that_is_worth_nothing_is_told_with_its_remedy() {
    let bench = Bench::new("gate.contoso.com");
    for (fault, self_issued, says, remedy) in [
        (
            WhyAbsent::UnknownIssuer,
            true,
            "issued itself",
            "public authority",
        ),
        (
            WhyAbsent::UnknownIssuer,
            false,
            "public root",
            "every intermediate",
        ),
        (
            WhyAbsent::Expired,
            false,
            "expired (on 2027-01-15)",
            "SIGHUP",
        ),
        (
            WhyAbsent::NotYetValid,
            false,
            "not valid before 1970-01-01",
            "clock",
        ),
        (
            WhyAbsent::WrongKeyUsage,
            false,
            "key usage",
            "TLS certificate",
        ),
    ] {
        let answer = bench.ask(|asked| {
            asked.certificate = Some(Presented {
                fault: Some(fault.clone()),
                self_issued,
                ..certificate("gate.contoso.com")
            });
            asked.recipient = "elsewhere.example";
        });
        assert_eq!(told(&answer), REFUSED);
        let step = answer
            .steps
            .iter()
            .find(|step| step.what == "certificate")
            .unwrap();
        assert!(
            step.state == State::Fails && step.says.contains(says),
            "{}",
            step.says
        );
        let mended = answer.mended_by.clone().unwrap();
        assert!(mended.contains(remedy), "{mended}");
        let fits = answer
            .steps
            .iter()
            .find(|step| step.what == "connector name")
            .unwrap();
        assert!(
            fits.says.contains("were the certificate good"),
            "{}",
            fits.says
        );
    }
}

#[test]
fn a_fault_above_the_leaf_is_told_with_whose_it_is_and_its_own_date() {
    let bench = Bench::new("gate.contoso.com");
    let own = Above {
        number: 2,
        subject: "CN=Public Issuing CA".to_owned(),
        not_before: 1_900_000_000,
        not_after: 1_795_000_000,
    };
    for (fault, says, remedy) in [
        (
            WhyAbsent::Expired,
            "certificate 2 of its chain (CN=Public Issuing CA) has expired (on 2026-11-18)",
            "newer intermediate",
        ),
        (
            WhyAbsent::NotYetValid,
            "certificate 2 of its chain (CN=Public Issuing CA) is not valid before 2030-03-17",
            "clock",
        ),
        (
            WhyAbsent::WrongKeyUsage,
            "the key usage of certificate 2 of its chain (CN=Public Issuing CA) allows neither",
            "another intermediate",
        ),
    ] {
        let answer = bench.ask(|asked| {
            asked.certificate = Some(Presented {
                fault: Some(fault.clone()),
                above: Some(own.clone()),
                ..certificate("gate.contoso.com")
            });
        });
        let mut steps = answer.steps.iter();
        let step = steps.find(|step| step.what == "certificate").unwrap();
        assert!(
            step.state == State::Fails && step.says.contains(says),
            "{}",
            step.says
        );
        let mended = answer.mended_by.clone().unwrap();
        assert!(mended.contains(remedy), "{mended}");
    }
}

#[test]
fn a_partner_connector_neither_relays_nor_promotes() {
    let bench = Bench {
        connector_type: ConnectorType::Partner,
        ..Bench::new("gate.contoso.com")
    };
    let inside = bench.ask(|_| ());
    assert_eq!(told(&inside), ANYBODY);
    assert!(inside.because.contains("Partner"), "{}", inside.because);
    let outside = bench.ask(|asked| asked.recipient = "elsewhere.example");
    assert_eq!(told(&outside), REFUSED);
    assert!(outside.mended_by.unwrap().contains("OnPremises"));
}

#[test]
fn another_tenants_certificate_makes_it_another_tenants_mail() {
    let bench = Bench::new("gate.contoso.com");
    let answer = bench.ask(|asked| asked.certificate = Some(certificate("gate.fabrikam.com")));
    // gate.fabrikam.com is below fabrikam.com, whose mail it carries.
    assert_eq!(
        told(&answer),
        (
            Verdict::Misattributed,
            Some("fabrikam"),
            Some(By::Certificate)
        )
    );
    let both = Bench {
        other_name: "gate.contoso.com",
        ..Bench::new("gate.contoso.com")
    };
    let answer = both.ask(|_| ());
    assert_eq!(
        told(&answer).0,
        Verdict::Attributed,
        "the other has no right to that name"
    );
    let wide = Bench {
        fabrikam: domains(&["fabrikam.com", "gate.contoso.com"]),
        other_name: "gate.contoso.com",
        ..Bench::new("gate.contoso.com")
    };
    assert_eq!(wide.ask(|_| ()).verdict, Verdict::Doubtful);
}

#[test]
fn the_wrong_door_lets_nothing_in() {
    let bench = Bench::new("gate.contoso.com");
    let at = |host| {
        let answer = bench.ask(|asked| asked.host = Some(host));
        let step = answer.steps[0].clone();
        assert_eq!(step.what, "endpoint");
        (
            answer.verdict,
            step.state,
            answer.replies[0].text.get(..10).unwrap(),
        )
    };
    use State::{Fails, Holds, Unknown};
    let (good, refused) = (Verdict::Attributed, Verdict::Refused);
    for host in [
        "contoso-com.mail.protection.outlook.com",
        "CONTOSO.mail.protection.outlook.com.",
        "gate-contoso-com.h-v1.mx.microsoft",
    ] {
        assert_eq!(at(host), (good, Holds, "250 2.6.0 "), "{host}");
    }
    for host in [
        "52.101.73.1",
        "[2001:db8::1]",
        "mail.messaging.microsoft.com",
        "mail.global.frontbridge.com",
        "fabrikam-com.mail.protection.outlook.com",
    ] {
        assert_eq!(at(host), (refused, Fails, "451 4.4.62"), "{host}");
    }
    assert_eq!(at("smtp.office365.com"), (refused, Fails, "530 5.7.57"));
    for host in [
        "unknown-com.mail.protection.outlook.com",
        "relay.contoso.com",
        "127.0.0.1",
    ] {
        assert_eq!(at(host), (good, Unknown, "250 2.6.0 "), "{host}");
    }
}

#[test]
fn names_of_connectors_mean_what_exchange_means() {
    for (wanted, name, fits) in [
        ("gate.contoso.com", "GATE.contoso.com", true),
        ("gate.contoso.com", "contoso.com", false),
        ("*.contoso.com", "gate.contoso.com", true),
        ("*.contoso.com", "*.contoso.com", true),
        ("*.contoso.com", "contoso.com", false),
        ("*.contoso.com", "evilcontoso.com", false),
        ("gate.contoso.com", "*.contoso.com", false),
    ] {
        assert_eq!(connector_fits(wanted, name), fits, "{wanted} {name}");
    }
}

#[test]
fn where_a_name_stands_is_told() {
    let bench = Bench::new("gate.contoso.com");
    for (alternative, common, place) in [
        (vec!["gate.contoso.com"], None, Some("SAN alone")),
        (
            vec!["x.example"],
            Some("gate.contoso.com"),
            Some("CN alone"),
        ),
        (vec!["gate.contoso.com"], Some("gate.contoso.com"), None),
    ] {
        let answer = bench.ask(|asked| {
            asked.certificate = Some(Presented {
                alternative: alternative.iter().map(|name| (*name).to_owned()).collect(),
                common: common.map(str::to_owned),
                ..certificate("x")
            });
        });
        assert_eq!(told(&answer), OWN);
        let note = answer.steps.iter().find(|step| step.what == "names");
        assert_eq!(
            note.map(|step| step.says.contains(place.unwrap_or("-"))),
            place.map(|_| true)
        );
    }
}
