//! The text of the scripts, without a PowerShell: read by tree-sitter's grammar of it. The checks over PowerShell's own parser
//! see more (`modules/ScriptCheck`); these hold on every machine.

use super::{splat, version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tree_sitter::{Node, Parser};

/// The tokens that `gatepost connector render` fills in; true for a list.
const TOKENS: [(&str, bool); 10] = [
    ("AcceptedDomains", true),
    ("CloudServicesMailEnabled", false),
    ("ExchangeEnvironmentName", false),
    ("LoopHeaderName", false),
    ("PilotGroup", false),
    ("SecretHeaderName", false),
    ("SmartHosts", true),
    ("TenantId", false),
    ("TlsDomain", false),
    ("TlsSenderCertificateName", false),
];

/// Known commands with their parameters, both in lower case: PowerShell takes no notice of case.
pub(super) struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    /// Of the two tables beside this file.
    fn read() -> Self {
        let read = |name: &str| -> serde_json::Value {
            let path = super::here().join(name);
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
        };
        let cloud = read("cmdlets.json");
        let builtin = read("builtin.json");
        let common: Vec<String> = cloud["common"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_lowercase())
            .collect();
        let mut known = BTreeMap::new();
        for (name, facts) in cloud["cmdlets"].as_object().unwrap() {
            let mut parameters: BTreeSet<String> = common.iter().cloned().collect();
            parameters.extend(
                facts["parameters"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(|key| key.to_lowercase()),
            );
            known.insert(name.to_lowercase(), parameters);
        }
        for (name, facts) in builtin["commands"].as_object().unwrap() {
            let mut parameters: BTreeSet<String> = common.iter().cloned().collect();
            for list in ["parameters", "switches"] {
                parameters.extend(
                    facts[list]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|key| key.as_str().unwrap().to_lowercase()),
                );
            }
            known.insert(name.to_lowercase(), parameters);
        }
        Self(known)
    }

    /// The parameters of a command, in lower case.
    pub(super) fn parameters(&self, command: &str) -> Option<&BTreeSet<String>> {
        self.0.get(&command.to_lowercase())
    }
}

/// Everything wrong with one script.
fn findings(name: &str, bytes: &[u8], known: &Known) -> Vec<String> {
    let mut found = Vec::new();
    let mut line = 1;
    for (place, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => {
                if place == 0 || bytes[place - 1] != b'\r' {
                    found.push(format!("{name}:{line}: ends in LF without CR"));
                }
                line += 1;
            }
            b'\r' if bytes.get(place + 1) != Some(&b'\n') => {
                found.push(format!("{name}:{line}: CR without LF"));
            }
            b'\r' | b' '..=b'~' => {}
            other => found.push(format!("{name}:{line}: octet 0x{other:02X}")),
        }
    }
    if !bytes.ends_with(b"\r\n") {
        found.push(format!("{name}: no line end after the last line"));
    }
    let text = String::from_utf8_lossy(bytes);
    found.extend(token_findings(name, &text));
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_pwsh::LANGUAGE.into())
        .unwrap();
    let tree = parser.parse(text.as_bytes(), None).unwrap();
    let mut nodes = vec![tree.root_node()];
    let mut functions = BTreeSet::new();
    let mut commands = Vec::new();
    while let Some(node) = nodes.pop() {
        if node.is_error() || node.is_missing() {
            found.push(format!("{name}:{}: not understood", row(node)));
        }
        match node.kind() {
            "function_name" => {
                functions.insert(slice(node, &text).to_lowercase());
            }
            "command" => commands.push(node),
            _ => {}
        }
        found.extend(version::finding(name, node, &text));
        let mut cursor = node.walk();
        nodes.extend(node.children(&mut cursor));
    }
    for command in commands {
        found.extend(command_findings(name, command, &text, &functions, known));
    }
    found.extend(splat::findings(
        name,
        tree.root_node(),
        &text,
        &functions,
        known,
    ));
    found
}

pub(super) fn row(node: Node<'_>) -> usize {
    node.start_position().row + 1
}

pub(super) fn slice<'a>(node: Node<'_>, text: &'a str) -> &'a str {
    &text[node.byte_range()]
}

