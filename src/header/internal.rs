//! How does Exchange learn that an application's mail is internal? By what a hybrid server would stamp (product.md 4).

use super::examine;
use crate::mail::Domain;

/// The internal stamp: whole fields, for copies that go to accepted domains over the tenant's own inbound connector.
///
/// Exchange promotes the CrossPremises fields only from a connector with CloudServicesMailEnabled that our certificate
/// matches; anywhere else they would be removed or, worse, tell an outsider what we are. `AuthMechanism: 10` is what
/// Exchange servers write for a message that another server of the organisation vouches for.
#[must_use]
pub fn internal_stamp(hostname: &str, org: &Domain) -> Vec<u8> {
    format!(
        "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n\
         X-MS-Exchange-CrossPremises-AuthMechanism: 10\r\n\
         X-MS-Exchange-CrossPremises-AuthSource: {hostname}\r\n\
         X-OriginatorOrg: {org}\r\n"
    )
    .into_bytes()
}

/// What stands on top of a message, but for its [`internal_stamp`]: towards Exchange without the certificate that would
/// make it true, where it would be taken away, or taken for a forgery.
#[must_use]
pub fn without_stamp(top: &[u8]) -> Vec<u8> {
    const STAMP: &[&str] = &[
        "X-MS-Exchange-CrossPremises-AuthAs",
        "X-MS-Exchange-CrossPremises-AuthMechanism",
        "X-MS-Exchange-CrossPremises-AuthSource",
        "X-OriginatorOrg",
    ];
    // Our own fields always read; did they not, less is better than a stamp.
    let Ok(examined) = examine(top) else {
        return Vec::new();
    };
    let mut out = Vec::with_capacity(top.len());
    let stamp = |name: &str| STAMP.iter().any(|own| own.eq_ignore_ascii_case(name));
    for field in examined.fields().filter(|field| !stamp(field.name())) {
        out.extend_from_slice(field.name().as_bytes());
        out.push(b':');
        out.extend_from_slice(field.value());
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_stamp_the_rest_of_the_top_stays_as_it_is() {
        let stamp = internal_stamp("h.contoso.com", &"contoso.com".parse().unwrap());
        let (above, below) = (
            b"Received: by h\r\n\tid 1; now\r\nX-Loop:  secret\r\n".as_slice(),
            b"Date: now\r\n".as_slice(),
        );
        let top = [above, &stamp, below].concat();
        assert_eq!(without_stamp(&top), [above, below].concat());
        assert_eq!(without_stamp(above), above);
        assert_eq!(without_stamp(b""), b"");
    }

    #[test]
    fn the_stamp_is_four_fields() {
        let stamp = internal_stamp("smarthost.contoso.com", &"contoso.com".parse().unwrap());
        let examined = examine(&stamp).unwrap();
        let fields: Vec<(String, String)> = examined
            .fields()
            .map(|field| {
                (
                    field.name().to_owned(),
                    String::from_utf8_lossy(&field.text()).into_owned(),
                )
            })
            .collect();
        let expected = [
            ("X-MS-Exchange-CrossPremises-AuthAs", "Internal"),
            ("X-MS-Exchange-CrossPremises-AuthMechanism", "10"),
            (
                "X-MS-Exchange-CrossPremises-AuthSource",
                "smarthost.contoso.com",
            ),
            ("X-OriginatorOrg", "contoso.com"),
        ];
        assert_eq!(
            fields,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
