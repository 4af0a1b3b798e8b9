//! In which order do the lines that mend a tenant run?
//!
//! They are pasted from top to bottom. A line that sets a property calls its object as it is called today; what gives an
//! object our name comes after those, and before everything that goes by our names: the scripts, which would make a second
//! object beside one that they do not know, and a property that names another object of ours.

/// When the line of a drift runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// On what is there, as it is called today.
    #[default]
    Today,
    /// Gives an object our name.
    Rename,
    /// Makes what is missing; finds what is there by our names.
    Make,
    /// Goes by our names, and by what was made.
    Named,
    /// A check of the whole.
    Last,
}

#[cfg(test)]
mod tests {
    use super::super::diff::{Mend, Report, diff};
    use super::super::fixtures::{KINDS, Tenancy, plan};
    use super::super::objects::Kind;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// How an object of ours stands in the tenant.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum State {
        Absent,
        Right,
        Drifted,
        ByHand,
    }

    const STATES: [State; 4] = [State::Absent, State::Right, State::Drifted, State::ByHand];

    /// The name of one that was made by hand.
    fn by_hand(kind: Kind) -> &'static str {
        match kind {
            Kind::Inbound => "Smart host in",
            Kind::Outbound => "Smart host out",
            Kind::Route => "Smart host rule",
            Kind::CleanUp => "Smart host rule back",
        }
    }

    fn tenancy(states: [State; 4], validated: bool) -> Tenancy {
        let mut tenancy = Tenancy::of(&plan());
        tenancy.outbound[0]["IsValidated"] = json!(validated);
        for (kind, state) in KINDS.into_iter().zip(states) {
            let (stray, wrong) = match kind {
                Kind::Inbound => ("RequireTls", json!(false)),
                Kind::Outbound => ("TestMode", json!(true)),
                Kind::Route => ("RouteMessageOutboundConnector", json!("Elsewhere")),
                Kind::CleanUp => ("Priority", json!(7)),
            };
            let own = tenancy.object(kind);
            match state {
                State::Absent | State::Right => {}
                State::Drifted => own[stray] = wrong,
                State::ByHand => {
                    own["Name"] = json!(by_hand(kind));
                    own[kind.comment()] = json!("made by hand");
                    own[stray] = wrong;
                }
            }
        }
        let way = match states[1] {
            State::Absent => "Elsewhere",
            State::Right | State::Drifted => "To Gatepost",
            State::ByHand => by_hand(Kind::Outbound),
        };
        if matches!(states[2], State::Right) {
            tenancy.rules[0]["RouteMessageOutboundConnector"] = json!(way);
        }
        if states[3] == State::Absent {
            tenancy.rules.remove(1);
        }
        if states[2] == State::Absent {
            tenancy.rules.remove(0);
        }
        if states[1] == State::Absent {
            tenancy.outbound.clear();
        }
        if states[0] == State::Absent {
            tenancy.inbound.clear();
        }
        tenancy
    }

    fn kinds(cmdlet: &str) -> &'static [Kind] {
        match cmdlet {
            "Set-InboundConnector" => &[Kind::Inbound],
            "Set-OutboundConnector" => &[Kind::Outbound],
            "Set-TransportRule" | "Enable-TransportRule" => &[Kind::Route, Kind::CleanUp],
            other => panic!("{other}"),
        }
    }

    fn argument<'a>(command: &'a str, name: &str) -> Option<&'a str> {
        let (_, rest) = command.split_once(&format!(" -{name} '"))?;
        rest.split('\'').next()
    }

    /// Runs the lines as far as names go: each finds what it calls, and no script makes a second object.
    fn run(report: &Report, mut there: BTreeSet<&'static str>) -> BTreeSet<&'static str> {
        let named = |kinds: &[Kind], name: &str| -> Option<&'static str> {
            let all = kinds.iter().flat_map(|kind| [kind.name(), by_hand(*kind)]);
            all.into_iter().find(|known| *known == name)
        };
        for drift in &report.drift {
            let Mend::Line(line) = &drift.mend else {
                panic!("{drift:?}");
            };
            for command in line.split("; ").filter(|part| !part.starts_with("$s")) {
                let cmdlet = command.split(' ').next().unwrap();
                match cmdlet {
                    ".\\Install-GatepostConnector.ps1" => {
                        for kind in KINDS {
                            assert!(!there.contains(by_hand(kind)), "{report:#?}");
                            there.insert(kind.name());
                        }
                        continue;
                    }
                    ".\\Confirm-GatepostConnector.ps1" => {
                        assert!(there.contains(Kind::Outbound.name()), "{report:#?}");
                        continue;
                    }
                    _ => {}
                }
                let kinds = kinds(cmdlet);
                let identity = named(kinds, argument(command, "Identity").unwrap()).unwrap();
                assert!(there.contains(identity), "{command}: {report:#?}");
                if let Some(way) = argument(command, "RouteMessageOutboundConnector") {
                    let way = named(&[Kind::Outbound], way).unwrap();
                    assert!(there.contains(way), "{command}: {report:#?}");
                }
                if let Some(name) = argument(command, "Name") {
                    there.remove(identity);
                    assert!(there.insert(named(kinds, name).unwrap()), "{command}");
                }
            }
        }
        there
    }

    #[test]
    fn the_lines_run_as_printed_whatever_is_absent_drifted_or_made_by_hand() {
        let canonical: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        for number in 0..512 {
            let states = [0, 1, 2, 3].map(|place| STATES[number / 4_usize.pow(place) % 4]);
            let tenancy = tenancy(states, number < 256);
            let report = diff(&plan(), &tenancy.exports());
            let there = KINDS
                .into_iter()
                .zip(states)
                .filter_map(|(kind, state)| match state {
                    State::Absent => None,
                    State::Right | State::Drifted => Some(kind.name()),
                    State::ByHand => Some(by_hand(kind)),
                });
            assert_eq!(run(&report, there.collect()), canonical, "{states:?}");
        }
    }
}
