//! What a splat gives to a command: the keys of the hashtable behind it, as far as the text shows them.
//!
//! A key is a literal (`@{ Name = .. }`, `$set['Name'] = ..`, `$set.Name = ..`), comes from another table key by key
//! (`$set[$key] = $wanted[$key]`), from the table that a function of the script ends with, or from what its calls give to a
//! parameter. What comes from anywhere else cannot be seen, and is a finding: a splat is not let pass unread.

use super::text::{Known, row, slice};
use std::collections::{BTreeMap, BTreeSet};
use tree_sitter::Node;

/// A variable by the function in which it stands (empty: the script itself) and its name, both in lower case.
type Place = (String, String);

/// What is put into a variable.
#[derive(Default)]
struct Table {
    keys: BTreeSet<String>,
    from: BTreeSet<Place>,
    /// Something that is no table, or none that the text shows.
    unseen: bool,
}

/// The tables of a script.
struct Tables<'a> {
    text: &'a str,
    all: BTreeMap<Place, Table>,
    /// What each function ends with: the name of a variable.
    ends: BTreeMap<String, String>,
}

/// Findings about every splat of a script; `functions` are its own, in lower case.
pub(super) fn findings(
    name: &str,
    root: Node<'_>,
    text: &str,
    functions: &BTreeSet<String>,
    known: &Known,
) -> Vec<String> {
    let nodes = nodes(root);
    let mut tables = Tables {
        text,
        all: BTreeMap::new(),
        ends: BTreeMap::new(),
    };
    for node in nodes
        .iter()
        .filter(|node| node.kind() == "function_statement")
    {
        tables.end(*node);
    }
    for node in &nodes {
        match node.kind() {
            "assignment_expression" => tables.assignment(*node),
            "command" => tables.call(*node, functions),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for command in nodes.iter().filter(|node| node.kind() == "command") {
        let Some(called) = command
            .child_by_field_name("command_name")
            .map(|node| slice(node, text).to_owned())
        else {
            continue;
        };
        let parameters = known.parameters(&called);
        for splat in elements(*command) {
            let shown = slice(splat, text);
            let Some(variable) = shown.strip_prefix('@').filter(|rest| is_name(rest)) else {
                continue;
            };
            let mut keys = BTreeSet::new();
            let seen = tables.resolve(
                &(scope(splat, text), variable.to_lowercase()),
                &mut BTreeSet::new(),
                &mut keys,
            );
            if !seen || keys.is_empty() {
                found.push(format!(
                    "{name}:{}: what {shown} gives to {called} cannot be seen from the text",
                    row(splat)
                ));
            }
            let Some(parameters) = parameters else {
                continue;
            };
            for key in keys.iter().filter(|key| !parameters.contains(*key)) {
                found.push(format!(
                    "{name}:{}: {called} has no parameter -{key} ({shown})",
                    row(splat)
                ));
            }
        }
    }
    found
}

impl Tables<'_> {
    fn table(&mut self, place: Place) -> &mut Table {
        self.all.entry(place).or_default()
    }

    /// The variable that stands alone as the last statement of a function.
    fn end(&mut self, function: Node<'_>) {
        let own = |node: &Node<'_>| scope(*node, self.text);
        let Some(name) = children(function)
            .into_iter()
            .find(|node| node.kind() == "function_name")
        else {
            return;
        };
        let name = slice(name, self.text).to_lowercase();
        let last = nodes(function)
            .into_iter()
            .filter(|node| node.kind() == "variable")
            .filter(|node| {
                own(node) == name && slice(whole(*node), self.text) == slice(*node, self.text)
            })
            .filter(|node| whole(*node).kind() == "pipeline")
            .max_by_key(Node::start_byte);
        if let Some(variable) = last {
            self.ends
                .insert(name, variable_name(slice(variable, self.text)));
        }
    }

    fn assignment(&mut self, assignment: Node<'_>) {
        let parts = children(assignment);
        let (Some(left), Some(value)) = (parts.first(), parts.last()) else {
            return;
        };
        let here = scope(assignment, self.text);
        let (left, value) = (inner(*left), inner(*value));
        match left.kind() {
            "variable" => {
                let place = (here.clone(), variable_name(slice(left, self.text)));
                self.fill(place, &here, value);
            }
            "element_access" | "member_access" => {
                let parts = children(left);
                let (Some(target), Some(key)) = (parts.first(), parts.get(2)) else {
                    return;
                };
                if target.kind() != "variable" {
                    return;
                }
                let place = (here.clone(), variable_name(slice(*target, self.text)));
                let key = slice(*key, self.text);
                if let Some(key) = literal(key) {
                    self.table(place).keys.insert(key);
                    return;
                }
                // Key by key out of another table.
                let source = (value.kind() == "element_access")
                    .then(|| children(value))
                    .and_then(|parts| parts.first().copied())
                    .filter(|node| node.kind() == "variable");
                match source {
                    Some(source) => {
                        let source = (here, variable_name(slice(source, self.text)));
                        self.table(place).from.insert(source);
                    }
                    None => self.table(place).unseen = true,
                }
            }
            _ => {}
        }
    }

    /// What a call of a function of the script gives to its parameters.
    fn call(&mut self, command: Node<'_>, functions: &BTreeSet<String>) {
        let Some(called) = command.child_by_field_name("command_name") else {
            return;
        };
        let called = slice(called, self.text).to_lowercase();
        if !functions.contains(&called) {
            return;
        }
        let here = scope(command, self.text);
        let mut parameter: Option<String> = None;
        for element in elements(command) {
            if element.kind() == "command_parameter" {
                parameter = Some(
                    slice(element, self.text)
                        .trim_matches(['-', ':'])
                        .to_lowercase(),
                );
            } else if let Some(parameter) = parameter.take() {
                self.fill((called.clone(), parameter), &here, inner(element));
            }
        }
    }

    fn fill(&mut self, place: Place, here: &str, value: Node<'_>) {
        let text = self.text;
        match value.kind() {
            "hash_literal_expression" => {
                let entries = nodes(value);
                let keys = entries
                    .iter()
                    .filter(|node| node.kind() == "key_expression")
                    // Not those of a table in this table.
                    .filter(|node| {
                        let body = node.parent().and_then(|entry| entry.parent());
                        body.and_then(|body| body.parent()) == Some(value)
                    })
                    .map(|node| slice(*node, text).trim_matches(['\'', '"']).to_lowercase());
                let keys: Vec<String> = keys.collect();
                self.table(place).keys.extend(keys);
            }
            "variable" => {
                let source = variable_name(slice(value, text));
                // A table that is left out.
                if source != "null" {
                    self.table(place).from.insert((here.to_owned(), source));
                }
            }
            "command" => {
                let called = value.child_by_field_name("command_name");
                let called = called.map(|node| slice(node, text).to_lowercase());
                let end = called.and_then(|called| {
                    let variable = self.ends.get(&called)?.clone();
                    Some((called, variable))
                });
                match end {
                    Some(end) => {
                        self.table(place).from.insert(end);
                    }
                    None => self.table(place).unseen = true,
                }
            }
            _ => self.table(place).unseen = true,
        }
    }

    /// Collects the keys of a variable; whether all that is put into it can be seen.
    fn resolve(
        &self,
        place: &Place,
        visited: &mut BTreeSet<Place>,
        keys: &mut BTreeSet<String>,
    ) -> bool {
        if !visited.insert(place.clone()) {
            return true;
        }
        let outside = (String::new(), place.1.clone());
        let Some(table) = self.all.get(place).or_else(|| self.all.get(&outside)) else {
            return false;
        };
        keys.extend(table.keys.iter().cloned());
        let from = table
            .from
            .iter()
            .map(|source| self.resolve(source, visited, keys))
            .fold(true, |seen, one| seen & one);
        from && !table.unseen
    }
}

/// All nodes below one, and itself.
fn nodes(root: Node<'_>) -> Vec<Node<'_>> {
    let mut open = vec![root];
    let mut all = Vec::new();
    while let Some(node) = open.pop() {
        all.push(node);
        open.extend(children(node));
    }
    all
}

fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).collect()
}

