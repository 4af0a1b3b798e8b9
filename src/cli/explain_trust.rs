//! `gatepost explain trust`: what would the server make of this mail, and because of what?
//!
//! The server's own judgement, offline and by the same code: certificate, network, candidates, header section, gate. A DKIM
//! signature that decides is looked up in DNS with `--dns` only. It says neither whether a route takes the recipients nor
//! whether the body may be carried.

use crate::config::Settings;
use crate::dns::{Dns, Resolve};
use crate::header::{self, HeaderFault, MAX_HEADER, MAX_RECEIVED, Progress, Splitter};
use crate::mail::{Domain, Envelope, ReversePath};
use crate::mailauth::Verifier;
use crate::trust::{
    self, Class, DkimFacts, Evidence, EvidenceKind, ExchangeOnline, MAX_SIGNED_SIZE, Peer, Pending,
    Reason, Refusal, Settlement, Tenant, Tenants, Verdict, certificate,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The message as it came over the wire, CRLF line ends.
    pub message: &'a Path,
    /// The source address.
    pub from: IpAddr,
    /// The client certificate's chain as PEM, leaf first; absent where none was presented.
    pub certificate: Option<&'a Path>,
    /// The envelope sender, with or without `<>`.
    pub mail_from: &'a str,
    /// `XOORG=` of MAIL.
    pub xoorg: Option<&'a str>,
    /// Ask name servers where a DKIM signature decides.
    pub dns: bool,
}

/// Finds out about the signatures that a verdict waits for.
type Check<'a> = &'a dyn Fn(&Pending) -> Result<DkimFacts, String>;

/// Prints evidence, verdict and reason; true only where the server would accept the mail as proven.
///
/// # Errors
/// A file that cannot be read, or an argument that is none: what to print.
pub fn run(
    settings: &Settings,
    question: &Question<'_>,
    json: bool,
    now: u64,
) -> Result<bool, String> {
    let (accepted, text) = answer(settings, question, json, now)?;
    print!("{text}");
    Ok(accepted)
}

/// What [`run`] prints, and whether the mail would be accepted as proven.
///
/// # Errors
/// A file that cannot be read, or an argument that is none.
pub fn answer(
    settings: &Settings,
    question: &Question<'_>,
    json: bool,
    now: u64,
) -> Result<(bool, String), String> {
    let check = |pending: &Pending| {
        if !question.dns {
            let signatures = pending.signatures();
            return Ok(DkimFacts::unavailable(
                "looked up with --dns only",
                signatures,
            ));
        }
        let dns = || Ok(Arc::new(Dns::new(settings.dns_servers.as_deref())?) as Arc<dyn Resolve>);
        verify(question.message, pending, dns)
    };
    let answer = explain(
        &settings.exchange_online,
        &settings.tenants,
        question,
        now,
        &check,
    )?;
    let text = if json {
        serde_json::to_string_pretty(&answer).map_err(|error| error.to_string())? + "\n"
    } else {
        answer.to_string()
    };
    Ok((answer.accepted, text))
}

/// The answer, as it is printed with `--json`.
#[derive(Clone, Debug, Serialize)]
struct Answer {
    /// Accepted as proven mail.
    accepted: bool,
    /// `proven`, `validation`, `reported` or `refused`.
    verdict: &'static str,
    /// The tenant that it is settled on, or that the evidence points at.
    tenant: Option<String>,
    /// The reason label; absent for proven mail.
    reason: Option<&'static str>,
    /// In words.
    explanation: String,
    evidence: Evidence,
}

impl Answer {
    fn refused(reason: Reason, tenant: Option<&Tenant>, evidence: Evidence) -> Self {
        Self {
            accepted: false,
            verdict: "refused",
            tenant: tenant.map(|tenant| tenant.name.to_string()),
            reason: Some(reason.label()),
            explanation: reason.describe().to_owned(),
            evidence,
        }
    }

    fn of_refusal(refusal: Refusal) -> Self {
        Self::refused(refusal.reason, refusal.tenant.as_deref(), refusal.evidence)
    }

