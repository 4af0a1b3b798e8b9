//! What Windows PowerShell 5.1, or the .NET Framework under it, does not have.

use super::text::{row, slice};
use tree_sitter::Node;

/// Variables of PowerShell 6 and later.
const VARIABLES: [&str; 8] = [
    "enabledexperimentalfeatures",
    "iscoreclr",
    "islinux",
    "ismacos",
    "iswindows",
    "psnativecommandargumentpassing",
    "psnativecommanduseerroractionpreference",
    "psstyle",
];

/// Static members that came with .NET Core: the type's last name, the beginning of the member's.
const MEMBERS: [(&str, &str); 19] = [
    ("convert", "fromhexstring"),
    ("convert", "tohexstring"),
    ("datetime", "unixepoch"),
    ("datetimeoffset", "unixepoch"),
    ("encoding", "latin1"),
    ("environment", "processid"),
    ("environment", "processpath"),
    ("environment", "tickcount64"),
    ("file", "createsymboliclink"),
    ("file", "getunixfilemode"),
    ("file", "openhandle"),
    ("file", "setunixfilemode"),
    ("math", "clamp"),
    ("path", "endsindirectoryseparator"),
    ("path", "getrelativepath"),
    ("path", "join"),
    ("sha256", "hashdata"),
    ("sha512", "hashdata"),
    ("string", "create"),
];

/// What is newer than 5.1 about one node of a script.
pub(super) fn finding(name: &str, node: Node<'_>, text: &str) -> Option<String> {
    let written = slice(node, text);
    let what = match node.kind() {
        "ternary_expression" | "ternary_argument_expression" => "a ? b : c".to_owned(),
        "null_coalesce_expression" | "null_coalesce_argument_expression" => "??".to_owned(),
        "assignment_operator" if written == "??=" => "??=".to_owned(),
        "pipeline_chain_tail" => written.to_owned(),
        "block_name" if written.eq_ignore_ascii_case("clean") => "clean {}".to_owned(),
        "variable" => {
            let bare = written.trim_matches(['$', '@', '{', '}']).to_lowercase();
            if !VARIABLES.contains(&bare.as_str()) {
                return None;
            }
            written.to_owned()
        }
        "integer_literal" | "real_literal" if is_new_number(written) => written.to_owned(),
        "string_literal" | "generic_token" => {
            let bare = written.trim_matches(['\'', '"']).to_lowercase();
            if !matches!(bare.as_str(), "utf8bom" | "utf8nobom") {
                return None;
            }
            written.to_owned()
        }
        "member_access" | "invocation_expression" if written.contains("::") => {
            let (type_name, member) = written.split_once("::")?;
            let type_name = type_name.trim_matches(['[', ']']).rsplit('.').next()?;
            let (type_name, member) = (type_name.to_lowercase(), member.to_lowercase());
            let mut members = MEMBERS.iter();
            members.find(|(owner, start)| *owner == type_name && member.starts_with(start))?;
            written.to_owned()
        }
        _ => return None,
    };
    Some(format!("{name}:{}: {what} is not in 5.1", row(node)))
}

/// A suffix or a base of PowerShell 7: `1u`, `2n`, `0b1`.
fn is_new_number(written: &str) -> bool {
    let written = written.to_lowercase();
    if written.starts_with("0x") {
        return false;
    }
    let bare = ["kb", "mb", "gb", "tb", "pb"]
        .iter()
        .find_map(|unit| written.strip_suffix(unit))
        .unwrap_or(&written);
    bare.starts_with("0b")
        || ["u", "y", "s", "n", "ul", "us", "uy"]
            .iter()
            .any(|end| bare.ends_with(end))
}
