use super::super::super::samples::{Expect, Player, rows, tests::cast};
use super::super::super::{Attribution, By, ClientIdentity, Dialogue, RecipientSeen, border};
use super::*;
use std::sync::Arc;

/// What a smart host that does right would deliver for an act.
fn delivered(act: &Act) -> (Received, Taken) {
    let Expect::Taken(taken) = &act.expect else { panic!("must be taken") };
    let organization = cast().organizations.into_iter().find(|one| one.name == taken.tenant).unwrap();
    let attribution = Attribution { organization: Arc::new(organization), by: By::Certificate };
    let mut top = b"Received: from somewhere by smarthost.contoso.com with ESMTPS id x\r\n\tfolded; now\r\n".to_vec();
    let (name, value) = taken.loop_header.as_ref().unwrap();
    top.extend([name.as_bytes(), b": ", value.expose(), b"\r\n"].concat());
    let mut parameters = taken.parameters.clone();
    if taken.stamped {
        top.extend(
            b"X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-MS-Exchange-CrossPremises-AuthMechanism: 10\r\n\
            X-MS-Exchange-CrossPremises-AuthSource: smarthost.contoso.com\r\nX-OriginatorOrg: contoso.com\r\n",
        );
        parameters.push("XOORG=contoso.com".to_owned());
    }
    if taken.completed {
        top.extend(b"Date: now\r\nMessage-ID: <x@y>\r\n");
    }
    let content = [top.as_slice(), &taken.bytes].concat();
    parameters.push(format!("SIZE={}", content.len()));
    let seen = |recipient: &String| {
        let (address, given) = recipient.split_once("> ").unwrap_or((recipient, ""));
        RecipientSeen {
            address: address.to_owned(),
            parameters: given.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            attribution: attribution.clone(),
        }
    };
    let received = Received {
        connection: 1,
        position: 1,
        peer: "127.0.0.1:1".parse().unwrap(),
        helo: "smarthost.contoso.com".to_owned(),
        tls: None,
        identity: ClientIdentity::Trusted { names: vec!["contoso.com".to_owned()] },
        sender: taken.sender.clone(),
        parameters,
        recipients: taken.recipients.iter().map(seen).collect(),
        transfer: Transfer::Chunks(1),
        entry: border::enter(&attribution, &content),
        content,
        reply: String::new(),
        dialogue: Dialogue::default(),
    };
    (received, taken.clone())
}

fn found(act: &Act, change: impl FnOnce(&mut Received)) -> Vec<String> {
    let (mut received, taken) = delivered(act);
    change(&mut received);
    faults(&received, &taken, act, "smarthost.contoso.com")
}

fn act(row: &str) -> Act {
    rows(&cast()).iter().find(|one| one.name == row).unwrap().acts[0].clone()
}

#[test]
fn what_a_faithful_smart_host_delivers_has_no_fault() {
    for row in rows(&cast()) {
        for act in &row.acts {
            if matches!(act.expect, Expect::Taken(_)) {
                assert_eq!(found(act, |_| ()), Vec::<String>::new(), "{}", row.name);
            }
        }
    }
}

#[test]
fn every_departure_is_a_fault() {
    let user = act("group post, four recipients");
    let one = |change: &dyn Fn(&mut Received)| found(&user, change).join("; ");
    assert!(one(&|received| received.content.push(b'\n')).contains("bytes differ"));
    assert!(one(&|received| { received.content.pop(); }).contains("bytes differ"));
    assert!(one(&|received| { received.content.splice(0..0, *b"X-Extra: 1\r\n"); }).contains("X-Extra was added"));
    assert!(one(&|received| { received.content.splice(0..0, *b"Received: x\r\n"); }).contains("Received was added 2 times"));
    assert!(one(&|received| received.sender.clear()).contains("envelope sender"));
    assert!(one(&|received| { received.recipients.pop(); }).contains("recipients must be"));
    assert!(one(&|received| received.recipients[2].parameters.clear()).contains("recipients must be"));
    assert!(one(&|received| received.parameters.retain(|given| !given.starts_with("ENVID"))).contains("ENVID"));
    assert!(one(&|received| received.parameters.push("SIZE=1".to_owned())).is_empty());
    assert!(one(&|received| received.parameters.insert(0, "SIZE=1".to_owned())).contains("SIZE= said 1"));
    assert!(one(&|received| received.transfer = Transfer::Data).contains("BDAT"));
    assert!(one(&|received| received.entry.internal = false).contains("must be internal"));
    let secret = found(&user, |received| {
        let end = received.content.len() - crate::lab::fields::Section::of(&received.content).rest().len();
        received.content.splice(end..end, *b"X-Gate: contoso-gate\r\n");
    });
    assert!(secret.join("; ").contains("bytes differ"));
}

#[test]
fn stamps_and_completions_are_demanded_and_forbidden() {
    let without = |received: &mut Received, name: &str| {
        received.content = Section::of(&received.content).rewrite(|field, bytes| (!field.is(name)).then(|| bytes.to_vec()));
    };
    let printer = act("printer to a colleague");
    let faults = found(&printer, |received| without(received, "X-MS-Exchange-CrossPremises-AuthAs")).join("; ");
    assert!(faults.contains("AuthAs must be added"), "{faults}");
    let faults = found(&printer, |received| received.parameters.clear()).join("; ");
    assert!(faults.contains("XOORG=contoso.com"), "{faults}");
    let device = act("old device without login or TLS");
    let faults = found(&device, |received| without(received, "Message-ID")).join("; ");
    assert!(faults.contains("Message-ID must be added"), "{faults}");
    let faults = found(&act("forged application"), |received| {
        received.content.splice(0..0, *b"X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n");
    });
    assert!(faults.join("; ").contains("CrossPremises-AuthAs was added"), "{faults:?}");
    let mut hidden = printer.clone();
    if let Player::Application { actor, .. } = &mut hidden.player {
        actor.source = Some("127.0.50.7".parse().unwrap());
    }
    let faults = found(&hidden, |received| {
        let text = String::from_utf8_lossy(&received.content).replacen("somewhere", "[127.0.50.7]", 1);
        received.content = text.into_bytes();
    });
    assert!(faults.join("; ").contains("not its address"), "{faults:?}");
}
