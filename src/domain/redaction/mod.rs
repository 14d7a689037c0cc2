//! Secrets on command lines, which are kept in receipts and shown on pages: cut before the line leaves the machine.
//!
//! What is cut is known by the name before it (`--token X`, `API_KEY=X`, `"password": "X"`) or by its form (the password of a
//! URL, an `Authorization` header, `curl -u`). In doubt too much is cut, never half a secret: what runs is not changed by it.

mod known;
mod names;
#[cfg(test)]
mod tests;
mod text;

pub use self::names::SecretNames;
use self::text::{CUT, Text};

/// What the next argument is, as the one before it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Any,
    Secret,
    /// `USER:PASSWORD`, as curl takes it.
    Credentials,
    /// For a shell, or for another program that is given text to run.
    Script,
}

/// Cuts the arguments of one command, in their order.
#[derive(Clone, Debug)]
pub struct Cutter<'a> {
    names: &'a SecretNames,
    next: Next,
    has_curl: bool,
    has_shell: bool,
}

impl<'a> Cutter<'a> {
    /// For a command line.
    #[must_use]
    pub fn new(names: &'a SecretNames) -> Self {
        Self { names, next: Next::Any, has_curl: false, has_shell: false }
    }

    /// The next argument without its secrets. Once there are `bytes_max` bytes, the rest is not looked at, and left out.
    pub fn argument(&mut self, argument: &str, bytes_max: usize) -> String {
        let found = std::mem::replace(&mut self.next, Next::Any);
        match found {
            Next::Secret if !argument.is_empty() && !text::is_option(argument) => return CUT.to_owned(),
            Next::Credentials => {
                if let Some((user, _)) = argument.split_once(':').filter(|(_, password)| !password.is_empty()) {
                    return format!("{user}:{CUT}");
                }
            }
            _ => {}
        }
        let mut text = Text::new(argument, found == Next::Script, self.names, self.has_curl);
        text.cut(bytes_max);
        self.has_curl = text.has_curl;
        self.next = self.after(argument);
        known::cut(text.out)
    }

    fn after(&mut self, argument: &str) -> Next {
        let program = argument.rsplit('/').next().unwrap_or_default();
        self.has_shell |= program.ends_with("sh") || program.starts_with("python") || program == "su";
        if self.has_curl && text::is_user_option(argument) {
            Next::Credentials
        } else if argument.chars().all(text::is_of_name) && self.names.has_option(argument) {
            Next::Secret
        } else if self.has_shell && argument.starts_with('-') && argument.ends_with('c') {
            Next::Script
        } else {
            Next::Any
        }
    }
}
