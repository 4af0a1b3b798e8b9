//! How does Exchange learn that an application's mail is internal? By what a hybrid server would stamp (product.md 4).

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

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::*;

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
