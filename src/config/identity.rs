//! Is a `[[certificate]]` usable: readable, complete, in order, and does the key belong to it?

use super::pem;
use crate::trust::certificate::{Leaf, Unreadable};
use crate::trust::chain::Chain;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No chain or key is larger; a device file that never ends is.
const LARGEST_FILE: u64 = 1024 * 1024;

/// A chain as a file holds it, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) leaf: Leaf,
    pub(super) chain: Chain,
}

/// A PEM file as bytes, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > LARGEST_FILE {
        Err(cannot("larger than 1 MiB".to_owned()))
    } else {
        Ok(bytes)
    }
}

/// Every certificate of a PEM file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    match pem::certificates(&bytes) {
        Ok(list) if list.is_empty() => Err(format!(
            "{} holds no certificate in PEM form",
            path.display()
        )),
        Ok(list) => Ok(list),
        Err(why) => Err(format!("{} {why}", path.display())),
    }
}

/// The chain of a PEM file.
pub(super) fn chain(path: &Path) -> Result<Loaded, String> {
    let certificates = certificates(path)?;
    let unreadable = |(index, why): (usize, Unreadable)| {
        format!("certificate {} of {} is {why}", index + 1, path.display())
    };
    let chain = Chain::read(&certificates).map_err(unreadable)?;
    let leaf = certificates.first().ok_or((0, Unreadable));
    let leaf = leaf.and_then(|leaf| Leaf::read(leaf).map_err(|why| (0, why)));
    Ok(Loaded {
        leaf: leaf.map_err(unreadable)?,
        certificates,
        chain,
    })
}

/// The private key of a PEM file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path)?;
    pem::key(&bytes).ok_or_else(|| {
        format!(
            "{} holds no private key in PEM form (or an encrypted one)",
            path.display()
        )
    })
}

/// What keeps a key from serving its chain.
pub(super) fn key_fault(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Option<String> {
    let Ok(loaded) = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key.clone_key())
    else {
        return Some("a kind of private key that TLS cannot use here".to_owned());
    };
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], loaded.clone()).keys_match()
    };
    match chain.first().map(belongs) {
        Some(Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown))) => None,
        Some(Err(Error::InconsistentKeys(_))) => {
            let elsewhere = chain
                .iter()
                .position(|certificate| belongs(certificate).is_ok());
            Some(match elsewhere {
                Some(index) => format!(
                    "belongs to certificate {} of the chain: the leaf must stand first",
                    index + 1
                ),
                None => "does not belong to the certificate".to_owned(),
            })
        }
        Some(Err(error)) => Some(format!("cannot be used with the certificate: {error}")),
        None => Some("has no certificate".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls_pki_types::pem::PemObject as _;

    fn leaf_and_authority(names: &[&str]) -> (String, String, KeyPair) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Test Authority");
        let authority_key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::from_params(&params, &authority_key);
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "cn.contoso.com");
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        (leaf.pem(), authority.pem(), key)
    }

    fn written(content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn the_common_name_counts_only_where_there_is_no_alternative_name() {
        let (leaf, _, _) = leaf_and_authority(&["a.contoso.com", "*.contoso.com"]);
        let (folder, path) = written(&leaf);
        assert_eq!(
            chain(&path).unwrap().leaf.names,
            ["a.contoso.com", "*.contoso.com"]
        );
        drop(folder);
        let (leaf, _, _) = leaf_and_authority(&[]);
        let (_folder, path) = written(&leaf);
        let read = chain(&path).unwrap().leaf;
        assert!(
            read.names.iter().any(|name| name == "cn.contoso.com"),
            "{:?}",
            read.names
        );
        assert!(read.not_before < read.not_after);
    }

    #[test]
    fn a_chain_out_of_order_is_told() {
        let (leaf, authority, key) = leaf_and_authority(&["a.contoso.com"]);
        let (_folder, path) = written(&format!("{leaf}{authority}"));
        let good = chain(&path).unwrap().chain;
        assert_eq!((good.disorder(), good.beyond()), (None, None));
        let (_folder, path) = written(&format!("{authority}{leaf}"));
        let turned = chain(&path).unwrap();
        assert!(turned.chain.disorder().unwrap().contains("certificate 2"));
        let (_folder, key_path) = written(&key.serialize_pem());
        let key = super::key(&key_path).unwrap();
        let fault = key_fault(&turned.certificates, &key).unwrap();
        assert!(
            fault.contains("certificate 2") && fault.contains("leaf must stand first"),
            "{fault}"
        );
        let (_folder, path) = written(&leaf);
        assert!(
            chain(&path)
                .unwrap()
                .chain
                .beyond()
                .unwrap()
                .1
                .contains("Test Authority")
        );
    }

    #[test]
    fn a_foreign_key_is_told() {
        let (leaf, _, key) = leaf_and_authority(&["a.contoso.com"]);
        let (_folder, path) = written(&leaf);
        let chain = chain(&path).unwrap();
        let own = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(key_fault(&chain.certificates, &own), None);
        let other = KeyPair::generate().unwrap().serialize_pem();
        let other = PrivateKeyDer::from_pem_slice(other.as_bytes()).unwrap();
        assert_eq!(
            key_fault(&chain.certificates, &other).as_deref(),
            Some("does not belong to the certificate")
        );
    }

    #[test]
    fn files_that_are_no_certificate_are_told() {
        for content in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let (_folder, path) = written(content);
            assert!(chain(&path).is_err(), "{content}");
            assert!(key(&path).is_err(), "{content}");
        }
    }
}
