//! How is a key read so that a value of the wrong type is one problem among others, and not the end of reading?
//!
//! serde stops at its first error. Here every leaf takes any TOML value ([`Value`]) and every table any shape
//! ([`Table`], [`Tables`]); what does not fit is kept as [`Key::Wrong`] with its place, and the check reports it. An
//! unknown key is serde's to find (`deny_unknown_fields`): it is taken out, and reading begins anew.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_spanned::Spanned;
use std::fmt;
use std::marker::PhantomData;

/// The key under which toml hands a date to serde.
const DATE: &str = "$__toml_private_datetime";

/// Any TOML value, as far as a key of ours can use it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    Date(String),
    List(Vec<Spanned<Self>>),
    Table(Vec<(String, Spanned<Self>)>),
    Fraction,
    HugeInteger,
}

impl Value {
    /// What it is, in words for a message. Never its content: it may be a secret.
    pub(super) fn found(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Flag(_) => "a boolean",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Fraction => "a number with a fraction",
            Self::HugeInteger => "a number beyond 64 bits",
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a TOML value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
                Ok(Value::Flag(flag))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(i64::try_from(number).map_or(Value::HugeInteger, Value::Integer))
            }
            fn visit_i128<E>(self, _number: i128) -> Result<Value, E> {
                Ok(Value::HugeInteger)
            }
            fn visit_u128<E>(self, _number: u128) -> Result<Value, E> {
                Ok(Value::HugeInteger)
            }
            fn visit_f64<E>(self, _number: f64) -> Result<Value, E> {
                Ok(Value::Fraction)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut table = Vec::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if key == DATE {
                        return entries.next_value().map(Value::Date);
                    }
                    table.push((key, entries.next_value()?));
                }
                Ok(Value::Table(table))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// One key of a table: absent, given, or given with the wrong type.
#[derive(Clone, Debug, Default)]
pub(super) enum Key<T> {
    #[default]
    Absent,
    Given(Spanned<T>),
    Wrong(Spanned<&'static str>),
}

impl<T> Key<T> {
    /// Where it stands, if it is there.
    pub(super) fn offset(&self) -> Option<usize> {
        match self {
            Self::Absent => None,
            Self::Given(value) => Some(value.span().start),
            Self::Wrong(found) => Some(found.span().start),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de, T: Kind> Deserialize<'de> for Key<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Spanned::<Value>::deserialize(deserializer)?;
        let span = value.span();
        let value = value.into_inner();
        let found = value.found();
        Ok(match T::of(value) {
            Some(kind) => Self::Given(Spanned::new(span, kind)),
            None => Self::Wrong(Spanned::new(span, found)),
        })
    }
}

/// A type that a key may have.
pub(super) trait Kind: Sized {
    /// In words, for a message.
    const EXPECTED: &'static str;
    /// `None`: another type.
    fn of(value: Value) -> Option<Self>;
}

impl Kind for String {
    const EXPECTED: &'static str = "a string";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Kind for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }
}

impl Kind for bool {
    const EXPECTED: &'static str = "true or false";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

/// A date as a string, or bare as TOML writes it.
#[derive(Clone, Debug)]
pub(super) struct Date(pub(super) String);

impl Kind for Date {
    const EXPECTED: &'static str = "a date such as \"2026-12-15\"";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) | Value::Date(text) => Some(Self(text)),
            _ => None,
        }
    }
}

/// A list; each item is looked at on its own.
#[derive(Clone, Debug, Default)]
pub(super) struct List(pub(super) Vec<Spanned<Value>>);

impl Kind for List {
    const EXPECTED: &'static str = "a list of strings";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::List(items) => Some(Self(items)),
            _ => None,
        }
    }
}

/// One word, or a list.
#[derive(Clone, Debug)]
pub(super) enum WordOrList {
    Word(String),
    List(List),
}

impl Kind for WordOrList {
    const EXPECTED: &'static str = "a string or a list of strings";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Self::Word(text)),
            Value::List(items) => Some(Self::List(List(items))),
            _ => None,
        }
    }
}

/// Lists by a free label (a table), or an empty list for none.
#[derive(Clone, Debug)]
pub(super) struct ByLabel(pub(super) Vec<(String, Spanned<Value>)>);

