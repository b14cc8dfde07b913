//! `--name value` arguments, each asked for by name; one that nobody asked for is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The arguments behind the load's name.
pub struct Args {
    values: BTreeMap<String, String>,
    asked: RefCell<Vec<String>>,
}

impl Args {
    /// Reads pairs of `--name value`; a name without a value gets an empty one.
    pub fn parse(words: &[String]) -> Result<Args, String> {
        let mut values = BTreeMap::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or(format!("{word}: expected --name value"))?;
            let value = words.next_if(|next| !next.starts_with("--")).cloned();
            values.insert(name.to_string(), value.unwrap_or_default());
        }
        Ok(Args {
            values,
            asked: RefCell::new(Vec::new()),
        })
    }

    /// The value of `--name`, or `default`.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        Ok(self.find(name)?.unwrap_or(default))
    }

    /// The value of `--name`, if it was given.
    pub fn find<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.asked.borrow_mut().push(name.to_string());
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|_| format!("--{name} {value}: not a fitting value"))
    }

    /// Whether `--name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.asked.borrow_mut().push(name.to_string());
        self.values.contains_key(name)
    }

    /// Refuses whatever was given but not asked for.
    pub fn finish(&self) -> Result<(), String> {
        let asked = self.asked.borrow();
        match self.values.keys().find(|name| !asked.contains(name)) {
            Some(name) => Err(format!("--{name}: this load has no such argument")),
            None => Ok(()),
        }
    }
}
