//! The file that hands the secret values to the scripts: beside them, for its owner alone, in no sum and in no output.

use super::plan::{Header, Plan};
use crate::mail::Secret;
use serde_json::{Value, json};

/// Its name; the scripts look for it beside themselves.
pub const SECRETS_FILE: &str = "gatepost-secrets.json";

/// What a rendering before this one kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Whose values these are.
    pub tenant_id: String,
    /// The value of the secret header.
    pub secret: Option<Secret>,
    /// The value of the loop header.
    pub looped: Option<Secret>,
}

/// The file's content.
pub(super) fn write(plan: &Plan) -> String {
    let previous = |header: &Header| -> Vec<Value> {
        header
            .previous
            .iter()
            .map(|value| json!(value.expose_str()))
            .collect()
    };
    let value = match &plan.outward {
        Some(outward) => json!({
            "TenantId": plan.tenant_id,
            "SecretHeaderValue": outward.secret.value.expose_str(),
            "SecretHeaderPrevious": previous(&outward.secret),
            "LoopHeaderValue": outward.looped.value.expose_str(),
            "LoopHeaderPrevious": previous(&outward.looped),
        }),
        // Nothing is set by a rule. By the tenant's id the folder is known for an earlier rendering.
        None => json!({ "TenantId": plan.tenant_id }),
    };
    format!("{value:#}\n")
}

/// Reads one that was written before; `None` where it is no such file.
#[must_use]
pub fn read(content: &[u8]) -> Option<Kept> {
    // Notepad and Windows PowerShell put a mark before it.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let value: Value = serde_json::from_slice(content).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let secret = |key: &str| text(key).filter(|text| !text.is_empty()).map(Secret::new);
    Some(Kept {
        tenant_id: text("TenantId")?.to_owned(),
        secret: secret("SecretHeaderValue"),
        looped: secret("LoopHeaderValue"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_hides_no_value() {
        let plain = r#"{"TenantId":"t","SecretHeaderValue":"s"}"#;
        for text in [plain.to_owned(), format!("\u{feff}{plain}")] {
            let kept = read(text.as_bytes()).unwrap();
            assert_eq!(kept.tenant_id, "t");
            assert_eq!(kept.secret.unwrap().expose(), b"s");
        }
    }
}
