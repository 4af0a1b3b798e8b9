//! A small ACME authority (RFC 8555) for tests: directory, nonces, account, order, http-01 really fetched, finalize.
//!
//! It checks what a real one checks of each request: a nonce of its own, used once; the URL in the protected header; the
//! signature by the account's key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost::lab::certificates::{Authority, Issued, Leaf};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use x509_parser::prelude::FromDer as _;

/// What goes wrong, for as long as it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Each first try of a nonce is refused (RFC 8555 §6.5).
    BadNonces,
    /// newOrder answers 429.
    RateLimited,
    /// newOrder answers 500, in HTML.
    Broken,
    /// Signs for this name instead of what was asked.
    SignsFor(String),
}

struct Order {
    names: Vec<String>,
    /// Of each name: `pending`, `valid`, or `invalid` and why.
    authorizations: Vec<Result<bool, String>>,
    chain: Option<String>,
}

struct State {
    trouble: Trouble,
    nonces: HashSet<String>,
    made: u64,
    refused_nonce: bool,
    /// The JWKs of the accounts.
    accounts: Vec<Value>,
    orders: Vec<Order>,
}

/// The authority; ends with the test.
pub struct AcmeAuthority {
    pub directory: String,
    state: Arc<Mutex<State>>,
}

struct Shared {
    base: String,
    signer: Arc<Authority>,
    /// Where tokens are fetched, in the place of port 80 of each name.
    challenges: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl AcmeAuthority {
    /// Listens; under TLS where it is given a certificate.
    pub async fn start(
        signer: Arc<Authority>,
        challenges: SocketAddr,
        tls: Option<&Issued>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = match tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let state = Arc::new(Mutex::new(State {
            trouble: Trouble::None,
            nonces: HashSet::new(),
            made: 0,
            refused_nonce: false,
            accounts: Vec::new(),
            orders: Vec::new(),
        }));
        let shared = Arc::new(Shared {
            base: base.clone(),
            signer,
            challenges,
            state: Arc::clone(&state),
        });
        let acceptor = tls.map(|issued| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(issued.chain.clone(), issued.key.clone_key())
                .unwrap();
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(&shared, tcp).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(tcp).await {
                                serve(&shared, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            directory: format!("{base}/directory"),
            state,
        }
    }

    pub fn set(&self, trouble: Trouble) {
        self.state.lock().unwrap().trouble = trouble;
    }

    /// The number of accounts and of orders so far.
    pub fn seen(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.accounts.len(), state.orders.len())
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    kind: &'static str,
    body: String,
}

fn answer(status: u16, body: Value) -> Answer {
    Answer {
        status,
        location: None,
        kind: "application/json",
        body: body.to_string(),
    }
}

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    Answer {
        kind: "application/problem+json",
        ..answer(
            status,
            json!({ "type": kind, "detail": detail, "status": status }),
        )
    }
}

async fn serve(shared: &Shared, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Some((method, path, body)) = request(&mut stream).await else {
        return;
    };
    let answer = match (method.as_str(), path.as_str()) {
        ("GET", "/directory") => {
            let url = |path: &str| format!("{}/{path}", shared.base);
            answer(
                200,
                json!({ "newNonce": url("nonce"), "newAccount": url("account"),
                    "newOrder": url("order"), "revokeCert": url("revoke"), "keyChange": url("key") }),
            )
        }
        ("HEAD" | "GET", "/nonce") => answer(200, Value::Null),
        ("POST", path) => posted(shared, path, &body).await,
        _ => problem(404, "malformed", "no such thing"),
    };
    let nonce = {
        let mut state = shared.state.lock().unwrap();
        state.made += 1;
        let nonce = format!("nonce-{}", state.made);
        state.nonces.insert(nonce.clone());
        nonce
    };
    let location = answer.location.map(|url| format!("Location: {url}\r\n"));
    let body = if method == "HEAD" { "" } else { &answer.body };
    let text = format!(
        "HTTP/1.1 {} x\r\nContent-Type: {}\r\nReplay-Nonce: {nonce}\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        answer.status,
        answer.kind,
        location.unwrap_or_default(),
        body.len(),
    );
    stream.write_all(text.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, String, Vec<u8>)> {
    let mut input = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&input, b"\r\n\r\n") {
            let head = String::from_utf8(input[..end].to_vec()).unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().unwrap())
            });
            let all = end + 4 + length.unwrap_or(0);
            while input.len() < all {
                if stream.read_buf(&mut input).await.ok()? == 0 {
                    return None;
                }
            }
            return Some((method, path, input[end + 4..all].to_vec()));
        }
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

