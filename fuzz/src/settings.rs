//! What an administrator hands over: the configuration, Microsoft's endpoint data, a message to explain.

use super::naive;
use super::world::{CONTOSO, ENVIRONMENT, FABRIKAM, check, now_of_certificates, scratch, world};
use gatepost::cli::explain_trust::{self, Question};
use gatepost::config::Problem;
use gatepost::trust::endpoints;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Any text: taken or refused with reasons, each at a line that exists, fit for a terminal, and without the secret that
/// stands in the environment.
pub fn config(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    // Devices that never end, or wait.
    if text.contains("/dev") || text.contains("/proc") || text.contains("\\") {
        return;
    }
    let path = Path::new("/nonexistent/gatepost.toml");
    let lines = text.matches('\n').count() + 1;
    // Keys that hold no secret are quoted as they are read; where only those of secrets name it, it is never shown.
    let of_secrets = ["value =", "token =", "password =", "password_hash ="];
    let mut naming = text.lines().filter(|line| line.contains("${"));
    let is_secret = naming.all(|line| {
        of_secrets
            .iter()
            .any(|key| line.trim_start().starts_with(key))
    });
    let fit = |shown: String, line: Option<usize>| {
        assert!(
            line.is_none_or(|line| (1..=lines).contains(&line)),
            "{shown}"
        );
        assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");
        assert!(
            !is_secret || text.contains(ENVIRONMENT) || !shown.contains(ENVIRONMENT),
            "{shown}"
        );
    };
    match check(path, text) {
        Err(unreadable) => fit(unreadable.to_string(), unreadable.line),
        Ok(loaded) => {
            let errors = loaded
                .problems
                .iter()
                .filter(|problem| is_error(problem))
                .count();
            assert_eq!(loaded.is_refused(), errors > 0, "{:?}", loaded.problems);
            for problem in &loaded.problems {
                fit(problem.to_string(), Some(problem.line));
            }
        }
    }
}

fn is_error(problem: &Problem) -> bool {
    problem.severity == gatepost::config::Severity::Error
}

/// Microsoft's JSON: what is believed is not absurd, and replaces what is in force only where it does not shrink it.
pub fn endpoints(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    match endpoints::parse(text) {
        Ok(published) => {
            assert!(!published.smtp_networks.is_empty());
            for block in &published.smtp_networks {
                let widest = if block.addr().is_ipv4() { 8 } else { 24 };
                assert!(block.prefix_len() >= widest, "{block}");
            }
            let shipped = endpoints::shipped();
            if let Ok(taken) = endpoints::replace(&shipped, published.clone()) {
                assert_eq!(taken.smtp_networks, published.smtp_networks);
                // One address cannot take the place of thousands.
                assert!(taken.smtp_networks.len() > 1 || taken.smtp_networks[0].prefix_len() < 24);
            }
        }
        Err(error) => assert!(!error.to_string().contains('\x1b'), "{error}"),
    }
}

/// An .eml as `explain trust` takes it, from Exchange's address with its certificate. Proven is only what carries enough
/// evidence of one tenant, by a reader that shares nothing with the gate; the answer never shows a secret.
pub fn explain(octets: &[u8]) {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let file = FILE.get_or_init(|| scratch().join("mail.eml"));
    let Some((&options, message)) = octets.split_first() else {
        return;
    };
    std::fs::write(file, message).expect("a file");
    // A file of LF lines is read with its CRs back.
    let lines: Vec<&[u8]> = message.split(|octet| *octet == b'\n').collect();
    let wire = if naive::contains(message, b"\r\n") {
        message.to_vec()
    } else {
        lines.join(&b"\r\n"[..])
    };
    let message = wire.as_slice();
    let certificate = world().folder.join("exchange.pem");
    let xoorg = match options & 3 {
        0 | 1 => None,
        2 => Some("contoso.com"),
        _ => Some("fabrikam.com"),
    };
    let question = Question {
        message: file,
        from: if options & 16 != 0 {
            "192.0.2.1"
        } else {
            "127.0.40.25"
        }
        .parse()
        .expect("an address"),
        certificate: (options & 32 == 0).then_some(certificate.as_path()),
        mail_from: match options >> 2 & 3 {
            0 => "ada@contoso.com",
            1 => "<>",
            2 => "eve@elsewhere.example",
            _ => "O365ConnectorValidation@contoso.com",
        },
        xoorg,
        dns: false,
    };
    let now = now_of_certificates();
    let (accepted, text) = explain_trust::answer(&world().settings, &question, false, now)
        .expect("its files are there");
    let (again, json) = explain_trust::answer(&world().settings, &question, true, now)
        .expect("its files are there");
    assert_eq!(accepted, again);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["accepted"], accepted);
    assert!(
        !text.replace('\n', "").contains(|c: char| c.is_control()),
        "{text:?}"
    );
    for secret in ["contoso-secret", "fabrikam-secret"] {
        // Where the text stands in a field that is shown, it is shown.
        let (fields, _) = naive::fields(message);
        let elsewhere = fields.iter().filter(|field| !naive::is_secret(&field.name));
        let elsewhere = elsewhere
            .into_iter()
            .any(|field| naive::contains(field.octets, &secret.as_bytes()[..6]));
        assert!(elsewhere || !text.contains(secret), "{text}");
    }
    if !accepted {
        return;
    }
    assert!(options & 48 == 0, "two gates were shut");
    let tenant = json["tenant"].as_str().expect("a tenant");
    let id = if tenant == "contoso" {
        CONTOSO
    } else {
        FABRIKAM
    };
    let says = |name: &str, value: &str| naive::says(message, name, value);
    let evidence = [
        says("x-originatororg", &format!("{tenant}.com")),
        says("x-ms-exchange-crosstenant-id", id),
        says(&format!("x-{tenant}-gate"), &format!("{tenant}-secret")),
        xoorg == Some(&format!("{tenant}.com")),
    ];
    assert!(
        evidence.iter().filter(|holds| **holds).count() >= 2,
        "{evidence:?} {text}"
    );
    let (fields, _) = naive::fields(message);
    let loops = fields
        .iter()
        .filter(|field| field.name == "x-gatepost-processed");
    for field in loops {
        assert!(
            !naive::contains(field.octets, format!("{tenant}-loop").as_bytes())
                || !exactly(field.octets, &format!("{tenant}-loop")),
            "a loop"
        );
    }
}

/// Whether the field's value is this and nothing else.
fn exactly(field: &[u8], value: &str) -> bool {
    let text = String::from_utf8_lossy(field).replace(['\r', '\n'], "");
    text.split_once(':')
        .is_some_and(|(_, own)| own.trim_matches([' ', '\t']) == value)
}