/// A call by name: a known command with known parameters, or a function of the script.
fn command_findings(
    name: &str,
    command: Node<'_>,
    text: &str,
    functions: &BTreeSet<String>,
    known: &Known,
) -> Vec<String> {
    let Some(called) = command
        .child_by_field_name("command_name")
        .filter(|node| node.kind() == "command_name")
    else {
        // `& $name`: which command that is, the checks over PowerShell's own parser find out.
        return Vec::new();
    };
    let called = slice(called, text);
    if functions.contains(&called.to_lowercase()) {
        return Vec::new();
    }
    let Some(parameters) = known.0.get(&called.to_lowercase()) else {
        return vec![format!(
            "{name}:{}: '{called}' is in no table of commands",
            row(command)
        )];
    };
    let Some(elements) = command.child_by_field_name("command_elements") else {
        return Vec::new();
    };
    let mut cursor = elements.walk();
    elements
        .children(&mut cursor)
        .filter(|node| node.kind() == "command_parameter")
        .map(|node| {
            slice(node, text)
                .trim_start_matches('-')
                .trim_end_matches(':')
        })
        .filter(|parameter| !parameters.contains(&parameter.to_lowercase()))
        .map(|parameter| {
            format!(
                "{name}:{}: {called} has no parameter -{parameter}",
                row(command)
            )
        })
        .collect()
}

/// Every `'@Name@'` is one that `render` knows, and stands as the default value of the parameter of that name.
fn token_findings(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (place, _) in line.match_indices("'@") {
            let rest = &line[place + 2..];
            let Some(end) = rest.find("@'") else { continue };
            let token = &rest[..end];
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                continue;
            }
            let right = TOKENS.iter().any(|(known, list)| {
                *known == token
                    && if *list {
                        line.contains(&format!("[string[]]${token} = @('@{token}@')"))
                    } else {
                        line.contains(&format!("[string]${token} = '@{token}@'"))
                    }
            });
            if !right {
                found.push(format!(
                    "{name}:{}: '@{token}@' is not a token of render in its place",
                    number + 1
                ));
            }
        }
    }
    found
}

/// The scripts that the repository ships, with their names.
fn scripts() -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(super::templates())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "ps1"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn scripts_are_understood_and_call_what_there_is() {
    let known = Known::read();
    let scripts = scripts();
    assert_eq!(scripts.len(), 10, "scripts of connector-templates/");
    let found: Vec<String> = scripts
        .iter()
        .flat_map(|(name, bytes)| findings(name, bytes, &known))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_token_of_render_stands_in_a_script() {
    let all: String = scripts()
        .iter()
        .map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    for (token, _) in TOKENS {
        assert!(
            all.contains(&format!("'@{token}@'")),
            "'@{token}@' stands in no script"
        );
    }
}

#[test]
fn what_is_wrong_in_a_script_is_found() {
    let known = Known::read();
    let good = "param(\r\n    [string]$TlsDomain = '@TlsDomain@'\r\n)\r\nSet-TransportRule -Identity $TlsDomain -Mode 'Audit' -Confirm:$false -ErrorAction Stop\r\n";
    assert_eq!(
        findings("a.ps1", good.as_bytes(), &known),
        Vec::<String>::new()
    );
    for (was, becomes, says) in [
        ("-Mode", "-Mod", "no parameter -Mod"),
        ("-Confirm:", "-Confrm:", "no parameter -Confrm"),
        ("Set-TransportRule", "Set-TransportRules", "no table"),
        ("Set-TransportRule", "Write-Host", "no table"),
        ("'@TlsDomain@'", "'@TlsDomian@'", "not a token"),
        ("= '@TlsDomain@'", "= @('@TlsDomain@')", "not a token"),
        ("Stop\r\n", "Stop\n", "LF without CR"),
        ("Stop\r\n", "Stop", "no line end"),
        ("Stop\r\n", "Stop\r\r\n", "CR without LF"),
        ("'Audit'", "'Audit\u{e9}'", "octet 0xC3"),
        ("'Audit'", "'Audit", "not understood"),
        ("'Audit'", "\t'Audit'", "octet 0x09"),
    ] {
        assert!(good.contains(was), "{was}");
        let bad = good.replace(was, becomes);
        let found = findings("a.ps1", bad.as_bytes(), &known);
        assert!(
            found.iter().any(|one| one.contains(says)),
            "{becomes}: wanted '{says}', found {found:?}"
        );
    }
}

/// A script around some lines.
fn script(lines: &str) -> Vec<u8> {
    format!("{lines}\n").replace('\n', "\r\n").into_bytes()
}

/// The regions of a script: their names and texts.
fn regions(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for (start, _) in text.match_indices("#region ") {
        let name = text[start + 8..].split("\r\n").next().unwrap();
        let end = format!("#endregion {name}\r\n");
        let length = text[start..]
            .find(&end)
            .unwrap_or_else(|| panic!("region {name} has no end"));
        assert!(
            found.insert(name, &text[start..start + length]).is_none(),
            "region {name} stands twice"
        );
    }
    found
}

/// What differs between the regions of these scripts, by name.
fn differing(scripts: &[(String, String)]) -> Vec<String> {
    let mut first: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, text) in scripts {
        let own = regions(text);
        if !own.contains_key("Common") {
            found.push(format!("{name}: no region Common"));
        }
        for (region, is) in own {
            let (owner, wanted) = *first.entry(region).or_insert((name.as_str(), is));
            if is != wanted {
                found.push(format!(
                    "{name}: the region {region} differs from that of {owner}"
                ));
            }
        }
    }
    found
}