    fn of_verdict(verdict: &Verdict) -> Self {
        let name = &verdict.tenant().name;
        let (accepted, label, reason, explanation) = match verdict.class() {
            Class::Proven {
                foreign_sender: false,
            } => (true, "proven", None, format!("proven mail of {name}")),
            Class::Proven {
                foreign_sender: true,
            } => (
                true,
                "proven",
                None,
                format!("proven mail of {name} with a foreign sender: never leaves by mx or relay"),
            ),
            Class::Validation => (
                true,
                "validation",
                None,
                format!("Microsoft's connector check of {name}: only to its accepted domains"),
            ),
            Class::Reported { reason } => (
                false,
                "reported",
                Some(reason.label()),
                format!(
                    "let in for now by gate = \"report\"; would be refused: {}",
                    reason.describe()
                ),
            ),
            // `settle` makes neither.
            Class::Application { .. } | Class::Own => (false, "refused", None, String::new()),
        };
        Self {
            accepted,
            verdict: label,
            tenant: Some(name.to_string()),
            reason,
            explanation,
            evidence: verdict.evidence().clone(),
        }
    }

    fn malformed(
        reason: &'static str,
        explanation: String,
        tenant: Option<String>,
        evidence: Evidence,
    ) -> Self {
        Self {
            accepted: false,
            verdict: "refused",
            tenant,
            reason: Some(reason),
            explanation,
            evidence,
        }
    }
}

fn explain(
    exchange_online: &ExchangeOnline,
    tenants: &Tenants,
    question: &Question<'_>,
    now: u64,
    check: Check<'_>,
) -> Result<Answer, String> {
    let sender = question.mail_from;
    let sender = sender
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap_or(sender);
    let reverse_path: ReversePath = sender
        .parse()
        .map_err(|why| format!("--mail-from: {why}"))?;
    let xoorg: Option<Domain> = question
        .xoorg
        .map(str::parse)
        .transpose()
        .map_err(|why| format!("--xoorg: {why}"))?;
    let chain = question
        .certificate
        .map(read_chain)
        .transpose()?
        .unwrap_or_default();
    let head = read_head(question.message)?;

    let peer = Peer {
        network: exchange_online.networks.contains(question.from),
        certificate: certificate::judge(
            &chain,
            &exchange_online.client_certificate_roots,
            &exchange_online.client_certificate_names,
            now,
        ),
    };
    let envelope = Envelope {
        reverse_path,
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg,
    };
    let mut answer = judge(
        exchange_online,
        tenants,
        &peer,
        &envelope,
        &head,
        now,
        check,
    )?;
    for item in &mut answer.evidence.0 {
        if item.kind == EvidenceKind::Network {
            item.seen = Some(question.from.to_canonical().to_string());
        }
    }
    Ok(answer)
}

/// In the order in which the server meets the facts: MAIL, then the header section.
fn judge(
    exchange_online: &ExchangeOnline,
    tenants: &Tenants,
    peer: &Peer,
    envelope: &Envelope,
    head: &[u8],
    now: u64,
    check: Check<'_>,
) -> Result<Answer, String> {
    let standing = Reason::of_standing(peer.standing(), exchange_online.half_proven);
    let candidates = match (
        standing,
        trust::candidates(
            tenants,
            &envelope.reverse_path,
            envelope.xoorg.as_ref(),
            now,
        ),
    ) {
        (Some(reason), _) => {
            let evidence = trust::peer_evidence(peer);
            return Ok(Answer::refused(reason, None, evidence));
        }
        (None, Ok(candidates)) => candidates,
        (None, Err(refusal)) => {
            let mut evidence = trust::peer_evidence(peer);
            evidence.0.extend(refusal.evidence.0);
            let tenant = refusal.tenant.as_deref();
            return Ok(Answer::refused(refusal.reason, tenant, evidence));
        }
    };
    let header = match section(head).and_then(header::examine) {
        Ok(header) => header,
        Err(fault) => {
            let hint = match fault {
                HeaderFault::BareLf => " (was the file saved with LF line ends? The wire has CRLF)",
                HeaderFault::BareCr
                | HeaderFault::Nul
                | HeaderFault::NoColon
                | HeaderFault::BadName
                | HeaderFault::LeadingContinuation
                | HeaderFault::TooLarge => "",
            };
            let evidence = trust::peer_evidence(peer);
            let explanation = format!("{fault}{hint}");
            return Ok(Answer::malformed(
                "malformed_header",
                explanation,
                None,
                evidence,
            ));
        }
    };
    let settled = match trust::settle(tenants, &candidates, peer, envelope, &header, now) {
        Settlement::Settled(verdict) => Ok(verdict),
        Settlement::NeedsSignature(pending) => {
            let facts = check(&pending)?;
            pending.conclude(&facts)
        }
        Settlement::Refused(refusal) => Err(refusal),
    };
    Ok(match settled {
        Err(refusal) => Answer::of_refusal(refusal),
        Ok(verdict) if header.is_over_hop_limit() => Answer::malformed(
            "too_many_hops",
            format!("more than {MAX_RECEIVED} Received fields: a loop"),
            Some(verdict.tenant().name.to_string()),
            verdict.evidence().clone(),
        ),
        Ok(verdict) => Answer::of_verdict(&verdict),
    })
}