fn decoded(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
}

async fn posted(shared: &Shared, path: &str, body: &[u8]) -> Answer {
    let jws: Value = serde_json::from_slice(body).unwrap();
    let protected: Value = serde_json::from_slice(&decoded(&jws["protected"])).unwrap();
    let (jwk, account) = {
        let mut state = shared.state.lock().unwrap();
        let nonce = protected["nonce"].as_str().unwrap();
        let known = state.nonces.remove(nonce);
        if state.trouble == Trouble::BadNonces {
            state.refused_nonce = !state.refused_nonce;
        }
        if !known || state.trouble == Trouble::BadNonces && state.refused_nonce {
            return problem(400, "badNonce", "take another one");
        }
        if protected["url"] != format!("{}{path}", shared.base) {
            return problem(403, "unauthorized", "signed for another URL");
        }
        match protected["kid"].as_str() {
            Some(kid) => {
                let index = kid.rsplit('/').next().unwrap().parse::<usize>().unwrap();
                (state.accounts[index].clone(), index)
            }
            None => (protected["jwk"].clone(), usize::MAX),
        }
    };
    if !is_signed(&jws, &jwk) {
        return problem(403, "unauthorized", "the signature does not verify");
    }
    let payload = decoded(&jws["payload"]);
    let payload: Value = serde_json::from_slice(&payload).unwrap_or(Value::Null);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let number = |index: usize| parts[index].parse::<usize>().unwrap();
    match parts[0] {
        "account" => {
            assert_eq!(payload["termsOfServiceAgreed"], true);
            assert_eq!(payload["contact"], json!(["mailto:ops@contoso.com"]));
            let mut state = shared.state.lock().unwrap();
            state.accounts.push(jwk);
            let mut made = answer(201, json!({ "status": "valid" }));
            made.location = Some(format!("{}/acct/{}", shared.base, state.accounts.len() - 1));
            made
        }
        _ if account == usize::MAX => problem(400, "accountDoesNotExist", "who are you"),
        "order" if parts.len() == 1 => new_order(shared, &payload),
        "order" => order(shared, number(1), 200),
        "authz" => authorization(shared, number(1), number(2)),
        "chall" => {
            // A real one looks later, too: the client has to ask again.
            challenged(shared, number(1), number(2), &jwk).await;
            let url = format!("{}{path}", shared.base);
            let token = format!("token-{}-{}", parts[1], parts[2]);
            answer(
                200,
                json!({ "type": "http-01", "status": "processing", "token": token, "url": url }),
            )
        }
        "finalize" => finalize(shared, number(1), &decoded(&payload["csr"])),
        "cert" => {
            let state = shared.state.lock().unwrap();
            Answer {
                status: 200,
                location: None,
                kind: "application/pem-certificate-chain",
                body: state.orders[number(1)].chain.clone().unwrap(),
            }
        }
        _ => problem(404, "malformed", "no such thing"),
    }
}

/// ES256 (RFC 7518 §3.4): r and s, 32 octets each, which X.509's verifier wants as DER.
fn is_signed(jws: &Value, jwk: &Value) -> bool {
    let message = format!(
        "{}.{}",
        jws["protected"].as_str().unwrap(),
        jws["payload"].as_str().unwrap()
    );
    let signature = decoded(&jws["signature"]);
    let integer = |octets: &[u8]| {
        let start = octets.iter().position(|octet| *octet != 0).unwrap_or(31);
        let mut value = octets[start..].to_vec();
        if value[0] & 0x80 != 0 {
            value.insert(0, 0);
        }
        [&[2, u8::try_from(value.len()).unwrap()], &value[..]].concat()
    };
    let (r, s) = signature.split_at(32);
    let inner = [integer(r), integer(s)].concat();
    let der = [&[0x30, u8::try_from(inner.len()).unwrap()], &inner[..]].concat();
    let key = [&[4][..], &decoded(&jwk["x"]), &decoded(&jwk["y"])].concat();
    let algorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;
    algorithm
        .verify_signature(&key, message.as_bytes(), &der)
        .is_ok()
}

