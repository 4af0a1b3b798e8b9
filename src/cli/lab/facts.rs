//! `gatepost lab --json`: what the story tells, for a script that rehearses a configuration.

use crate::lab::play::Told;
use serde_json::{Value, json};

/// An element for each row.
pub(super) fn array(story: &[Told]) -> Value {
    story.iter().map(row).collect()
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
        assert_eq!(
            array(&[told]),
            json!([{
                "number": 3,
                "sample": "printer to a colleague",
                "well": false,
                "acts": [{
                    "answer": "250 2.0.0 Ok: queued as X",
                    "exchange": { "tenant": "contoso", "internal": true, "because": "promoted" },
                    "outside": false,
                    "faults": ["first", "late"],
                }],
            }])
        );
    }
}
