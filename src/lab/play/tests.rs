use super::super::samples::rows;
use super::double::{Flaw, scene};
use super::*;

/// The names of the rows that failed, with their faults.
async fn failures(flaw: Flaw) -> Vec<(&'static str, String)> {
    let scene = scene(flaw).await;
    let rows = rows(&scene.cast);
    let mut count = 0;
    let story = play(&scene, &rows, |_| count += 1).await;
    assert_eq!(count, rows.len());
    let faults = |told: &Told| {
        let every = told
            .acts
            .iter()
            .flat_map(|act| act.faults.iter().chain(&act.afterwards));
        every.cloned().collect::<Vec<_>>().join("; ")
    };
    story
        .iter()
        .filter(|told| !told.well())
        .map(|told| (told.name, faults(told)))
        .collect()
}

async fn fails(flaw: Flaw, row: &str, fault: &str) {
    let failures = failures(flaw).await;
    let found = failures.iter().find(|(name, _)| *name == row);
    assert!(
        found.is_some_and(|(_, faults)| faults.contains(fault)),
        "{flaw:?}: {failures:#?}"
    );
}

#[tokio::test]
async fn a_faithful_smart_host_passes_every_sample() {
    assert_eq!(failures(Flaw::None).await, Vec::<(&str, String)>::new());
}

#[tokio::test]
async fn flaws_in_what_must_get_through_are_found() {
    fails(Flaw::KeepsSecret, "user to user", "bytes differ").await;
    fails(Flaw::TrimsBody, "user to user", "bytes differ").await;
    fails(
        Flaw::ForgetsStamp,
        "printer to a colleague",
        "must be internal",
    )
    .await;
    fails(
        Flaw::StampsEveryone,
        "application that is not internal",
        "must not be internal",
    )
    .await;
    fails(
        Flaw::OneConnectionForAll,
        "several tenants on one connection",
        "must be attributed to fabrikam",
    )
    .await;
    fails(
        Flaw::OneCertificateForAll,
        "several tenants on one connection",
        "must be attributed to fabrikam",
    )
    .await;
    fails(Flaw::DeliversTwice, "user to user", "more than once").await;
    let over_mx = "user to outside over mx, nothing leaked";
    fails(Flaw::LeaksOutside, over_mx, "X-Round leaked").await;
    fails(Flaw::DeliversTwice, over_mx, "outside more than once").await;
    fails(
        Flaw::KeepsOutsideMailInside,
        over_mx,
        "did not arrive outside",
    )
    .await;
}

#[tokio::test]
async fn flaws_in_what_must_be_kept_out_are_found() {
    fails(Flaw::TrustsAnyTenant, "hostile tenant, XOORG", "550 5.7.64").await;
    fails(Flaw::TrustsAnyTenant, "wrong secret header", "550 5.7.1").await;
    fails(
        Flaw::TrustsAnyPeer,
        "right name, self-made authority",
        "451 4.7.1",
    )
    .await;
    fails(Flaw::TrustsAnyPeer, "neither", "550 5.7.1").await;
    fails(
        Flaw::KeepsForgeries,
        "forged application",
        "must not be internal",
    )
    .await;
    fails(
        Flaw::ReadsBareLineFeeds,
        "smuggling over the connector",
        "hidden command was obeyed",
    )
    .await;
    fails(
        Flaw::AnswersInjection,
        "command injected behind STARTTLS",
        "must be dropped",
    )
    .await;
    fails(
        Flaw::DeliversWhatItRefuses,
        "mail that went round already",
        "though it was refused",
    )
    .await;
}