fn new_order(shared: &Shared, payload: &Value) -> Answer {
    let index = {
        let mut state = shared.state.lock().unwrap();
        match state.trouble {
            Trouble::RateLimited => {
                return problem(
                    429,
                    "rateLimited",
                    "too many certificates (5) already issued",
                );
            }
            Trouble::Broken => {
                return Answer {
                    status: 500,
                    location: None,
                    kind: "text/html",
                    body: "<h1>Down for maintenance</h1>".to_owned(),
                };
            }
            _ => {}
        }
        let identifiers = payload["identifiers"].as_array().unwrap().iter();
        let names: Vec<String> = identifiers
            .map(|one| one["value"].as_str().unwrap().to_owned())
            .collect();
        state.orders.push(Order {
            authorizations: names.iter().map(|_| Ok(false)).collect(),
            names,
            chain: None,
        });
        state.orders.len() - 1
    };
    let mut made = order(shared, index, 201);
    made.location = Some(format!("{}/order/{index}", shared.base));
    made
}

fn order(shared: &Shared, index: usize, status: u16) -> Answer {
    let state = shared.state.lock().unwrap();
    let order = &state.orders[index];
    let word = match &order.authorizations {
        _ if order.chain.is_some() => "valid",
        all if all.iter().any(Result::is_err) => "invalid",
        all if all.iter().all(|one| *one == Ok(true)) => "ready",
        _ => "pending",
    };
    let base = &shared.base;
    let authorizations: Vec<String> = (0..order.names.len())
        .map(|name| format!("{base}/authz/{index}/{name}"))
        .collect();
    let identifiers = order.names.iter();
    let identifiers: Vec<Value> = identifiers
        .map(|name| json!({ "type": "dns", "value": name }))
        .collect();
    let mut body = json!({ "status": word, "identifiers": identifiers, "authorizations": authorizations,
        "finalize": format!("{base}/finalize/{index}") });
    if order.chain.is_some() {
        body["certificate"] = format!("{base}/cert/{index}").into();
    }
    answer(status, body)
}

fn authorization(shared: &Shared, index: usize, name: usize) -> Answer {
    let state = shared.state.lock().unwrap();
    let order = &state.orders[index];
    let (status, error) = match &order.authorizations[name] {
        Ok(true) => ("valid", Value::Null),
        Ok(false) => ("pending", Value::Null),
        Err(why) => (
            "invalid",
            json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": why, "status": 403 }),
        ),
    };
    let mut challenge = json!({ "type": "http-01", "status": status, "token": format!("token-{index}-{name}"),
        "url": format!("{}/chall/{index}/{name}", shared.base) });
    if !error.is_null() {
        challenge["error"] = error;
    }
    answer(
        200,
        json!({ "status": status, "identifier": { "type": "dns", "value": order.names[name] },
            "challenges": [challenge] }),
    )
}

/// Fetches the token as a real one does, and compares it with the thumbprint of the account's key (RFC 8555 §8.1).
async fn challenged(shared: &Shared, index: usize, name: usize, jwk: &Value) {
    let token = format!("token-{index}-{name}");
    let canonical = format!(
        "{{\"crv\":{},\"kty\":{},\"x\":{},\"y\":{}}}",
        jwk["crv"], jwk["kty"], jwk["x"], jwk["y"]
    );
    let wanted = format!(
        "{token}.{}",
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    );
    let host = shared.state.lock().unwrap().orders[index].names[name].clone();
    let fetched = async {
        let mut stream = TcpStream::connect(shared.challenges).await?;
        let head =
            format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        std::io::Result::Ok(said)
    };
    let result = match fetched.await {
        Ok(said)
            if said.starts_with("HTTP/1.1 200 ")
                && said.ends_with(&format!("\r\n\r\n{wanted}")) =>
        {
            Ok(true)
        }
        Ok(said) => Err(format!("Invalid response: {said}")),
        Err(error) => Err(format!("Fetching the token: {error}")),
    };
    shared.state.lock().unwrap().orders[index].authorizations[name] = result;
}

struct Key(Vec<u8>);

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn finalize(shared: &Shared, index: usize, csr: &[u8]) -> Answer {
    let (_, request) =
        x509_parser::certification_request::X509CertificationRequest::from_der(csr).unwrap();
    let key = &request
        .certification_request_info
        .subject_pki
        .subject_public_key
        .data;
    {
        let mut state = shared.state.lock().unwrap();
        let trouble = state.trouble.clone();
        let order = &mut state.orders[index];
        if !order.authorizations.iter().all(|one| *one == Ok(true)) {
            return problem(403, "orderNotReady", "prove the names first");
        }
        let names = match trouble {
            Trouble::SignsFor(name) => vec![name],
            _ => order.names.clone(),
        };
        let leaf = names[1..]
            .iter()
            .fold(Leaf::named(&names[0]), |leaf, name| leaf.and(name));
        let leaf = leaf.server_auth_only();
        order.chain = Some(shared.signer.certify(&leaf, &Key(key.to_vec())).unwrap());
    }
    order(shared, index, 200)
}