/// The arguments of a command.
fn elements(command: Node<'_>) -> Vec<Node<'_>> {
    let elements = command.child_by_field_name("command_elements");
    let elements = elements.map(children).unwrap_or_default();
    elements
        .into_iter()
        .filter(|node| node.kind() != "command_argument_sep")
        .collect()
}

/// The one node within nodes that hold nothing else.
fn inner(node: Node<'_>) -> Node<'_> {
    let mut node = node;
    while node.named_child_count() == 1
        && matches!(
            node.kind(),
            "assignment_value"
                | "pipeline"
                | "pipeline_chain"
                | "unary_expression"
                | "left_assignment_expression"
        )
    {
        let Some(child) = node.named_child(0) else {
            break;
        };
        node = child;
    }
    // `[ordered]@{ .. }`
    if node.kind() == "expression_with_unary_operator" || node.kind() == "cast_expression" {
        let last = children(node).pop();
        return last.map_or(node, inner);
    }
    node
}

/// The outermost node that is no more than this one.
fn whole(node: Node<'_>) -> Node<'_> {
    let mut node = node;
    while let Some(parent) = node.parent() {
        if parent.byte_range() != node.byte_range() || parent.kind() == "statement_list" {
            break;
        }
        node = parent;
    }
    node
}

/// The function in which a node stands, in lower case; empty for the script itself.
fn scope(node: Node<'_>, text: &str) -> String {
    let mut above = node.parent();
    while let Some(node) = above {
        if node.kind() == "function_statement" {
            let name = children(node)
                .into_iter()
                .find(|child| child.kind() == "function_name");
            return name
                .map(|name| slice(name, text).to_lowercase())
                .unwrap_or_default();
        }
        above = node.parent();
    }
    String::new()
}

fn variable_name(written: &str) -> String {
    let name = written.trim_start_matches(['$', '@']).to_lowercase();
    name.strip_prefix("script:")
        .map_or(name.clone(), str::to_owned)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// The key that is written as such: `'Name'` or `Name` behind a dot.
fn literal(written: &str) -> Option<String> {
    let bare = written.trim_matches('\'');
    is_name(bare).then(|| bare.to_lowercase())
}
