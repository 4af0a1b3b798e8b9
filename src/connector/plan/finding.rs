//! What in the configuration makes the set wrong or doubtful?

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// No working set can come of it.
    Error,
    /// It deserves a look before the scripts run.
    Warning,
}

/// Something in the configuration that makes the set wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key, dotted as `gatepost check` writes it.
    pub key: String,
    /// How bad.
    pub grade: Grade,
    /// What, and what to do.
    pub text: String,
}

/// What was found so far.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    fn add(&mut self, grade: Grade, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding {
            key: key.into(),
            grade,
            text: text.into(),
        });
    }

    pub(super) fn error(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.add(Grade::Error, key, text);
    }

    pub(super) fn warn(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.add(Grade::Warning, key, text);
    }
}

impl Findings {
    /// Whether a working set can come of it.
    pub(super) fn are_bearable(&self) -> bool {
        self.0.iter().all(|finding| finding.grade != Grade::Error)
    }
}
