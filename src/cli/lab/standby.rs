//! What can an administrator do while the lab stays up, and what happens to what is sent?

use super::folder::Folder;
use super::{Stop, Up};
use crate::lab::Security;
use crate::lab::scene::Actor;
use crate::lab::story::{self, Dress};
use crate::message_trace::{Event, Query, TraceEvent};
use crate::receive::{ListenerSettings, Service, TlsMode};
use std::collections::HashSet;
use std::io;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// The listeners, the metrics, and lines that can be pasted.
pub(super) fn invitation(folder: &Folder, up: &Up) -> io::Result<String> {
    let mut lines = vec![
        String::new(),
        "The smart host stays up until Ctrl-C.".to_owned(),
        String::new(),
    ];
    for listener in &up.settings.listeners {
        if let Some(address) = up.server.listener_address(&listener.name) {
            let address = address.to_string();
            lines.push(format!(
                "  {:12} {address:22} {}",
                listener.name,
                kind(listener)
            ));
        }
    }
    let admin = up.server.admin_address();
    lines.push(format!("  {:12} http://{admin}/metrics", "metrics"));
    for (index, actor) in up.scene.cast.actors.iter().enumerate() {
        let Some(organization) = up.scene.cast.organizations.get(actor.tenant) else {
            continue;
        };
        let to = organization.address("bob");
        let mail = folder.write(&format!("message-{index}.eml"), sample(&actor.sender, &to))?;
        let lands = if actor.internal {
            "lands internal"
        } else {
            "lands external"
        };
        let ca = up
            .own_authority
            .then(|| folder.path("ca.pem").display().to_string());
        lines.extend([String::new(), format!("Send as {} ({lands}):", actor.name)]);
        lines.extend(pasteable(
            actor,
            &to,
            &mail.display().to_string(),
            ca.as_deref(),
        ));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

fn kind(listener: &ListenerSettings) -> &'static str {
    match (listener.service, listener.tls) {
        (Service::Connector, TlsMode::Implicit) => "TLS from the start: not for Exchange Online",
        (Service::Connector, _) => "mail from Exchange, over STARTTLS",
        (Service::Submission, TlsMode::StartTls) => "applications, STARTTLS",
        (Service::Submission, TlsMode::Implicit) => "applications, TLS from the start",
        (Service::Submission, TlsMode::Optional) => "applications and devices, TLS optional",
        (Service::Submission, TlsMode::None) => "devices, no TLS",
    }
}

fn sample(from: &str, to: &str) -> String {
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: Sent by hand\r\nDate: Tue, 24 Nov 2026 09:15:29 +0100\r\n\
         Message-ID: <by-hand@lab.example>\r\n\r\nHello from the lab.\r\n"
    )
}

/// One line for curl, one for swaks.
fn pasteable(actor: &Actor, to: &str, mail: &str, ca: Option<&str>) -> [String; 2] {
    let address = actor.door.address;
    let implicit = actor.door.security == Security::Implicit;
    let scheme = if implicit { "smtps" } else { "smtp" };
    let (from, to, mail) = (word(&actor.sender), word(to), word(mail));
    let mut curl =
        format!("  curl --url {scheme}://{address} --mail-from {from} --mail-rcpt {to} -T {mail}");
    let mut swaks = format!("  swaks --server {address} --from {from} --to {to}");
    if actor.door.security != Security::Clear {
        curl += " --ssl-reqd";
        swaks += if implicit {
            " --tls-on-connect"
        } else {
            " --tls"
        };
        match ca.map(word) {
            Some(ca) => {
                curl += &format!(" --cacert {ca}");
                swaks += &format!(" --tls-verify --tls-ca-path {ca}");
            }
            // A rehearsed certificate names a host, not this address.
            None => curl += " --insecure",
        }
    }
    if let Some((name, password)) = &actor.login {
        // Made up for this run of the lab, and shown so that it can be used.
        let password = password.expose_str();
        curl += &format!(" --user {}", word(&format!("{name}:{password}")));
        swaks += &format!(
            " --auth LOGIN --auth-user {} --auth-password {password}",
            word(name)
        );
    }
    if let Some(source) = actor.source {
        curl += &format!(" --interface {source}");
        swaks += &format!(" --local-interface {source}");
    }
    [curl, swaks]
}

/// A word for a POSIX shell.
fn word(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&octet);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Prints each message's journey as it happens: what Exchange received, and what the smart host refused.
pub(super) async fn watch(dress: Dress, up: &Up, stop: &mut Stop, tell: fn(&str)) {
    let mut arrivals = up.scene.exchange.watch();
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    let mut refusals = Refusals::default();
    // What was refused while the samples were played has been told.
    drop(refusals.fresh(up).await);
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            message = arrivals.recv() => match message {
                Ok(message) => tell(&story::journey(&message, dress)),
                Err(RecvError::Lagged(missed)) => tell(&format!("({missed} messages not shown)")),
                Err(RecvError::Closed) => return,
            },
            _ = looks.tick() => refusals.fresh(up).await.iter().for_each(|refusal| tell(refusal)),
        }
    }
}

/// The refusals that were told, and since when to look for more.
#[derive(Default)]
struct Refusals {
    since: u64,
    told: HashSet<String>,
}

impl Refusals {
    async fn fresh(&mut self, up: &Up) -> Vec<String> {
        let query = Query {
            since: Some(self.since),
            ..Query::default()
        };
        let found = match up.server.tracer().find(query).await {
            Ok(found) => found,
            Err(error) => return vec![format!("(the trace cannot be read: {error})")],
        };
        let mut fresh = Vec::new();
        for event in found {
            self.since = self.since.max(event.at);
            let text = refusal(&event);
            if let Some(text) = text.filter(|_| self.told.insert(event.id)) {
                fresh.push(text);
            }
        }
        fresh
    }
}

fn refusal(event: &TraceEvent) -> Option<String> {
    let Event::Refused {
        listener,
        peer,
        sender,
        recipients,
        reply,
        reason,
        ..
    } = &event.event
    else {
        return None;
    };
    let sender = match sender {
        Some(sender) => format!("from <{sender}>"),
        None => "before MAIL".to_owned(),
    };
    let to = match recipients.as_slice() {
        [] => String::new(),
        recipients => format!(" to <{}>", recipients.join(">, <")),
    };
    Some(format!(
        "Refused on {listener}, {peer}, {sender}{to}\n  reason   {reason}\n  answer   {reply}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_shell_are_quoted_where_they_must_be() {
        assert_eq!(word("erp:4f@contoso.com"), "erp:4f@contoso.com");
        assert_eq!(word("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let event = TraceEvent {
            at: 1,
            id: "X".to_owned(),
            event: Event::Refused {
                listener: "exchange".to_owned(),
                peer: "127.0.66.6".to_owned(),
                application: None,
                tenant: None,
                sender: Some("ceo@contoso.com".to_owned()),
                recipients: vec!["bob@contoso.com".to_owned()],
                message_id: None,
                reply: "550 5.7.1 no".to_owned(),
                reason: "stranger".to_owned(),
                evidence: crate::trust::Evidence::default(),
            },
        };
        let text = refusal(&event).unwrap();
        assert!(
            text.contains("from <ceo@contoso.com> to <bob@contoso.com>"),
            "{text}"
        );
        assert!(text.contains("stranger"), "{text}");
    }
}