impl Kind for ByLabel {
    const EXPECTED: &'static str =
        "a table of lists by stream, such as { transactional = [\"198.51.100.7\"] }";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Table(entries) => Some(Self(entries)),
            Value::List(items) if items.is_empty() => Some(Self(Vec::new())),
            _ => None,
        }
    }
}

/// A sub-table with keys of its own.
pub(super) type Table<T> = Key<Shape<T>>;

/// Marks `T` as read key by key rather than as a [`Kind`].
#[derive(Clone, Debug)]
pub(super) struct Shape<T>(pub(super) T);

/// An array of tables (`[[name]]`).
#[derive(Clone, Debug)]
pub(super) enum Tables<T> {
    Given(Vec<Spanned<Lenient<T>>>),
    Wrong(Spanned<&'static str>),
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self::Given(Vec::new())
    }
}

/// A table, or what else stood there.
#[derive(Clone, Debug)]
pub(super) enum Lenient<T> {
    Table(T),
    Other(&'static str),
}

/// A list of tables, a single table, or what else stood there.
#[derive(Clone, Debug)]
enum LenientList<T> {
    List(Vec<Spanned<Lenient<T>>>),
    Other(&'static str),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Spanned::<Lenient<T>>::deserialize(deserializer)?;
        let span = table.span();
        Ok(match table.into_inner() {
            Lenient::Table(inner) => Self::Given(Spanned::new(span, Shape(inner))),
            Lenient::Other(found) => Self::Wrong(Spanned::new(span, found)),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Spanned::<LenientList<T>>::deserialize(deserializer)?;
        let span = list.span();
        Ok(match list.into_inner() {
            LenientList::List(tables) => Self::Given(tables),
            LenientList::Other(found) => Self::Wrong(Spanned::new(span, found)),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OtherTypes(TableVisitor(PhantomData)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OtherTypes(ListVisitor(PhantomData)))
    }
}

/// What one shape does with a map and a sequence; everything else is another type for all of them.
trait ShapeVisitor<'de>: Sized {
    type Output;
    fn other(found: &'static str) -> Self::Output;
    fn map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Output, A::Error>;
    fn sequence<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Output, A::Error>;
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> ShapeVisitor<'de> for TableVisitor<T> {
    type Output = Lenient<T>;

    fn other(found: &'static str) -> Lenient<T> {
        Lenient::Other(found)
    }
    fn map<A: MapAccess<'de>>(self, map: A) -> Result<Lenient<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Lenient::Table)
    }
    fn sequence<A: SeqAccess<'de>>(self, mut items: A) -> Result<Lenient<T>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::Other("a list"))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> ShapeVisitor<'de> for ListVisitor<T> {
    type Output = LenientList<T>;

    fn other(found: &'static str) -> LenientList<T> {
        LenientList::Other(found)
    }
    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<LenientList<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(LenientList::Other("a single table"))
    }
    fn sequence<A: SeqAccess<'de>>(self, mut items: A) -> Result<LenientList<T>, A::Error> {
        let mut tables = Vec::new();
        while let Some(table) = items.next_element()? {
            tables.push(table);
        }
        Ok(LenientList::List(tables))
    }
}

struct OtherTypes<S>(S);

impl<'de, S: ShapeVisitor<'de>> Visitor<'de> for OtherTypes<S> {
    type Value = S::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }
    fn visit_str<E>(self, _text: &str) -> Result<S::Output, E> {
        Ok(S::other("a string"))
    }
    fn visit_bool<E>(self, _flag: bool) -> Result<S::Output, E> {
        Ok(S::other("a boolean"))
    }
    fn visit_i64<E>(self, _number: i64) -> Result<S::Output, E> {
        Ok(S::other("a number"))
    }
    fn visit_u64<E>(self, _number: u64) -> Result<S::Output, E> {
        Ok(S::other("a number"))
    }
    fn visit_i128<E>(self, _number: i128) -> Result<S::Output, E> {
        Ok(S::other("a number"))
    }
    fn visit_u128<E>(self, _number: u128) -> Result<S::Output, E> {
        Ok(S::other("a number"))
    }
    fn visit_f64<E>(self, _number: f64) -> Result<S::Output, E> {
        Ok(S::other("a number"))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S::Output, A::Error> {
        self.0.map(map)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<S::Output, A::Error> {
        self.0.sequence(items)
    }
}