/// What the server does at the end of the content, on a runtime of its own.
fn verify(
    message: &Path,
    pending: &Pending,
    dns: impl FnOnce() -> Result<Arc<dyn Resolve>, String>,
) -> Result<DkimFacts, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", message.display());
    let size = std::fs::metadata(message).map_err(failed)?.len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let verifier = Verifier::new(dns()?, 1)?;
        let read = async {
            let mut octets = Vec::new();
            File::open(message)
                .and_then(|file| file.take(MAX_SIGNED_SIZE).read_to_end(&mut octets))
                .map_err(failed)?;
            Ok(octets)
        };
        verifier.check(pending.signatures(), size, read).await
    })
}

/// The header section in the first bytes of the message.
fn section(head: &[u8]) -> Result<&[u8], HeaderFault> {
    let mut splitter = Splitter::default();
    let length = match splitter.push(head)? {
        Progress::Complete { length } => length,
        Progress::More => splitter.finish()?,
    };
    Ok(head.get(..length).unwrap_or(head))
}

/// As much as a header section may have, and one octet more, so that one that is too large shows.
fn read_head(path: &Path) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_HEADER as u64 + 1).read_to_end(&mut head))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(head)
}

/// Octets of a PEM file that are read: no chain and no set of roots is larger.
const LARGEST_PEM: u64 = 4 * 1024 * 1024;

/// The certificates of a PEM file, at least one.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_PEM).read_to_end(&mut pem))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: no certificate in PEM form", path.display()));
    }
    Ok(chain)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18} {:<10} {:<16} SEEN", "EVIDENCE", "STATE", "NAMES")?;
        for item in &self.evidence.0 {
            let mut line = format!(
                "{:<18} {:<10} {:<16} {}",
                label(&item.kind),
                label(&item.state),
                item.tenant.as_deref().unwrap_or("-"),
                item.seen.as_deref().unwrap_or("-"),
            );
            line.truncate(line.trim_end().len());
            writeln!(f, "{line}")?;
        }
        f.write_char('\n')?;
        write!(f, "verdict: {}", self.verdict)?;
        if let Some(tenant) = &self.tenant {
            write!(f, " ({tenant})")?;
        }
        match self.reason {
            Some(reason) => writeln!(f, "\nreason:  {reason}: {}", self.explanation),
            None => writeln!(f, "\nreason:  {}", self.explanation),
        }
    }
}

