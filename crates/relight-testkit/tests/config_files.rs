//! Every file in `config/` is read as a user's file is, with the plug-ins that ship.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use relight_config::{Config, parse};
use relight_testkit::golden::REGISTRY;
use relight_testkit::repository;
use serde_json::Value;

fn files() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(repository().join("config")).expect("`config` is in the tree");
    let mut files: Vec<(String, String)> = folder
        .map(|entry| entry.expect("a folder can be listed").path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a file of `config` is text");
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text)
        })
        .collect();
    files.sort();
    files
}

fn config(file: &str, text: &str) -> Config {
    parse(file, text, &REGISTRY, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

fn default_yaml() -> String {
    let default = files().into_iter().find(|(name, _)| name == "default.yaml");
    default.expect("`config/default.yaml` is there").1
}

/// What a config comes to, as far as it can be told from outside.
fn meaning(config: &Config) -> String {
    let settings = &config.settings;
    let times = (settings.binning, settings.allowed_lateness, settings.max_skew);
    let limits = (times, settings.max_series, settings.series_ttl, &settings.sources);
    let fingerprint = String::from_utf8_lossy(&settings.fingerprint);
    format!("{config:?}\n{limits:?}\n{fingerprint}")
}

#[test]
fn every_file_is_valid() {
    let files = files();
    assert!(files.len() >= 2, "{files:?}");
    for (name, text) in files {
        config(&name, &text);
    }
}

/// Guarantee: each whole config that the README shows is one that can be pasted, once its secret is in its file.
#[test]
fn the_readme_shows_valid_configs() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is a README");
    let dir = tempfile::tempdir().expect("a folder");
    let secret = dir.path().join("kafka");
    std::fs::write(&secret, "password").expect("a folder of our own");
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("a file of our own");
    let readme = readme.replace("/run/secrets/kafka", &secret.display().to_string());
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    // One that is indented shows a part of another.
    let whole: Vec<&str> = blocks.filter(|text| !text.starts_with(' ')).collect();
    assert!(whole.len() >= 2, "{whole:?}");
    for text in whole {
        config("README.md", text);
    }
}

/// Guarantee: what the documented config says is the default is the default.
#[test]
fn the_documented_config_means_the_same_as_none() {
    let documented = config("default.yaml", &default_yaml());
    assert_eq!(meaning(&documented), meaning(&relight_config::defaults(&REGISTRY)));
}

/// Guarantee: a key that can be written is a key that can be read about.
#[test]
fn every_key_is_documented() {
    let schema = relight_config::schema(&REGISTRY);
    let text = default_yaml();
    let top = schema["properties"].as_object().expect("the schema describes a map");
    let types = schema["$defs"].as_object().expect("the schema names its types");
    // Keys of detectors' and responders' types are in their own pages; here are those of the file itself.
    let own = types
        .iter()
        .filter(|(name, _)| !name.contains('.'))
        .filter_map(|(_, of)| of["properties"].as_object());
    let mut keys = std::iter::once(top).chain(own).flat_map(serde_json::Map::keys);
    let missing =
        keys.find(|key| !text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == *key));
    assert_eq!(missing, None, "a key that config/default.yaml does not mention");
}

/// Guarantee: `relight schema` accepts what ships: each plug-in is in it by name, with its parameters.
#[test]
fn every_plug_in_has_a_page_and_is_in_the_schema() {
    let schema = relight_config::schema(&REGISTRY);
    let detectors = REGISTRY.detectors.iter().map(|spec| (spec.name, spec.doc));
    let responders = REGISTRY.responders.iter().map(|spec| (spec.name, spec.doc));
    for (name, doc) in detectors.chain(responders) {
        assert_eq!(doc.lines().next(), Some(format!("# {name}").as_str()), "the page's title");
        assert!(names(&schema, name), "`{name}` is not in the schema");
    }
}

fn names(schema: &Value, name: &str) -> bool {
    match schema {
        Value::String(text) => text == name,
        Value::Array(items) => items.iter().any(|item| names(item, name)),
        Value::Object(fields) => fields.values().any(|field| names(field, name)),
        _ => false,
    }
}
