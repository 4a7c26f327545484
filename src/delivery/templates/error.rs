//! What can be wrong with templates at start, and with one rendering later.

use std::fmt;

/// Why there are no words. Always permanent: the same data meets the same template again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    /// Stable, snake_case: `unknown_template`, `missing_variable`, `template_failed`, `invalid_data` or
    /// `rendered_too_large`.
    pub code: &'static str,
    /// Names the file, the line and the variable.
    pub reason: String,
}

/// Something in a template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateMistake {
    /// The file, from the folder of templates, or the template.
    pub path: String,
    /// Where in the file, when it is in a line.
    pub line: Option<usize>,
    /// For people.
    pub problem: String,
}

impl TemplateMistake {
    pub(super) fn new(path: impl Into<String>, line: Option<usize>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), line, problem: problem.into() }
    }
}

impl fmt::Display for TemplateMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template {}", self.path)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Every mistake of the templates; its text has one a line.
#[derive(Debug)]
pub struct TemplateErrors {
    /// At least one, in the order of the files.
    pub mistakes: Vec<TemplateMistake>,
}

impl fmt::Display for TemplateErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateErrors {}
