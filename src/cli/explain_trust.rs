//! `gatepost explain trust`: what would the server make of this mail, and because of what?
//!
//! The server's own judgement, offline and by the same code: certificate, network, candidates, header section, gate. A DKIM
//! signature that decides is looked up in DNS with `--dns` only. Then the size and the newlines of the whole message, on each
//! connector listener. It does not say whether a route takes the recipients. Where the address is an application's, it says
//! what a submission listener makes of the mail.

mod application;
mod hint;
pub(in crate::cli) mod listeners;

use self::application::{Logins, OfApplication, Submission};
use self::listeners::{Listener, RefusedBy};
use super::message::{LineEnds, Message};
use crate::config::{self, Settings};
use crate::dns::{Dns, Resolve};
use crate::header::{self, HeaderFault, MAX_RECEIVED};
use crate::mail::{Domain, Envelope, ReversePath};
use crate::mailauth::Verifier;
use crate::session::Rejection;
use crate::trust::{
    self, Class, DkimFacts, Evidence, EvidenceKind, ExchangeOnline, Peer, Pending, Reason, Refusal,
    Settlement, Standing, Tenant, Tenants, Verdict, certificate,
};
use rustls_pki_types::CertificateDer;
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
    /// The message as it came over the wire, or saved with LF line ends throughout.
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
type Check<'a> = &'a dyn Fn(&Pending, &Message) -> Result<DkimFacts, String>;

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
    let check = |pending: &Pending, message: &Message| {
        if !question.dns {
            return Ok(not_asked(pending));
        }
        let dns = || Ok(Arc::new(Dns::new(settings.dns_servers.as_deref())?) as Arc<dyn Resolve>);
        verify(message, pending, dns)
    };
    let answer = explain(
        &settings.exchange_online,
        &settings.tenants,
        &listeners::of(settings),
        &Submission::of(settings),
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
    /// `proven`, `validation`, `reported` or `refused`: the label of `gatepost_trust_verdicts_total`.
    verdict: &'static str,
    /// What refused mail is answered with, code and enhanced code.
    reply: Option<String>,
    /// Refused for now: whoever sent it keeps the mail and tries again.
    temporary: bool,
    /// The tenant that it is settled on, or that the evidence points at.
    tenant: Option<String>,
    /// The reason label; absent for proven mail.
    reason: Option<&'static str>,
    /// In words.
    explanation: String,
    /// What to do, or to ask next.
    hint: Option<String>,
    /// How the file ends its lines; `lf` was read as CRLF.
    line_ends: LineEnds,
    /// Connector listeners that would not take the content; others do, unless it is refused.
    refused_by: Vec<RefusedBy>,
    /// The application that the address is without login, on a submission listener, and what that makes of the mail.
    application: Option<OfApplication>,
    /// The applications that may send so once they have logged in, where the peer is a stranger.
    logins: Option<Logins>,
    evidence: Evidence,
}

impl Answer {
    fn refused(rejection: &Rejection, tenant: Option<&Tenant>, evidence: Evidence) -> Self {
        let (code, _) = rejection.status();
        Self {
            accepted: false,
            verdict: "refused",
            reply: Some(reply_of(rejection)),
            temporary: code < 500,
            tenant: tenant.map(|tenant| tenant.name.to_string()),
            reason: None,
            explanation: String::new(),
            hint: None,
            line_ends: LineEnds::Crlf,
            refused_by: Vec::new(),
            application: None,
            logins: None,
            evidence,
        }
    }

    fn of_refusal(refusal: Refusal, question: &Question<'_>) -> Self {
        let Refusal {
            reason,
            tenant,
            evidence,
        } = refusal;
        let hint = Some(hint::of(reason, &evidence, question));
        let explanation = match reason {
            Reason::SignatureUnavailable if !question.dns => {
                "a DKIM signature decides, and it was not looked up, for --dns was not given: it counts as one that cannot be looked up".to_owned()
            }
            reason => reason.describe().to_owned(),
        };
        Self {
            reason: Some(reason.label()),
            explanation,
            hint,
            ..Self::refused(&Rejection::Trust(reason), tenant.as_deref(), evidence)
        }
    }

    fn malformed(fault: HeaderFault, message: &Message, evidence: Evidence) -> Self {
        let (explanation, hint) = message.tell(fault);
        Self {
            reason: Some("malformed_header"),
            explanation,
            hint: Some(hint),
            ..Self::refused(&Rejection::Header(fault), None, evidence)
        }
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
            Class::Validation { foreign_sender } => (
                true,
                "validation",
                None,
                format!(
                    "Microsoft's connector check of {name}: only to its accepted domains{}",
                    match foreign_sender {
                        true => ", and with a foreign From: never by mx or relay",
                        false => "",
                    }
                ),
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
            reply: None,
            temporary: false,
            tenant: Some(name.to_string()),
            reason,
            explanation,
            hint: None,
            line_ends: LineEnds::Crlf,
            refused_by: Vec::new(),
            application: None,
            logins: None,
            evidence: verdict.evidence().clone(),
        }
    }
}

/// Code and enhanced code.
pub(super) fn reply_of(rejection: &Rejection) -> String {
    let (code, (class, subject, detail)) = rejection.status();
    format!("{code} {class}.{subject}.{detail}")
}

