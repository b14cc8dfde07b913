//! What a transcript says about an INFO line: some fields by value, some by kind.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Field names with what each must hold. Fields that are not named may hold anything.
#[derive(Clone)]
pub struct InfoPattern(Vec<(String, Wanted)>);

#[derive(Clone)]
enum Wanted {
    Value(Value),
    Absent,
    Kind(Kind),
    /// Remember the value under a name.
    Save(String),
    /// The remembered value.
    Same(String),
    /// Any value but the remembered one.
    Other(String),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Any,
    Text,
    Number,
    ThreeNumbers,
    ServerKey,
}

/// Values remembered within one dialogue.
pub type Saved = HashMap<String, Value>;

impl InfoPattern {
    pub fn parse(text: &str) -> Result<InfoPattern, String> {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        let fields = object
            .into_iter()
            .map(|(name, value)| Ok((name, Wanted::parse(value)?)));
        fields.collect::<Result<Vec<_>, String>>().map(InfoPattern)
    }

    /// Compares a whole line, CR LF included.
    pub fn check(&self, line: &[u8], saved: &mut Saved) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
        let wrong = || format!("expected an INFO line\n     got {text:?}");
        let json = text
            .strip_prefix("INFO ")
            .and_then(|rest| rest.strip_suffix("\r\n"));
        let json = json.ok_or_else(wrong)?;
        let info: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| format!("{error} in {text:?}"))?;
        for (name, wanted) in &self.0 {
            let found = info.get(name);
            if !wanted.holds(found, saved) {
                let found = found.map_or("nothing".to_owned(), Value::to_string);
                return Err(format!(
                    "the INFO field {name} holds {found}\n  in {text:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Wanted {
    fn parse(value: Value) -> Result<Wanted, String> {
        let Some(inner) = value
            .as_str()
            .and_then(|v| v.strip_prefix('<')?.strip_suffix('>'))
        else {
            return Ok(Wanted::Value(value));
        };
        Ok(match inner.split_once(' ') {
            Some(("save", name)) => Wanted::Save(name.to_owned()),
            Some(("same", name)) => Wanted::Same(name.to_owned()),
            Some(("other", name)) => Wanted::Other(name.to_owned()),
            _ => match inner {
                "absent" => Wanted::Absent,
                "any" => Wanted::Kind(Kind::Any),
                "text" => Wanted::Kind(Kind::Text),
                "number" => Wanted::Kind(Kind::Number),
                "three numbers" => Wanted::Kind(Kind::ThreeNumbers),
                "server key" => Wanted::Kind(Kind::ServerKey),
                _ => return Err(format!("unknown: <{inner}>")),
            },
        })
    }

    fn holds(&self, found: Option<&Value>, saved: &mut Saved) -> bool {
        let Some(found) = found else {
            return matches!(self, Wanted::Absent);
        };
        match self {
            Wanted::Absent => false,
            Wanted::Value(value) => value == found,
            Wanted::Kind(kind) => kind.holds(found),
            Wanted::Save(name) => {
                saved.insert(name.clone(), found.clone());
                true
            }
            Wanted::Same(name) => saved.get(name) == Some(found),
            Wanted::Other(name) => saved.get(name).is_some_and(|value| value != found),
        }
    }
}

impl Kind {
    fn holds(self, value: &Value) -> bool {
        let text = value.as_str().unwrap_or_default();
        match self {
            Kind::Any => true,
            Kind::Text => !text.is_empty(),
            Kind::Number => value.is_u64(),
            Kind::ThreeNumbers => {
                let parts: Vec<&str> = text.split('.').collect();
                parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
            }
            // 35 bytes of key in base32: 56 characters, of which the first says "server".
            Kind::ServerKey => {
                let is_base32 =
                    |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
                text.len() == 56 && text.starts_with('N') && text.bytes().all(is_base32)
            }
        }
    }
}
