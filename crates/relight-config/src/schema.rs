//! The JSON Schema of the whole file, made of the types that read it and of each plug-in's own.
//!
//! It is what `relight schema` prints and what [`crate::check`] holds a file against: an editor and
//! the daemon cannot disagree.

use relight_core::detector::Policy;
use serde_json::{Map, Value, json};

use crate::raw::{File, ResponderHead};
use crate::{Registry, secret_files, sources};

/// Name of the definition that every duration refers to.
pub(crate) const DURATION: &str = "Duration";

/// JSON Schema (draft 2020-12) of a config file, with the parameters of every detector and responder.
pub fn schema(registry: &Registry) -> Value {
    let mut root = schemars::schema_for!(File).to_value();
    root["title"] = json!("relight");
    let policy = schemars::schema_for!(Policy).to_value();
    let detectors = registry.detectors.iter().map(|spec| {
        let mut own = (spec.schema)();
        // Every parameter has a default, so none is required.
        own.as_object_mut().map(|own| own.remove("required"));
        let mut own = adopt(&mut root, own, spec.name);
        let shared = adopt(&mut root, policy.clone(), "policy");
        extend(&mut own, &shared);
        let signal = json!({ "type": "string", "description": "The signal that it watches." });
        own["properties"]["signal"] = signal;
        tagged(own, spec.name, &["signal"])
    });
    let detectors: Vec<Value> = detectors.collect();
    root["properties"]["detectors"]["additionalProperties"] = json!({ "oneOf": detectors });

    let head = schemars::schema_for!(ResponderHead).to_value();
    let responders = registry.responders.iter().map(|spec| {
        let mut own = adopt(&mut root, (spec.schema)(), spec.name);
        secret_files::extend(&mut own);
        let shared = adopt(&mut root, head.clone(), "responder");
        extend(&mut own, &shared);
        tagged(own, spec.name, &[])
    });
    let responders: Vec<Value> = responders.collect();
    root["properties"]["responders"]["additionalProperties"] = json!({ "oneOf": responders });

    let sources = sources::schemas().into_iter().map(|(name, own)| {
        let own = adopt(&mut root, own, name);
        tagged(own, name, &[])
    });
    let sources: Vec<Value> = sources.collect();
    root["properties"]["sources"]["additionalProperties"] = json!({ "oneOf": sources });
    root
}

/// The parameters that every detector shares.
pub(crate) fn policy_keys() -> Vec<String> {
    let policy = schemars::schema_for!(Policy).to_value();
    policy["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect()
}

/// Moves the definitions of a plug-in's schema to the root, under names of their own.
fn adopt(root: &mut Value, mut schema: Value, owner: &str) -> Value {
    let definitions = match schema.as_object_mut().and_then(|schema| schema.remove("$defs")) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    rename(&mut schema, owner);
    for (name, mut definition) in definitions {
        rename(&mut definition, owner);
        let name = if name == DURATION { name } else { format!("{owner}.{name}") };
        root["$defs"][name.as_str()] = definition;
    }
    schema
}

fn rename(schema: &mut Value, owner: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" && !text.ends_with(DURATION) => {
                        *text = format!("#/$defs/{owner}.{}", text.trim_start_matches("#/$defs/"));
                    }
                    other => rename(other, owner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, owner)),
        _ => {}
    }
}

/// Adds the properties of a shared part; a plug-in's own win.
fn extend(own: &mut Value, shared: &Value) {
    for (key, value) in shared["properties"].as_object().into_iter().flatten() {
        let properties = &mut own["properties"];
        if properties.get(key).is_none() {
            properties[key.as_str()] = value.clone();
        }
    }
}

/// Closes a plug-in's section: its `type`, and no unknown keys.
fn tagged(mut own: Value, name: &str, required: &[&str]) -> Value {
    if let Some(own) = own.as_object_mut() {
        own.remove("$schema");
        own.insert("title".to_owned(), json!(name));
        own.insert("type".to_owned(), json!("object"));
        own.insert("additionalProperties".to_owned(), json!(false));
    }
    own["properties"]["type"] = json!({ "const": name });
    let mut all: Vec<Value> = own["required"].as_array().cloned().unwrap_or_default();
    all.extend(required.iter().map(|key| json!(key)));
    all.push(json!("type"));
    own["required"] = Value::Array(all);
    own
}
