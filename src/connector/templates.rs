//! The scripts of `connector-templates/`, and how they are filled in.
//!
//! A template carries a parameter's default as `'@Name@'`; a rendered script differs from its template in nothing else.

use super::literal::{literal, literals};
use super::plan::{Plan, Token};

/// The scripts that this version carries, by file name, in the order of the steps.
pub const SCRIPTS: &[(&str, &str)] = &[
    (
        "Test-GatepostPreflight.ps1",
        include_str!("../../connector-templates/Test-GatepostPreflight.ps1"),
    ),
    (
        "Export-GatepostState.ps1",
        include_str!("../../connector-templates/Export-GatepostState.ps1"),
    ),
    (
        "Install-GatepostConnector.ps1",
        include_str!("../../connector-templates/Install-GatepostConnector.ps1"),
    ),
    (
        "Confirm-GatepostConnector.ps1",
        include_str!("../../connector-templates/Confirm-GatepostConnector.ps1"),
    ),
    (
        "Set-GatepostRollout.ps1",
        include_str!("../../connector-templates/Set-GatepostRollout.ps1"),
    ),
    (
        "Repair-GatepostConnector.ps1",
        include_str!("../../connector-templates/Repair-GatepostConnector.ps1"),
    ),
    (
        "Update-GatepostSecret.ps1",
        include_str!("../../connector-templates/Update-GatepostSecret.ps1"),
    ),
    (
        "Set-GatepostArcSealer.ps1",
        include_str!("../../connector-templates/Set-GatepostArcSealer.ps1"),
    ),
    (
        "Set-GatepostEnhancedFiltering.ps1",
        include_str!("../../connector-templates/Set-GatepostEnhancedFiltering.ps1"),
    ),
    (
        "Remove-GatepostConnector.ps1",
        include_str!("../../connector-templates/Remove-GatepostConnector.ps1"),
    ),
];

/// Whether a script has something to do in the plan's set: without mail from Exchange there is no rollout, and no secret.
pub(super) fn is_for(name: &str, plan: &Plan) -> bool {
    plan.is_sent_to()
        || !matches!(
            name,
            "Set-GatepostRollout.ps1" | "Update-GatepostSecret.ps1"
        )
}

/// A template that asks for a value that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownToken(pub(super) String);

/// The script with its values, lines ended by CRLF as signed files need it, whatever the checkout did.
pub(super) fn fill(template: &str, tokens: &[(&str, Token)]) -> Result<String, UnknownToken> {
    let mut out = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, name, after)) = next_token(rest) {
        out.push_str(before);
        let (_, value) = tokens
            .iter()
            .find(|(own, _)| *own == name)
            .ok_or_else(|| UnknownToken(name.to_owned()))?;
        match value {
            Token::Text(text) => out.push_str(&literal(text)),
            Token::List(texts) => out.push_str(&literals(texts)),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out.replace("\r\n", "\n").replace('\n', "\r\n"))
}

/// The first `'@Name@'` with what stands before and after it.
fn next_token(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find("'@") {
        let start = from + at;
        let inner = text.get(start + 2..)?;
        if let Some((name, after)) = inner.split_once("@'")
            && !name.is_empty()
            && name.bytes().all(|octet| octet.is_ascii_alphanumeric())
        {
            return Some((text.get(..start)?, name, after));
        }
        from = start + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<(&'static str, Token)> {
        vec![
            ("TlsDomain", Token::Text("it's.example".to_owned())),
            (
                "SmartHosts",
                Token::List(vec!["a".to_owned(), "b".to_owned()]),
            ),
            ("AcceptedDomains", Token::List(Vec::new())),
        ]
    }

    #[test]
    fn tokens_are_replaced_and_nothing_else() {
        let template = "[string]$T = '@TlsDomain@'\n[string[]]$S = @('@SmartHosts@'),\r\n$A = @('@AcceptedDomains@')\nif ($T -match '^@\\w+@$') { '@' + '@not a token@' + '@a' }";
        assert_eq!(
            fill(template, &tokens()).unwrap(),
            "[string]$T = 'it''s.example'\r\n[string[]]$S = @('a', 'b'),\r\n$A = @()\r\nif ($T -match '^@\\w+@$') { '@' + '@not a token@' + '@a' }"
        );
    }

    #[test]
    fn every_script_of_the_folder_is_carried_and_every_token_has_a_value() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("connector-templates");
        let names = std::fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".ps1")).collect();
        names.sort();
        let mut carried: Vec<&str> = SCRIPTS.iter().map(|(name, _)| *name).collect();
        carried.sort_unstable();
        assert_eq!(carried, names);
        let tokens = super::super::fixtures::plan().tokens();
        for (name, template) in SCRIPTS {
            let script =
                fill(template, &tokens).unwrap_or_else(|unknown| panic!("{name}: {unknown:?}"));
            assert!(next_token(&script).is_none(), "{name}");
            let changed = script
                .lines()
                .zip(template.lines())
                .filter(|(new, old)| new != old && !old.contains("'@"));
            assert_eq!(changed.count(), 0, "{name}");
            assert_eq!(script.lines().count(), template.lines().count(), "{name}");
        }
    }

    #[test]
    fn a_token_without_a_value_is_named() {
        assert_eq!(
            fill("x = '@Nonsense@'", &tokens()),
            Err(UnknownToken("Nonsense".to_owned()))
        );
    }
}
