//! A report of several recipients: each reply once, with those whom it is about, the worst first.

use super::explained;
use crate::dialogue::{Alarm, Explanation, NextHop, Outcome, Phase, Reach, SaidFor};

/// An explanation and its recipients, as far as the text names them.
pub(super) struct Each {
    pub(super) told: Explanation,
    pub(super) recipients: Vec<String>,
}

/// # Errors
/// One of them is no reply that decides anything.
pub(super) fn explained_each(
    all: &[SaidFor],
    next_hop: Option<NextHop>,
    phase: Option<Phase>,
) -> Result<Vec<Each>, String> {
    let mut each: Vec<Each> = Vec::new();
    for own in all {
        let told = explained(&own.said, next_hop, phase)?;
        let same = each.iter_mut().find(|other| {
            let (one, other) = (&told, &other.told);
            (one.reply.code, one.reply.enhanced) == (other.reply.code, other.reply.enhanced)
                && one.meaning == other.meaning
                && one.advice == other.advice
        });
        let recipient = own.recipient.iter().cloned();
        match same {
            Some(same) => same.recipients.extend(recipient),
            None => each.push(Each {
                told,
                recipients: recipient.collect(),
            }),
        }
    }
    each.sort_by_key(|own| rank(&own.told));
    Ok(each)
}

/// What concerns most mail first, then what is lost, then what an administrator hears of.
fn rank(told: &Explanation) -> (u8, bool) {
    let outcome = match told.outcome {
        Outcome::Held(Reach::Tenant) => 0,
        Outcome::Held(Reach::Recipient) => 1,
        Outcome::Failed => 2,
        Outcome::Deferred(_) => 3,
        Outcome::Delivered => 4,
    };
    (outcome, told.alarm == Alarm::Never)
}
