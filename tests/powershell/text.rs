//! The text of the scripts, without a PowerShell: read by tree-sitter's grammar of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tree_sitter::{Node, Parser, Tree};

#[test]
fn dump() {
    let text = std::fs::read_to_string("/tmp/sample.ps1").unwrap();
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_pwsh::LANGUAGE.into())
        .unwrap();
    let tree = parser.parse(&text, None).unwrap();
    println!("{}", tree.root_node().to_sexp());
}
