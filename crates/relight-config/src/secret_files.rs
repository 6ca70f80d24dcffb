//! Secrets by reference: `NAME_file: PATH` beside every setting that is a secret.
//!
//! Files are read when the config is, and again before each use of a responder, so that a key that was replaced is the
//! one that is sent: nobody has to remember a reload, and a page that was refused for its old key is not refused for
//! ever. A file that cannot be read any more leaves the last good secret in place, and what goes wrong then says so.

mod renewed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use relight_core::responder::{AnyResponder, ResponderSpec, Secret, Secrets};
use relight_core::text;
use relight_files::read_regular;
use serde_json::{Map, Value};

use crate::report::Report;

pub(crate) use renewed::Renewed;

/// A secret is a line or two; what is longer is another file.
const MAX_BYTES: u64 = 64 * 1024;
/// What a key ends in that names a file.
pub(crate) const END: &str = "_file";

/// Reads a secret; its last newline is the editor's. Blocks for as long as the file system does.
pub(crate) fn read(path: &Path) -> Result<Secret, String> {
    let shown = text::path(path);
    let file = read_regular(path, MAX_BYTES).map_err(|error| format!("{shown} {error}"))?;
    if file.mode & 0o007 != 0 {
        let mode = file.mode & 0o777;
        return Err(format!("{shown} is open to everybody (mode {mode:04o}): `chmod 600` it"));
    }
    let secret = String::from_utf8(file.bytes).map_err(|_| format!("{shown} is not text"))?;
    let secret =
        secret.strip_suffix('\n').map_or(secret.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() { Err(format!("{shown} is empty")) } else { Ok(Secret::new(secret)) }
}

/// Of a schema, the names of the settings that are secrets, and of those that are maps of secrets.
pub(crate) fn secret_keys(schema: &Value) -> Vec<(String, bool)> {
    let is_secret = |schema: &Value| {
        schema["writeOnly"] == true
            || schema["anyOf"].as_array().is_some_and(|any| any.iter().any(|one| one["writeOnly"] == true))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    let secret = properties.filter_map(|(name, schema)| {
        let is_map = is_secret(&schema["additionalProperties"]);
        (is_map || is_secret(schema)).then(|| (name.clone(), is_map))
    });
    secret.collect()
}

/// Puts `NAME_file` beside every secret of a responder's schema. Neither is required by itself then.
pub(crate) fn extend(schema: &mut Value) {
    for (name, is_map) in secret_keys(schema) {
        let one = serde_json::json!({ "type": "string" });
        let mut beside =
            if is_map { serde_json::json!({ "type": "object", "additionalProperties": one }) } else { one };
        beside["description"] = format!("The file that holds `{name}`; read again before each use.").into();
        schema["properties"][format!("{name}{END}")] = beside;
        if let Some(required) = schema["required"].as_array_mut() {
            required.retain(|key| *key != *name);
        }
    }
}

/// Where a secret goes, and the file that it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    key: String,
    /// Of a map, the entry.
    entry: Option<String>,
    path: PathBuf,
}

impl Reference {
    fn put(&self, settings: &mut Map<String, Value>, secret: &Secret) {
        let value = Value::from(secret.reveal());
        let place = settings.entry(self.key.clone()).or_insert(Value::Null);
        match &self.entry {
            None => *place = value,
            Some(entry) => place[entry.as_str()] = value,
        }
    }
}

/// Takes the `NAME_file` keys out of a responder's settings, and says what is wrong with what is written.
pub(crate) fn references(
    settings: &mut Map<String, Value>,
    schema: &Value,
    path: &str,
    report: &mut Report,
) -> Vec<Reference> {
    let mut found = Vec::new();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, _) in secret_keys(schema) {
        let file_key = format!("{key}{END}");
        let written = settings.remove(&file_key);
        if written.is_none() && required.contains(&key.as_str()) && !settings.contains_key(&key) {
            report.error(path, format!("`{key}` is missing, or `{file_key}`"));
        }
        let reference = |entry: Option<&String>, file: &Value| {
            let path = PathBuf::from(file.as_str()?);
            Some(Reference { key: key.clone(), entry: entry.cloned(), path })
        };
        match &written {
            Some(Value::Object(files)) => {
                let given = settings.get(&key).and_then(Value::as_object);
                for entry in
                    files.keys().filter(|entry| given.is_some_and(|given| given.contains_key(*entry)))
                {
                    report.error(
                        &format!("{path}.{file_key}.{entry}"),
                        format!("stands in `{key}` too: one of them is enough"),
                    );
                }
                found.extend(files.iter().filter_map(|(entry, file)| reference(Some(entry), file)));
            }
            Some(_) if settings.contains_key(&key) => {
                report.error(
                    &format!("{path}.{file_key}"),
                    format!("`{key}` is there too: one of them is enough"),
                );
            }
            Some(file) => found.extend(reference(None, file)),
            None => {}
        }
    }
    found
}

/// What a responder is made of, with files in place of secrets.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) spec: ResponderSpec,
    pub(crate) settings: Map<String, Value>,
    pub(crate) own: Vec<Reference>,
    pub(crate) secrets: Secrets,
    /// The config's own secrets that come from files.
    pub(crate) shared: Vec<(String, PathBuf)>,
}

impl Recipe {
    fn read(&self) -> Result<Vec<Secret>, String> {
        let own = self.own.iter().map(|reference| &reference.path);
        own.chain(self.shared.iter().map(|(_, path)| path)).map(|path| read(path)).collect()
    }

    /// Reads what belongs to the responder alone; the config's own were read before. What is wrong is reported.
    pub(crate) fn fill(&self, path: &str, report: &mut Report) -> Option<Map<String, Value>> {
        let mut settings = self.settings.clone();
        let mut is_whole = true;
        for reference in &self.own {
            let end = reference.entry.as_ref().map(|entry| format!(".{entry}")).unwrap_or_default();
            match read(&reference.path) {
                Ok(secret) => reference.put(&mut settings, &secret),
                Err(why) => {
                    report.error(&format!("{path}.{}{END}{end}", reference.key), why);
                    is_whole = false;
                }
            }
        }
        is_whole.then_some(settings)
    }

    fn build(&self, read: &[Secret]) -> Result<Arc<dyn AnyResponder>, String> {
        let mut settings = self.settings.clone();
        let (own, shared) = read.split_at(self.own.len());
        self.own.iter().zip(own).for_each(|(reference, secret)| reference.put(&mut settings, secret));
        let renewed =
            self.shared.iter().zip(shared).map(|((name, _), secret)| (name.clone(), secret.clone()));
        let secrets = self.secrets.renewed(renewed);
        (self.spec.build)(&Value::Object(settings), &secrets).map_err(|error| error.message)
    }
}
