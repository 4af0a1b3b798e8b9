//! `gatepost certificate request`: a private key, and a certificate signing request for an authority.
//!
//! The key never leaves the machine. A file that is there is never overwritten: a key that an authority has signed for is
//! gone otherwise, and with it the certificate.

use super::Told;
use crate::cli::Trouble;
use crate::mail::DomainPattern;
use clap::Args;
use rcgen::{KeyPair, RsaKeySize, SignatureAlgorithm};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What is asked for.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The names, the most important first: an accepted domain of the tenant (or below one), the host name.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The folder for the two files.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// The kind of key.
    #[arg(long, value_enum, default_value = "ecdsa-p256")]
    key_type: KeyType,
}

/// Kinds of keys that public authorities sign and Exchange verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KeyType {
    /// Small and fast.
    EcdsaP256,
    EcdsaP384,
    /// For an authority that signs nothing else.
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
}

impl KeyType {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        let ecdsa = |algorithm: &'static SignatureAlgorithm| KeyPair::generate_for(algorithm);
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        match self {
            Self::EcdsaP256 => ecdsa(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => ecdsa(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
        }
    }
}

/// Makes both files.
pub(super) fn run(arguments: &Arguments, json: bool) -> Told {
    let names = names(&arguments.names)?;
    let first = names.first().map_or("", String::as_str);
    let stem = first.replacen("*.", "wildcard.", 1);
    let key_file = arguments.out.join(format!("{stem}.key"));
    let request_file = arguments.out.join(format!("{stem}.csr"));
    for file in [&key_file, &request_file] {
        if file.symlink_metadata().is_ok() {
            return Err(Trouble::Use(format!(
                "{}: is there already, and nothing is overwritten: choose another folder with --out, or move it away",
                file.display()
            )));
        }
    }
    let broken = |error: rcgen::Error| Trouble::Use(format!("no request can be made: {error}"));
    let key = arguments.key_type.generate().map_err(broken)?;
    let request = crate::acme::request(&names, &key).and_then(|request| request.pem());
    let request = request.map_err(broken)?;
    write_new(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
    write_new(&request_file, request.as_bytes(), 0o644)?;
    let (key_file, request_file) = (key_file.display(), request_file.display());
    let text = if json {
        let facts = serde_json::json!({
            "key": key_file.to_string(),
            "request": request_file.to_string(),
            "names": names,
        });
        format!("{facts:#}\n")
    } else {
        format!(
            "{key_file}: the private key, for you alone\n{request_file}: the request for {}, for the authority\n\
             Of what comes back: the certificate first, then every intermediate, in one file. Try it before it is used:\n    \
             gatepost certificate show --chain FILE --key {key_file}\n",
            names.join(", ")
        )
    };
    Ok((true, text))
}

/// The names as A-labels, in lower case, each once.
fn names(given: &[String]) -> Result<Vec<String>, Trouble> {
    let mut names: Vec<String> = Vec::new();
    for text in given {
        let fault = |why: &str| Trouble::Use(format!("{text:?}: {why}"));
        let pattern: DomainPattern = text
            .parse()
            .map_err(|error: crate::mail::DomainError| fault(&error.to_string()))?;
        let domain = pattern.domain().as_str();
        let is_address = domain.starts_with('[') || domain.parse::<std::net::IpAddr>().is_ok();
        if is_address || !domain.contains('.') {
            return Err(fault("must be a full domain name, such as contoso.com"));
        }
        let name = pattern.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Writes a file that was not there, to the disk.
pub(super) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Trouble> {
    let failed = |error: std::io::Error| Trouble::Use(format!("{}: {error}", path.display()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file: File = options.open(path).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateSigningRequestDer;
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;

    fn asked(names: &[&str], out: &Path, key_type: KeyType) -> Told {
        let arguments = Arguments {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            out: out.to_owned(),
            key_type,
        };
        run(&arguments, false)
    }

    fn refused(told: Told) -> String {
        match told {
            Err(Trouble::Use(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_names_everything_and_its_key_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "Contoso.com",
            "smarthost.contoso.com",
            "bücher.example",
            "contoso.com",
        ];
        let (well, text) = asked(&names, folder.path(), KeyType::EcdsaP256).unwrap();
        assert!(well && text.contains("contoso.com.csr"), "{text}");
        let key = folder.path().join("contoso.com.key");
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap();
        let pem = std::fs::read(folder.path().join("contoso.com.csr")).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(&pem).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject.to_string(), "CN=contoso.com");
        assert_eq!(
            &*info.subject_pki.subject_public_key.data,
            rcgen::PublicKeyData::der_bytes(&key)
        );
        let asked: Vec<String> = request
            .requested_extensions()
            .unwrap()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .map(|name| match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted = [
            "contoso.com",
            "smarthost.contoso.com",
            "xn--bcher-kva.example",
        ];
        assert_eq!(asked, wanted);
    }

    /// The other implementation that is everywhere.
    #[test]
    fn openssl_verifies_the_request_of_every_kind_of_key() {
        let folder = tempfile::tempdir().unwrap();
        for (name, key_type, shown) in [
            ("*.contoso.com", KeyType::EcdsaP256, "256 bit"),
            ("b.contoso.com", KeyType::EcdsaP384, "384 bit"),
            ("c.contoso.com", KeyType::Rsa2048, "2048 bit"),
        ] {
            asked(&[name], folder.path(), key_type).unwrap();
            let file = name.replace("*.", "wildcard.") + ".csr";
            let output = std::process::Command::new("openssl")
                .args(["req", "-verify", "-noout", "-text", "-in"])
                .arg(folder.path().join(file))
                .output();
            let Ok(output) = output else {
                eprintln!("skipped: openssl is not installed");
                return;
            };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{output:?}");
            assert!(
                said.contains(&format!("DNS:{name}")) && said.contains(shown),
                "{said}"
            );
            let verified = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
            assert!(verified.contains("ok"), "{verified}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_half_a_pair_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["contoso.com.key", "contoso.com.csr"] {
            let path = folder.path().join(file);
            std::fs::write(&path, "mine").unwrap();
            let why = refused(asked(&["contoso.com"], folder.path(), KeyType::EcdsaP256));
            assert!(why.contains(file), "{why}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_no_authority_signs_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "",
            "contoso",
            "192.0.2.1",
            "[192.0.2.1]",
            "a b.example",
            "*",
            "../x.example",
        ] {
            refused(asked(
                &["contoso.com", name],
                folder.path(),
                KeyType::EcdsaP256,
            ));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = folder.path().join("missing");
        refused(asked(&["contoso.com"], &missing, KeyType::EcdsaP256));
    }
}
