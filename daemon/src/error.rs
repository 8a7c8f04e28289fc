//! Errors in words.

use std::fmt;

/// An error and what it came from, in one line. Many of our errors quote their source already; what
/// was said is not said again.
pub struct Words<'a>(pub &'a anyhow::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut said = String::new();
        for error in self.0.chain() {
            let text = error.to_string();
            if said.is_empty() {
                said = text;
            } else if !said.contains(&text) {
                said = format!("{said}: {text}");
            }
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_source_that_was_quoted_is_not_repeated() {
        let error = anyhow!("no disk").context("cannot open sda: no disk; attach it").context("d");
        assert_eq!(Words(&error).to_string(), "d: cannot open sda: no disk; attach it");
        let error = anyhow!("no disk").context("cannot open sda");
        assert_eq!(Words(&error).to_string(), "cannot open sda: no disk");
    }
}