fn explain(
    exchange_online: &ExchangeOnline,
    tenants: &Tenants,
    listeners: &[Listener],
    submission: &Submission,
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
    let sizes = listeners.iter().map(|listener| listener.max_message_size);
    let message = Message::read(question.message, sizes.max().unwrap_or_default())?;

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
    let judged = judge(
        exchange_online,
        tenants,
        &peer,
        &envelope,
        (question, &message),
        now,
        check,
    )?;
    let mut answer = match judged {
        Ok(verdict) => listeners::answer(&verdict, listeners, &message, envelope.xoorg.is_some()),
        Err(refused) => *refused,
    };
    answer.line_ends = message.line_ends;
    if !answer.accepted {
        answer.application = submission.judge(question.from, &envelope, &message);
        if answer.application.is_some() && peer.standing() != Standing::Proven {
            // It is no connector's mail, and no certificate would make it one.
            answer.hint = None;
        }
        let by_address = answer.application.as_ref();
        let taken = by_address.is_some_and(|application| application.senders_hold);
        if peer.standing() == Standing::Stranger && !taken {
            answer.logins = submission.logins(question.from, &envelope);
        }
    }
    for item in &mut answer.evidence.0 {
        if item.kind == EvidenceKind::Network {
            item.seen = Some(question.from.to_canonical().to_string());
        }
    }
    Ok(answer)
}

/// In the order in which the server meets the facts: MAIL, then the header section. The verdict on what is let in, or the
/// answer.
fn judge(
    exchange_online: &ExchangeOnline,
    tenants: &Tenants,
    peer: &Peer,
    envelope: &Envelope,
    (question, message): (&Question<'_>, &Message),
    now: u64,
    check: Check<'_>,
) -> Result<Result<Verdict, Box<Answer>>, String> {
    let refused = |answer| Ok(Err(Box::new(answer)));
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
            let refusal = Refusal {
                reason,
                tenant: None,
                evidence: trust::peer_evidence(peer),
            };
            return refused(Answer::of_refusal(refusal, question));
        }
        (None, Ok(candidates)) => candidates,
        (None, Err(mut refusal)) => {
            let mut evidence = trust::peer_evidence(peer);
            evidence.0.append(&mut refusal.evidence.0);
            refusal.evidence = evidence;
            return refused(Answer::of_refusal(refusal, question));
        }
    };
    let header = match message.section().and_then(header::examine) {
        Ok(header) => header,
        Err(fault) => {
            let evidence = trust::peer_evidence(peer);
            return refused(Answer::malformed(fault, message, evidence));
        }
    };
    let settled = match trust::settle(tenants, &candidates, peer, envelope, &header, now) {
        Settlement::Settled(verdict) => Ok(verdict),
        Settlement::NeedsSignature(pending) => {
            let facts = check(&pending, message)?;
            pending.conclude(&facts)
        }
        Settlement::Refused(refusal) => Err(refusal),
    };
    match settled {
        Err(refusal) => refused(Answer::of_refusal(refusal, question)),
        Ok(verdict) if header.is_over_hop_limit() => refused(Answer {
            reason: Some("too_many_hops"),
            explanation: format!("more than {MAX_RECEIVED} Received fields: a loop"),
            ..Answer::refused(
                &Rejection::TooManyHops,
                Some(verdict.tenant()),
                verdict.evidence().clone(),
            )
        }),
        Ok(verdict) => Ok(Ok(verdict)),
    }
}

/// Without `--dns`.
fn not_asked(pending: &Pending) -> DkimFacts {
    DkimFacts::unavailable("looked up with --dns only", pending.signatures())
}

/// What the server does at the end of the content, on a runtime of its own.
fn verify(
    message: &Message,
    pending: &Pending,
    dns: impl FnOnce() -> Result<Arc<dyn Resolve>, String>,
) -> Result<DkimFacts, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let verifier = Verifier::new(dns()?, 1)?;
        let size = message.octets.len() as u64;
        let read = async { Ok(message.octets.clone()) };
        verifier.check(pending.signatures(), size, read).await
    })
}

/// Octets of a PEM file that are read: no chain and no set of roots is larger.
const LARGEST_PEM: u64 = 4 * 1024 * 1024;

/// The certificates of a PEM file, at least one.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_PEM).read_to_end(&mut pem))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let chain =
        config::pem::certificates(&pem).map_err(|why| format!("{} {why}", path.display()))?;
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
        if self.temporary {
            f.write_str(" for now")?;
        }
        if let Some(tenant) = &self.tenant {
            write!(f, " ({tenant})")?;
        }
        match self.reason {
            Some(reason) => writeln!(f, "\nreason:  {reason}: {}", self.explanation)?,
            None => writeln!(f, "\nreason:  {}", self.explanation)?,
        }
        match &self.reply {
            Some(reply) if self.temporary => {
                writeln!(
                    f,
                    "reply:   {reply}: who sent it keeps the mail and tries again"
                )?;
            }
            Some(reply) => writeln!(f, "reply:   {reply}: given up, who sent it gets a report")?,
            None => {}
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "hint:    {hint}")?;
        }
        if let Some(application) = &self.application {
            writeln!(f, "note:    {application}")?;
        }
        if let Some(logins) = &self.logins {
            writeln!(f, "note:    {logins}")?;
        }
        if self.accepted || self.refused_by.len() > 1 {
            for refused in &self.refused_by {
                let RefusedBy {
                    listener,
                    reply,
                    why,
                } = refused;
                writeln!(f, "note:    listener {listener} answers {reply}: {why}")?;
            }
        }
        match self.line_ends {
            LineEnds::Lf => f.write_str(
                "note:    every line of the file ends in LF: read with CRLF, as on the wire\n",
            ),
            LineEnds::Crlf | LineEnds::Mixed => Ok(()),
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
mod tests;
