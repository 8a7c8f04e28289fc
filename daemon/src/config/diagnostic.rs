//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The text that a configuration came from; kept so that an error found after parsing (a path
/// that leads nowhere) still names its line.
#[derive(Debug, Clone, Default)]
pub struct Source {
    file: PathBuf,
    text: Arc<str>,
}

impl Source {
    pub fn new(file: &Path, text: &str) -> Source {
        Source { file: file.to_owned(), text: text.into() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// `span` is in bytes of the text; one that lies outside is moved inside.
    pub fn diagnose(
        &self,
        span: Range<usize>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnostic {
        let at = floor(&self.text, span.start);
        let begin = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[begin..].lines().next().unwrap_or("");
        let before = self.text[begin..at].chars().count();
        let end = floor(&self.text, span.end.max(at));
        let marked = self.text[at..end].lines().next().unwrap_or("").chars().count();
        Diagnostic {
            file: self.file.clone(),
            line: self.text[..begin].matches('\n').count() + 1,
            column: before + 1,
            excerpt: line.to_owned(),
            marked: marked.max(1),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

/// The last boundary between characters that is not beyond `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Prints as `file:line:column: reason`, the line itself, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub reason: String,
    pub remedy: String,
    excerpt: String,
    marked: usize,
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the mark stands under what it marks.
        let indent: String = self
            .excerpt
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.reason)?;
        writeln!(f, " {number} | {}", self.excerpt)?;
        writeln!(f, " {gutter} | {indent}{}", "^".repeat(self.marked))?;
        write!(f, " {gutter} = {}", self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_and_column_in_characters_and_marks_the_place() {
        let source = Source::new(Path::new("a.toml"), "x = 1\nä = \"bad\"\n");
        let shown = source.diagnose(11..16, "no", "say yes").to_string();
        assert_eq!(shown, "a.toml:2:5: no\n 2 | ä = \"bad\"\n   |     ^^^^^\n   = say yes");
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_is_still_shown() {
        let source = Source::new(Path::new("a.toml"), "ä");
        assert_eq!(source.diagnose(1..1, "no", "").column, 1);
        assert_eq!(source.diagnose(90..99, "no", "").column, 2);
    }
}
