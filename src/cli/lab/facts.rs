//! `gatepost lab --json`: what the story tells, for a script that rehearses a configuration.

use crate::lab::play::Told;
use crate::lab::samples::Waiting;
use serde_json::{Value, json};

/// An element for each row: those that were played, then those that were left out, with what they need; that is no fault.
pub(super) fn array(story: &[Told], waiting: &[Waiting]) -> Value {
    let left_out = waiting.iter().map(|waiting| {
        json!({
            "number": null,
            "sample": waiting.name,
            "well": true,
            "left_out": format!("needs {}", waiting.needs),
            "acts": [],
        })
    });
    story.iter().map(row).chain(left_out).collect()
}

fn row(told: &Told) -> Value {
    let acts = told.acts.iter().map(|act| {
        let exchange = act.exchange.as_ref().map(|seen| {
            json!({ "tenant": seen.tenant, "internal": seen.internal, "because": seen.because })
        });
        let faults: Vec<&String> = act.faults.iter().chain(&act.afterwards).collect();
        json!({ "answer": act.answer, "exchange": exchange, "outside": act.outside, "faults": faults })
    });
    json!({
        "number": told.number,
        "sample": told.name,
        "well": told.well(),
        "left_out": null,
        "acts": acts.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::play::{ActTold, Seen};

    #[test]
    fn a_row_says_what_was_answered_what_exchange_made_of_it_and_every_fault() {
        let told = Told {
            number: 3,
            name: "printer to a colleague",
            why: "it pays for the house",
            acts: vec![ActTold {
                answer: "250 2.0.0 Ok: queued as X".to_owned(),
                exchange: Some(Seen {
                    tenant: "contoso".to_owned(),
                    internal: true,
                    because: "promoted".to_owned(),
                }),
                faults: vec!["first".to_owned()],
                afterwards: vec!["late".to_owned()],
                ..ActTold::default()
            }],
        };
        let waiting = Waiting {
            name: "no TLS",
            needs: "a connector listener",
        };
        assert_eq!(
            array(&[told], &[waiting]),
            json!([{
                "number": 3,
                "sample": "printer to a colleague",
                "well": false,
                "left_out": null,
                "acts": [{
                    "answer": "250 2.0.0 Ok: queued as X",
                    "exchange": { "tenant": "contoso", "internal": true, "because": "promoted" },
                    "outside": false,
                    "faults": ["first", "late"],
                }],
            }, {
                "number": null,
                "sample": "no TLS",
                "well": true,
                "left_out": "needs a connector listener",
                "acts": [],
            }])
        );
    }
}
