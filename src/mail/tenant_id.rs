//! Microsoft 365 tenant ids.

use std::fmt;
use std::str::FromStr;

/// The GUID of a tenant, as in `X-MS-Exchange-CrossTenant-Id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId([u8; 16]);

/// The text is not a GUID in its 36-character form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantIdError;

impl fmt::Display for TenantIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a tenant id (a GUID such as 11111111-2222-3333-4444-555555555555)")
    }
}

impl std::error::Error for TenantIdError {}

impl FromStr for TenantId {
    type Err = TenantIdError;

    fn from_str(text: &str) -> Result<Self, TenantIdError> {
        let groups = [8, 4, 4, 4, 12];
        let lengths = text.split('-').map(str::len);
        if !text.is_ascii() || !lengths.eq(groups) {
            return Err(TenantIdError);
        }
        let digits: Vec<u8> = text.bytes().filter(|&octet| octet != b'-').collect();
        let mut id = [0; 16];
        for (octet, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| TenantIdError)?;
            if pair.starts_with('+') {
                return Err(TenantIdError);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| TenantIdError)?;
        }
        Ok(Self(id))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guid_reads_back_in_lower_case() {
        let text = "3F1D2C9A-7b64-4e0f-9c1d-5a8e2b7f4c10";
        let id: TenantId = text.parse().unwrap();
        assert_eq!(id.to_string(), text.to_lowercase());
        for bad in [
            "",
            "3f1d2c9a7b644e0f9c1d5a8e2b7f4c10",
            "{3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10}",
            "3f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c1g",
            "+f1d2c9a-7b64-4e0f-9c1d-5a8e2b7f4c10",
        ] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
