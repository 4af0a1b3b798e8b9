//! The commands' side of the admin API.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// Calls the API of a running server.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: crate::mail::Secret,
}

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers, or not in time.
    Unreachable(String),
    /// The server said no.
    Refused(u16, String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no running server answers at {why}"),
            Self::Refused(401, why) => write!(
                f,
                "the server does not take the token ({why}): is it of another configuration?"
            ),
            Self::Refused(status, why) => write!(f, "the server refused ({status}): {why}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// A client of the API at `address`.
    #[must_use]
    pub fn new(address: std::net::SocketAddr, token: crate::mail::Secret) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        // Listening everywhere includes here.
        let host = match address.ip() {
            ip if ip.is_unspecified() && ip.is_ipv4() => std::net::IpAddr::from([127, 0, 0, 1]),
            ip if ip.is_unspecified() => std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let base = format!(
            "http://{}/api",
            std::net::SocketAddr::new(host, address.port())
        );
        Self {
            agent: config.into(),
            base,
            token,
        }
    }

    /// GET with query parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let request = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("Authorization", self.bearer());
        let request = request.query_pairs(
            parameters
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        self.read(request.call())
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", self.bearer());
        self.read(request.send_json(body))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose_str())
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let unreachable =
            |error: ureq::Error| ClientError::Unreachable(format!("{}: {error}", self.base));
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.body_mut();
        if status == 200 {
            return body
                .with_config()
                .limit(256 * 1024 * 1024)
                .read_json()
                .map_err(unreachable);
        }
        let text = body.read_to_string().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let why = value
            .get("error")
            .and_then(serde_json::Value::as_str)
            .unwrap_or(&text)
            .to_owned();
        Err(ClientError::Refused(status, why))
    }
}