#[test]
fn regions_of_one_name_are_the_same_in_all_scripts() {
    let mut scripts: Vec<(String, String)> = scripts()
        .into_iter()
        .map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap()))
        .collect();
    assert_eq!(differing(&scripts), Vec::<String>::new());
    let last = scripts.last_mut().unwrap();
    let changed = "$script:Denied = $true\r\n";
    assert_eq!(last.1.matches(changed).count(), 1);
    last.1 = last.1.replace(changed, "$script:Denied = $false\r\n");
    assert_eq!(differing(&scripts).len(), 1);
}

#[test]
fn what_a_splat_gives_is_checked_wherever_its_keys_come_from() {
    let known = Known::read();
    let good = "function Get-GatepostStart {
    param($Given)
    $start = @{ Identity = 'x'; Mode = 'Audit' }
    $start
}
function Set-GatepostRule {
    param([hashtable]$Further)
    $wanted = [ordered]@{ Comments = 'x'; 'SetHeaderName' = @{ Inner = 1 } }
    foreach ($key in $Further.Keys) { $wanted[$key] = $Further[$key] }
    $set = Get-GatepostStart -Given 1
    foreach ($key in $wanted.Keys) { $set[$key] = $wanted[$key] }
    $set['Priority'] = 0
    $set.FromScope = 'InOrganization'
    Set-TransportRule @set -Confirm:$false
}
$more = @{ StopRuleProcessing = $true }
Set-GatepostRule -Further $more
Set-GatepostRule -Further @{ ExpiryDate = $null }";
    assert_eq!(
        findings("a.ps1", &script(good), &known),
        Vec::<String>::new()
    );
    for (was, becomes, says) in [
        ("Mode = ", "Mod = ", "no parameter -mod (@set)"),
        ("Comments = ", "Comment = ", "no parameter -comment (@set)"),
        (
            "'SetHeaderName' = ",
            "'SetHeader' = ",
            "no parameter -setheader (@set)",
        ),
        ("['Priority']", "['Prio']", "no parameter -prio (@set)"),
        (".FromScope", ".FromScop", "no parameter -fromscop (@set)"),
        (
            "@{ StopRule",
            "@{ Rule",
            "no parameter -ruleprocessing (@set)",
        ),
        ("@{ ExpiryDate", "@{ Expiry", "no parameter -expiry (@set)"),
        (
            "$set[$key] = $wanted[$key]",
            "$set[$key] = 1",
            "cannot be seen",
        ),
        ("-Further $more", "-Further (Get-Date)", "cannot be seen"),
        (
            "= Get-GatepostStart -Given 1",
            "= Get-Item -Path 'x'",
            "cannot be seen",
        ),
        ("@set -C", "@sett -C", "cannot be seen"),
    ] {
        assert!(good.contains(was), "{was}");
        let found = findings("a.ps1", &script(&good.replacen(was, becomes, 1)), &known);
        assert!(
            found.len() == 1 && found[0].contains(says),
            "{becomes}: wanted '{says}', found {found:?}"
        );
    }
}

#[test]
fn what_is_newer_than_5_1_is_found() {
    let known = Known::read();
    let old = "$a = [System.Math]::Floor(0x1F + 5MB + 1.5)
Get-Date | ForEach-Object { $_.IsWindows }
Set-Content -LiteralPath 'x' -Value 'utf8NoBOM is not in 5.1' -Encoding 'utf8'";
    let found = findings("a.ps1", &script(old), &known);
    assert_eq!(found, Vec::<String>::new());
    for new in [
        "$a = $b ? 1 : 2",
        "$a = $b ?? 1",
        "$a ??= 2",
        "Get-Date && Get-Date",
        "Get-Date || Get-Date",
        "${a}?.Length",
        "${a}?[0]",
        "function Get-It { clean { 1 } }",
        "Get-Date &",
        "$a = 12u",
        "$a = 2n",
        "$a = 0b11",
        "if ($IsWindows) { 1 }",
        "if (${IsLinux}) { 1 }",
        "$PSStyle.Bold",
        "Set-Content -LiteralPath 'x' -Value 'y' -Encoding 'utf8NoBOM'",
        "Set-Content -LiteralPath 'x' -Value 'y' -Encoding utf8BOM",
        "Get-Date | ForEach-Object -Parallel { $_ }",
        "ConvertFrom-Json -InputObject 'x' -AsHashtable",
        "Get-Content -LiteralPath 'x' -AsByteStream",
        "[System.Convert]::ToHexString($a)",
        "[System.IO.Path]::Join('a', 'b')",
        "[datetime]::UnixEpoch",
    ] {
        let found = findings("a.ps1", &script(new), &known);
        assert!(!found.is_empty(), "{new}");
    }
}
