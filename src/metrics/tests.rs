//! What is printed, what the pages say is printed, and what the alerts ask for are one.

use super::*;

const PAGE: &str = include_str!("../../docs/metrics.md");
const README: &str = include_str!("../../README.md");
const ALERTS: &str = include_str!("../../deploy/alerts.yml");

fn families() -> Vec<Family> {
    Metrics::new().unwrap().families().to_vec()
}

/// `gatepost_name{label,label}`.
fn written(family: &Family) -> String {
    match family.labels.is_empty() {
        true => family.name.clone(),
        false => format!("{}{{{}}}", family.name, family.labels.join(",")),
    }
}

#[test]
fn every_family_is_on_the_page_with_its_labels_and_type_and_no_other() {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `gatepost_")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        let (kind, says) = (cells.next()?, cells.next()?);
        assert!(!says.is_empty(), "{name} says nothing");
        Some((format!("gatepost_{name}"), kind.to_owned()))
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    let mut all: Vec<_> = families()
        .iter()
        .map(|family| (written(family), family.kind.to_owned()))
        .collect();
    all.sort();
    assert_eq!(rows, all);
}

#[test]
fn the_readme_names_every_family() {
    for family in families() {
        let short = written(&family).replacen("gatepost_", "", 1);
        assert!(README.contains(&format!("`{short}`")), "{short}");
    }
}

#[test]
fn the_alerts_ask_for_families_and_labels_that_exist() {
    let families = families();
    let mut asked = 0;
    for line in ALERTS
        .lines()
        .filter(|line| line.trim().starts_with("expr:"))
    {
        for part in line.split("gatepost_").skip(1) {
            let end = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let (name, rest) = part.split_at(end.unwrap_or(part.len()));
            let name = format!("gatepost_{}", name.trim_end_matches("_bucket"));
            let family = families.iter().find(|family| family.name == name);
            let family = family.unwrap_or_else(|| panic!("{name} is no family: {line}"));
            asked += 1;
            let Some((matchers, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            else {
                continue;
            };
            for matcher in matchers.split(',') {
                let label = matcher.split(['=', '!']).next().unwrap();
                assert!(
                    family.labels.iter().any(|own| own == label),
                    "{label}: {line}"
                );
            }
        }
    }
    assert!(asked >= 15, "{asked}");
}

#[test]
fn a_gauge_is_no_total_and_a_counter_is_one() {
    for family in families() {
        let total = family.name.ends_with("_total");
        assert_eq!(total, family.kind == "counter", "{}", family.name);
    }
}

#[test]
fn what_is_foreseen_stands_at_zero_and_takes_nothing_back() {
    let metrics = Metrics::new().unwrap();
    metrics
        .bounces
        .with_label_values(&["contoso", "untold"])
        .inc();
    let foreseen = Foreseen {
        listeners: vec!["exchange".to_owned(), "apps".to_owned()],
        connectors: vec!["exchange".to_owned()],
        tenants: vec!["contoso".to_owned()],
        ways: vec![("relay:up".to_owned(), "contoso".to_owned())],
        streams: vec![
            ("contoso".to_owned(), String::new()),
            ("contoso".to_owned(), "bulk".to_owned()),
            ("fabrikam".to_owned(), "other".to_owned()),
        ],
        renewed: vec!["contoso".to_owned()],
    };
    metrics.foresee(&foreseen);
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    for line in [
        "gatepost_bounces_total{class=\"failure\",tenant=\"contoso\"} 0",
        "gatepost_bounces_total{class=\"untold\",tenant=\"contoso\"} 1",
        "gatepost_half_proven_total{holds=\"network\",listener=\"exchange\"} 0",
        "gatepost_deliveries_total{outcome=\"failed\",stream=\"bulk\",tenant=\"contoso\",via=\"relay:up\"} 0",
        "gatepost_queue_parked{tenant=\"contoso\",via=\"relay:up\"} 0",
        "gatepost_authentications_total{listener=\"apps\",result=\"rejected\"} 0",
        "gatepost_acme_orders_total{name=\"contoso\",result=\"refused\"} 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    assert!(
        !text.contains("stream=\"other\"")
            && !text.contains("half_proven_total{holds=\"network\",listener=\"apps\"")
    );
    for family in metrics.families() {
        let head = format!("# TYPE {} {}\n", family.name, family.kind);
        // By tenant and name of certificate, which only the server's first look tells.
        let later = family.name == "gatepost_certificate_expiry_seconds";
        assert!(later || text.contains(&head), "{head}: {text}");
    }
}