/// The word that trace events use.
fn label(word: &impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;
    use crate::trust::SignatureFact;
    use crate::trust::certificate::Roots;
    use crate::trust::fixtures::{contoso, fabrikam, tenants};
    use crate::trust::network::{Networks, parse_block};
    use crate::trust::{Gate, HalfProven, Tenant};
    use rcgen::{CertificateParams, KeyPair};
    use std::path::PathBuf;

    const NOW: u64 = 1_795_594_533;
    const GOOD: &str = "From: Ada <ada@contoso.com>\r\nX-OriginatorOrg: contoso.com\r\n\
        X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\nX-Contoso-Gate: gate-contoso\r\n\r\nbody\n";

    struct Bench {
        folder: tempfile::TempDir,
        exchange_online: ExchangeOnline,
        tenants: Tenants,
        pem: PathBuf,
    }

    impl Bench {
        fn new(list: impl IntoIterator<Item = Tenant>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let params =
                CertificateParams::new(vec!["mail.protection.outlook.com".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let pem = folder.path().join("peer.pem");
            std::fs::write(&pem, certificate.pem()).unwrap();
            let (roots, _) = Roots::from_certificates([certificate.der()]);
            let exchange_online = ExchangeOnline {
                client_certificate_names: vec!["mail.protection.outlook.com".parse().unwrap()],
                client_certificate_roots: roots.into(),
                networks: Networks::new(vec![parse_block("40.92.0.0/15").unwrap()]),
                half_proven: HalfProven::Defer,
            };
            Self {
                folder,
                exchange_online,
                tenants: tenants(list),
                pem,
            }
        }

        fn ask(
            &self,
            message: &str,
            change: impl FnOnce(&mut Question<'_>),
        ) -> Result<Answer, String> {
            let path = self.folder.path().join("message.eml");
            std::fs::write(&path, message).unwrap();
            let mut question = Question {
                message: &path,
                from: "40.93.214.103".parse().unwrap(),
                certificate: Some(&self.pem),
                mail_from: "<ada@contoso.com>",
                xoorg: None,
                dns: false,
            };
            change(&mut question);
            self.explain(&question, &no_check)
        }

        fn explain(&self, question: &Question<'_>, check: Check<'_>) -> Result<Answer, String> {
            explain(&self.exchange_online, &self.tenants, question, NOW, check)
        }
    }

    fn no_check(_: &Pending) -> Result<DkimFacts, String> {
        Err("nothing is to be checked".to_owned())
    }

    fn words(answer: &Answer) -> (bool, &'static str, Option<&'static str>) {
        (answer.accepted, answer.verdict, answer.reason)
    }

    #[test]
    fn proven_mail_shows_its_evidence_and_no_secret() {
        let answer = Bench::new([contoso(), fabrikam()])
            .ask(GOOD, |_| ())
            .unwrap();
        insta::assert_snapshot!(answer.to_string(), @r#"
        EVIDENCE           STATE      NAMES            SEEN
        network            matches    -                40.93.214.103
        certificate        matches    -                mail.protection.outlook.com
        xoorg              absent     -                -
        originator_org     matches    contoso          contoso.com
        cross_tenant_id    matches    contoso          11111111-2222-3333-4444-555555555555
        connecting_ip      absent     -                -
        secret_header      matches    contoso          -
        dkim               absent     -                -
        envelope_sender    matches    contoso          ada@contoso.com
        header_sender      matches    contoso          ada@contoso.com

        verdict: proven (contoso)
        reason:  proven mail of contoso
        "#);
        let json = serde_json::to_string(&answer).unwrap();
        assert!(
            !json.contains("gate-contoso") && json.contains(r#""accepted":true"#),
            "{json}"
        );
    }

    #[test]
    fn only_proven_mail_is_accepted() {
        let bench = Bench::new([contoso()]);
        let says = |message: &str, change: &dyn Fn(&mut Question<'_>)| {
            words(&bench.ask(message, |q| change(q)).unwrap())
        };
        let refused = |reason| (false, "refused", Some(reason));
        assert_eq!(says(GOOD, &|_| ()), (true, "proven", None));
        assert_eq!(
            says(GOOD, &|q| q.from = "192.0.2.1".parse().unwrap()),
            refused("half_proven_defer")
        );
        assert_eq!(
            says(GOOD, &|q| q.certificate = None),
            refused("half_proven_defer")
        );
        let stranger = |q: &mut Question<'_>| {
            q.from = "192.0.2.1".parse().unwrap();
            q.certificate = None;
        };
        assert_eq!(says(GOOD, &stranger), refused("stranger"));
        assert_eq!(
            says(GOOD, &|q| q.xoorg = Some("evil.example")),
            refused("unknown_xoorg")
        );
        assert_eq!(
            says(GOOD, &|q| q.xoorg = Some("contoso.com")),
            (true, "proven", None)
        );
        assert_eq!(
            says(GOOD, &|q| q.mail_from = "x@evil.example"),
            refused("foreign_envelope_sender")
        );
        assert_eq!(says(GOOD, &|q| q.mail_from = "<>"), (true, "proven", None));
        assert_eq!(
            says(&GOOD.replace("\r\n", "\n"), &|_| ()),
            refused("malformed_header")
        );
        let received = "Received: x\r\n".repeat(51);
        assert_eq!(
            says(&format!("{received}{GOOD}"), &|_| ()),
            refused("too_many_hops")
        );
        assert_eq!(
            says(
                &format!("X-Gatepost-Processed: loop-contoso\r\n{GOOD}"),
                &|_| ()
            ),
            refused("loop")
        );
        let large = format!("X: {}\r\n{GOOD}", "x".repeat(MAX_HEADER));
        assert_eq!(says(&large, &|_| ()), refused("malformed_header"));
    }

    #[test]
    fn reported_mail_is_not_proven() {
        let bench = Bench::new([Tenant {
            gate: Gate::Report { until: NOW + 1 },
            ..contoso()
        }]);
        let answer = bench.ask("From: ada@contoso.com\r\n\r\n", |_| ()).unwrap();
        assert_eq!(words(&answer), (false, "reported", Some("no_tenant")));
    }

    #[test]
    fn a_signature_that_decides_is_looked_up_or_said_to_be_missing() {
        let bench = Bench::new([contoso()]);
        let message = "From: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
            DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s1; h=From; bh=YQ==; b=YQ==\r\n\r\nbody\r\n";
        let path = bench.folder.path().join("signed.eml");
        std::fs::write(&path, message).unwrap();
        let question = Question {
            message: &path,
            from: "40.93.214.103".parse().unwrap(),
            certificate: Some(&bench.pem),
            mail_from: "ada@contoso.com",
            xoorg: None,
            dns: false,
        };
        let refused = |reason| (false, "refused", Some(reason));
        for (zone, expected, seen) in [
            (
                Zone::new(),
                refused("too_few_proofs"),
                "contoso.com: no such key",
            ),
            (
                Zone::new().broken("s1._domainkey.contoso.com"),
                refused("signature_unavailable"),
                "contoso.com: cannot be checked now: no answer",
            ),
            (
                Zone::new().text(
                    "s1._domainkey.contoso.com",
                    include_str!("../../tests/data/dkim-test.txt"),
                ),
                refused("too_few_proofs"),
                "contoso.com: Calculated body hash does not match signature hash",
            ),
        ] {
            let check = |pending: &Pending| {
                verify(&path, pending, || {
                    Ok(Arc::new(zone.clone()) as Arc<dyn Resolve>)
                })
            };
            let answer = bench.explain(&question, &check).unwrap();
            assert_eq!(words(&answer), expected);
            let text = answer.to_string();
            assert!(text.contains(seen), "{text}");
        }
        let verified = |pending: &Pending| {
            let facts = vec![SignatureFact::Verified; pending.signatures().len()];
            Ok(DkimFacts(facts))
        };
        let answer = bench.explain(&question, &verified).unwrap();
        assert_eq!(words(&answer), (true, "proven", None));
    }

    #[test]
    fn wrong_arguments_are_said() {
        let bench = Bench::new([contoso()]);
        let missing = bench.folder.path().join("missing");
        assert!(
            bench
                .ask(GOOD, |q| q.mail_from = "nobody")
                .unwrap_err()
                .contains("--mail-from")
        );
        assert!(
            bench
                .ask(GOOD, |q| q.xoorg = Some("a..b"))
                .unwrap_err()
                .contains("--xoorg")
        );
        let no_pem = bench.folder.path().join("message.eml");
        std::fs::write(&no_pem, GOOD).unwrap();
        for bad in [missing.as_path(), no_pem.as_path()] {
            let question = Question {
                message: &no_pem,
                from: "40.93.214.103".parse().unwrap(),
                certificate: Some(bad),
                mail_from: "",
                xoorg: None,
                dns: false,
            };
            assert!(bench.explain(&question, &no_check).is_err());
        }
    }
}
