//! What comes before SMTP: a balancer's header, a ClientHello, a certificate.

use super::naive;
use super::world::{now_of_certificates, runtime, world};
use gatepost::mail::Domain;
use gatepost::receive::{hello as receive_hello, proxy as receive_proxy};
use gatepost::trust::certificate::{self, ClientCertificate, Leaf};
use gatepost::trust::chain::Chain;
use gatepost::trust::presented::Presented;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::OnceLock;
use tokio::io::AsyncReadExt as _;

/// The first octet cuts. Not one octet behind the header is taken, however it arrives, and without an end none is there.
pub fn proxy(octets: &[u8]) {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(runtime);
    let Some((&cut, stream)) = octets.split_first() else {
        return;
    };
    let mut rest = stream;
    let whole = runtime.block_on(receive_proxy::read(&mut rest));
    let (first, second) = stream.split_at(usize::from(cut).min(stream.len()));
    let mut in_two = first.chain(second);
    let cut = runtime.block_on(receive_proxy::read(&mut in_two));
    assert_eq!(whole, cut);
    if whole.is_err() {
        return;
    }
    let header = &stream[..stream.len() - rest.len()];
    if header.starts_with(b"PROXY ") {
        assert!(header.ends_with(b"\r\n") && header.len() <= 107);
        assert_eq!(header.windows(2).filter(|pair| *pair == b"\r\n").count(), 1);
    } else {
        assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") && header.len() >= 16);
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(header.len(), 16 + length);
    }
    // Anything less is no header.
    if header.len() < 300 {
        for end in 0..header.len() {
            let mut short = &header[..end];
            assert!(runtime.block_on(receive_proxy::read(&mut short)).is_err());
        }
    }
}

/// What is told of a ClientHello is bounded and fit for a person.
pub fn hello(octets: &[u8]) {
    let Some(offered) = receive_hello::offered(octets) else {
        return;
    };
    let lists = [
        &offered.versions,
        &offered.suites,
        &offered.groups,
        &offered.signature_schemes,
    ];
    for name in lists.into_iter().flatten().chain(&offered.server_name) {
        assert!(name.is_ascii() && name.len() <= 200, "{name:?}");
        assert!(!name.contains(|c: char| c.is_ascii_control()), "{name:?}");
    }
    for list in lists {
        assert!(list.len() <= 129);
    }
}

/// A certificate in DER. Without a chain to the root nobody is verified, nor told to be; a name counts only as it stands there.
pub fn certificate(octets: &[u8]) {
    let presented = CertificateDer::from(octets);
    let settings = &world().settings;
    let names = &settings.exchange_online.client_certificate_names;
    let roots = &settings.exchange_online.client_certificate_roots;
    let genuine = certificates();
    for chain in [
        vec![presented.clone()],
        vec![presented.clone(), genuine[0].clone()],
    ] {
        let judged = certificate::judge(&chain, roots, names, now_of_certificates());
        let ours = genuine.iter().any(|own| own.as_ref() == octets);
        assert!(ours || !judged.is_verified(), "{judged:?}");
        // What an administrator is told of it.
        if let Ok(told) = Presented::read(&chain, roots, now_of_certificates()) {
            assert!(ours || told.fault.is_some(), "{told:?}");
            if let Some(above) = &told.above {
                assert!((2..=chain.len()).contains(&above.number));
                assert!(!above.subject.contains(char::is_control), "{above:?}");
            }
        }
        if let Ok(read) = Chain::read(&chain) {
            assert!(
                read.outside_dates(now_of_certificates())
                    .is_none_or(|(number, _)| number <= chain.len())
            );
        }
        if let ClientCertificate::Absent(why) = judged {
            let text = why.to_string();
            assert!(text.is_ascii() && text.len() < 300, "{text}");
        }
    }
    let mut chain = vec![genuine[0].clone(), presented.clone()];
    chain.extend(genuine.iter().skip(1).cloned());
    drop(certificate::judge(
        &chain,
        roots,
        names,
        now_of_certificates(),
    ));
    let Ok(leaf) = Leaf::read(&presented) else {
        return;
    };
    let wanted: [Domain; 2] =
        ["mail.protection.outlook.com", "contoso.com"].map(|name| name.parse().expect("a name"));
    for name in &leaf.names {
        assert!(
            naive::contains(octets, name.as_bytes()) || !name.is_ascii(),
            "{name:?} stands nowhere"
        );
        for domain in &wanted {
            let exact = name.eq_ignore_ascii_case(domain.as_str());
            let parent = domain
                .as_str()
                .split_once('.')
                .map(|(_, parent)| format!("*.{parent}"));
            let below = parent.is_some_and(|parent| name.eq_ignore_ascii_case(&parent));
            assert_eq!(
                certificate::name_covers(name, domain),
                exact || below,
                "{name:?} {domain}"
            );
        }
    }
}

/// Exchange's chain, as the world's roots have it.
fn certificates() -> &'static [CertificateDer<'static>] {
    static CHAIN: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let pem = std::fs::read(world().folder.join("exchange.pem")).expect("the chain");
        let chain = CertificateDer::pem_slice_iter(&pem);
        chain.collect::<Result<_, _>>().expect("PEM")
    })
}
