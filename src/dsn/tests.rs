//! What people and programs read of a report.

use super::*;
use mail_parser::{MessageParser, MimeHeaders as _, PartType};

const NOW: u64 = 1_795_594_533;

fn recipient(address: &str, orcpt: Option<&str>) -> Recipient {
    Recipient {
        mailbox: address.parse().unwrap(),
        notify: None,
        orcpt: orcpt.map(Into::into),
    }
}

fn fate<'a>(recipient: &'a Recipient, status: Enhanced, reply: &'a str) -> Fate<'a> {
    Fate {
        recipient,
        status,
        reply,
        source: Source::NextHop(Some("contoso-com.mail.protection.outlook.com")),
        expired: false,
        retry_until: None,
    }
}

fn written(kind: Kind, to: &str, fates: &[Fate<'_>], returned: Returned) -> Vec<u8> {
    let report = Report {
        kind,
        hostname: "smarthost.contoso.com",
        from: &"postmaster@contoso.com".parse().unwrap(),
        to: &to.parse().unwrap(),
        id: "06BHC43PXW002".parse().unwrap(),
        original: "06BHC43PXW001".parse().unwrap(),
        message_id: Some("<1@contoso.com>"),
        envid: Some("QQ+3D314159"),
        arrived: NOW - 3600,
        now: NOW,
        boundary: "=_boundary",
        fates,
        returned,
    };
    report.write()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
}

#[test]
fn a_failure_report_as_it_is_read() {
    let bob = recipient("bob@contoso.com", Some("rfc822;robert+2Bx@contoso.com"));
    let carol = recipient("carol@contoso.com", None);
    let expired = Fate {
        expired: true,
        source: Source::Ours,
        ..fate(
            &carol,
            (4, 4, 1),
            "contoso-com.mail.protection.outlook.com: no answer in time",
        )
    };
    let fates = [
        fate(
            &bob,
            (5, 1, 10),
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound",
        ),
        expired,
    ];
    let header = b"From: ada@contoso.com\r\nSubject: hello\r\n".to_vec();
    let report = written(
        Kind::Failed,
        "ada@contoso.com",
        &fates,
        Returned::Header(header),
    );
    insta::assert_snapshot!(text(&report), @r#"
    From: Mail Delivery System <postmaster@contoso.com>
    To: <ada@contoso.com>
    Subject: Undelivered mail returned to sender
    Date: Wed, 25 Nov 2026 08:15:33 +0000
    Message-ID: <06BHC43PXW002@smarthost.contoso.com>
    In-Reply-To: <1@contoso.com>
    Auto-Submitted: auto-replied
    MIME-Version: 1.0
    Content-Type: multipart/report; report-type=delivery-status;
    	boundary="=_boundary"
    Content-Transfer-Encoding: 7bit

    This is a delivery report in MIME format (RFC 3464).
    --=_boundary
    Content-Type: text/plain; charset=us-ascii
    Content-Transfer-Encoding: 7bit

    This is the mail gateway smarthost.contoso.com.

    Your message could not be delivered to the recipients below. It has been
    given up for them; for recipients that are not named nothing changes.

    <bob@contoso.com>
      contoso-com.mail.protection.outlook.com refused it:
      550 5.1.10 RESOLVER.ADR.RecipientNotFound
      What to do: check the address for typing errors. If it is right, the
      mailbox does not exist or takes no mail; ask the recipient in another way.

    <carol@contoso.com>
      It could not be delivered in time. What stood in the way last:
      contoso-com.mail.protection.outlook.com: no answer in time
      What to do: send it again later; if it fails again, tell your administrator
      what was said above.

    Your administrator finds the whole story with: gatepost trace 06BHC43PXW001
    The header of your message is attached.

    --=_boundary
    Content-Type: message/delivery-status
    Content-Transfer-Encoding: 7bit

    Original-Envelope-Id: QQ=314159
    Reporting-MTA: dns; smarthost.contoso.com
    Arrival-Date: Wed, 25 Nov 2026 07:15:33 +0000
    X-Gatepost-Queue-Id: 06BHC43PXW001

    Original-Recipient: rfc822; robert+x@contoso.com
    Final-Recipient: rfc822; bob@contoso.com
    Action: failed
    Status: 5.1.10
    Remote-MTA: dns; contoso-com.mail.protection.outlook.com
    Diagnostic-Code: smtp; 550 5.1.10 RESOLVER.ADR.RecipientNotFound
    Last-Attempt-Date: Wed, 25 Nov 2026 08:15:33 +0000

    Final-Recipient: rfc822; carol@contoso.com
    Action: failed
    Status: 4.4.7
    Diagnostic-Code: X-Gatepost; contoso-com.mail.protection.outlook.com: no answer in time
    Last-Attempt-Date: Wed, 25 Nov 2026 08:15:33 +0000

    --=_boundary
    Content-Type: text/rfc822-headers
    Content-Transfer-Encoding: 7bit

    From: ada@contoso.com
    Subject: hello

    --=_boundary--
    "#);
}

#[test]
fn a_delay_notice_as_it_is_read() {
    let bob = recipient("bob@contoso.com", None);
    let held = Fate {
        retry_until: Some(NOW + 86_400),
        ..fate(
            &bob,
            (5, 7, 133),
            "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup",
        )
    };
    let report = written(Kind::Delayed, "ada@contoso.com", &[held], Returned::Nothing);
    insta::assert_snapshot!(text(&report), @r#"
    From: Mail Delivery System <postmaster@contoso.com>
    To: <ada@contoso.com>
    Subject: Delayed mail, still being tried
    Date: Wed, 25 Nov 2026 08:15:33 +0000
    Message-ID: <06BHC43PXW002@smarthost.contoso.com>
    In-Reply-To: <1@contoso.com>
    Auto-Submitted: auto-replied
    MIME-Version: 1.0
    Content-Type: multipart/report; report-type=delivery-status;
    	boundary="=_boundary"
    Content-Transfer-Encoding: 7bit

    This is a delivery report in MIME format (RFC 3464).
    --=_boundary
    Content-Type: text/plain; charset=us-ascii
    Content-Transfer-Encoding: 7bit

    This is the mail gateway smarthost.contoso.com.

    Your message has not been delivered to the recipients below yet. It is
    still being tried; there is no need to send it again.

    <bob@contoso.com>
      contoso-com.mail.protection.outlook.com did not take it:
      550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup
      It is tried until Thu, 26 Nov 2026 08:15:33 +0000.

    Your administrator finds the whole story with: gatepost trace 06BHC43PXW001
    The message itself could not be read back, so none of it is shown.

    --=_boundary
    Content-Type: message/delivery-status
    Content-Transfer-Encoding: 7bit

    Original-Envelope-Id: QQ=314159
    Reporting-MTA: dns; smarthost.contoso.com
    Arrival-Date: Wed, 25 Nov 2026 07:15:33 +0000
    X-Gatepost-Queue-Id: 06BHC43PXW001

    Final-Recipient: rfc822; bob@contoso.com
    Action: delayed
    Status: 4.7.133
    Remote-MTA: dns; contoso-com.mail.protection.outlook.com
    Diagnostic-Code: smtp; 550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup
    Will-Retry-Until: Thu, 26 Nov 2026 08:15:33 +0000

    --=_boundary--
    "#);
}

#[test]
fn a_relayed_report_as_it_is_read() {
    let bob = recipient("bob@contoso.com", None);
    let fates = [fate(&bob, (2, 6, 0), "250 2.6.0 Queued mail for delivery")];
    let report = text(&written(
        Kind::Relayed,
        "ada@contoso.com",
        &fates,
        Returned::Nothing,
    ));
    let from = report.find("Final-Recipient").unwrap();
    insta::assert_snapshot!(&report[from..], @r"
    Final-Recipient: rfc822; bob@contoso.com
    Action: relayed
    Status: 2.6.0
    Remote-MTA: dns; contoso-com.mail.protection.outlook.com
    Diagnostic-Code: smtp; 250 2.6.0 Queued mail for delivery
    Last-Attempt-Date: Wed, 25 Nov 2026 08:15:33 +0000

    --=_boundary--
    ");
}

#[test]
fn a_parser_finds_three_parts_and_the_returned_message_byte_for_byte() {
    let bob = recipient("bob@contoso.com", None);
    let original = b"From: ada@contoso.com\r\nSubject: caf\xe9\r\n\r\n--not the boundary\r\n\x80 eight bit, no line end";
    let report = written(
        Kind::Failed,
        "ada@contoso.com",
        &[fate(&bob, (5, 1, 1), "550 5.1.1 no")],
        Returned::Whole(original.to_vec()),
    );
    assert!(memchr::memmem::find(&report, original).is_some());
    let parsed = MessageParser::default().parse(&report).unwrap();
    let kind = parsed.content_type().unwrap();
    assert_eq!(
        (kind.ctype(), kind.subtype()),
        ("multipart", Some("report"))
    );
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    assert_eq!(
        parsed.header_raw("Auto-Submitted").map(str::trim),
        Some("auto-replied")
    );
    let kinds: Vec<String> = parsed.parts[1..]
        .iter()
        .filter_map(|part| part.content_type())
        .map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap()))
        .collect();
    assert_eq!(
        kinds,
        ["text/plain", "message/delivery-status", "message/rfc822"]
    );
    let PartType::Message(returned) = &parsed.parts[3].body else {
        panic!("{:?}", parsed.parts[3])
    };
    assert_eq!(
        returned.raw_message(),
        &report
            [parsed.parts[3].raw_body_offset() as usize..parsed.parts[3].raw_end_offset() as usize]
    );
    assert_eq!(
        returned.from().unwrap().first().unwrap().address(),
        Some("ada@contoso.com")
    );
    assert!(
        text(
            &report
                .iter()
                .copied()
                .filter(u8::is_ascii)
                .collect::<Vec<_>>()
        )
        .contains("Content-Transfer-Encoding: 8bit")
    );
}

#[test]
fn an_ascii_reader_gets_ascii_fields_and_another_gets_his_own_letters() {
    let bob = recipient("jürgen@contoso.com", Some("utf-8;j\\x{FC}rgen@contoso.com"));
    let fates = [fate(&bob, (5, 6, 7), "553 5.6.7 no SMTPUTF8")];
    let header = || Returned::Header("Subject: grüße\r\n".as_bytes().to_vec());
    let plain = text(&written(Kind::Failed, "ada@contoso.com", &fates, header()));
    assert!(
        plain.contains("Content-Type: message/delivery-status\n"),
        "{plain}"
    );
    assert!(
        plain.contains("Final-Recipient: utf-8; j\\x{FC}rgen@contoso.com\n"),
        "{plain}"
    );
    assert!(
        plain.contains("Original-Recipient: utf-8; j\\x{FC}rgen@contoso.com\n"),
        "{plain}"
    );
    assert!(
        plain.contains("Content-Type: message/global-headers\n"),
        "{plain}"
    );
    let (own_fields, _) = plain.split_once("\n\n").unwrap();
    assert!(own_fields.is_ascii(), "{own_fields}");
    let global = text(&written(Kind::Failed, "änne@contoso.com", &fates, header()));
    assert!(
        global.contains("Content-Type: message/global-delivery-status\n"),
        "{global}"
    );
    assert!(
        global.contains("Final-Recipient: utf-8; jürgen@contoso.com\n"),
        "{global}"
    );
}

#[test]
fn hostile_words_stay_on_their_line() {
    let bob = recipient(
        "bob@contoso.com",
        Some("rfc822;a+0D+0ABcc:+20x@evil.example"),
    );
    let long = format!(
        "550 5.1.1 \r\n--=_boundary\r\nX-Injected: yes{}",
        "x".repeat(500)
    );
    let report = text(&written(
        Kind::Failed,
        "ada@contoso.com",
        &[fate(&bob, (5, 1, 1), &long)],
        Returned::Nothing,
    ));
    assert!(
        !report
            .lines()
            .any(|line| line.starts_with("X-Injected") || line.starts_with("Bcc"))
    );
    assert!(!report.contains("Original-Recipient"));
    assert_eq!(report.matches("\n--=_boundary").count(), 3, "{report}");
    assert!(report.lines().all(|line| line.len() < 300));
}

#[test]
fn who_gets_a_report_and_who_does_not() {
    let envelope = |sender: &str| Envelope {
        reverse_path: sender.parse().unwrap(),
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
    };
    let owner: Mailbox = "owner@contoso.com".parse().unwrap();
    let (printer, null) = (envelope("printer@contoso.com"), envelope(""));
    let to = |kind, envelope, owner| addressee(kind, envelope, owner).map(Mailbox::as_str);
    assert_eq!(
        to(Kind::Failed, &printer, None),
        Some("printer@contoso.com")
    );
    for kind in [Kind::Failed, Kind::Delayed] {
        assert_eq!(to(kind, &printer, Some(&owner)), Some("owner@contoso.com"));
        assert_eq!(
            to(kind, &null, Some(&owner)),
            None,
            "never a bounce of a bounce"
        );
    }
    assert_eq!(
        to(Kind::Relayed, &printer, Some(&owner)),
        Some("printer@contoso.com")
    );
}

#[test]
fn notify_decides() {
    let on = |success, failure, delay| {
        Some(Notify::On {
            success,
            failure,
            delay,
        })
    };
    let kinds = [Kind::Failed, Kind::Delayed, Kind::Relayed];
    for (notify, expected) in [
        (None, [true, true, false]),
        (Some(Notify::Never), [false, false, false]),
        (on(true, false, false), [false, false, true]),
        (on(false, true, false), [true, false, false]),
        (on(false, false, true), [false, true, false]),
    ] {
        assert_eq!(
            kinds.map(|kind| is_wanted(kind, notify)),
            expected,
            "{notify:?}"
        );
    }
}
