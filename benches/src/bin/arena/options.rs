//! `--name value` pairs, and `--name` alone for a switch.

use crate::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub struct Options(HashMap<String, String>);

const SWITCHES: [&str; 3] = ["layers", "quick", "realtime"];

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut found = HashMap::new();
        while let Some(word) = words.next() {
            let name =
                word.strip_prefix("--").ok_or(format!("expected an option, got {word:?}"))?;
            let value = if SWITCHES.contains(&name) {
                String::new()
            } else {
                words.next().ok_or(format!("--{name} needs a value"))?
            };
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("--{name} can't be {text:?}").into()),
        }
    }

    pub fn required<T: FromStr>(&self, name: &str) -> Result<T> {
        self.value(name)?.ok_or_else(|| format!("--{name} is missing").into())
    }

    /// A comma-separated list; empty where the option is not given.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.0.get(name).map_or(Vec::new(), |text| text.split(',').collect())
    }

    /// The directory for what is written, created where it is missing.
    pub fn out(&self) -> Result<PathBuf> {
        let out = self.value("out")?.unwrap_or_else(results);
        std::fs::create_dir_all(&out)?;
        Ok(out)
    }

    /// A file that is read: the one that is named, or what the last run left under that name.
    pub fn input(&self, name: &str, left: &str) -> Result<PathBuf> {
        Ok(self.value(name)?.unwrap_or_else(|| results().join(left)))
    }
}

/// Where results go unless another place is named.
fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/arena")
}
