//! What lies in `deploy/` fits what it deploys. Whether systemd and Prometheus understand it is asked by `deploy/check.sh`.

use std::collections::BTreeSet;

use relight_config::parse;
use relight_core::telemetry::CATALOGUE;
use relight_testkit::golden::REGISTRY;
use relight_testkit::repository;

fn text(file: &str) -> String {
    std::fs::read_to_string(repository().join("deploy").join(file)).expect("it is in the tree")
}

/// Guarantee: an alert names no metric that relight does not have, and so would never fire.
#[test]
fn alerts_name_metrics_of_the_catalogue() {
    let known: BTreeSet<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    let text = text("alerts.yaml");
    let expressions = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("relight_")).collect();
    assert!(named.len() >= 10, "{named:?}");
    assert!(named.is_subset(&known), "{:?}", named.difference(&known));
}

/// Guarantee: the example's config is valid, and unit and container start relight with it, on the state folder that they give it.
#[test]
fn what_is_deployed_fits_together() {
    let config = parse("relight.yaml", &text("relight.yaml"), &REGISTRY, &|_| None);
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let state = config.daemon.state.display().to_string();
    let admin = config.daemon.admin.map(|at| at.to_string());
    assert_eq!((&*state, admin.as_deref()), ("/var/lib/relight", Some("127.0.0.1:9777")));
    let (unit, container) = (text("relight.service"), text("Containerfile"));
    assert!(unit.contains(
        "\nExecStart=/usr/bin/relight run -c /etc/relight/relight.yaml --state /var/lib/relight\n"
    ));
    assert!(
        unit.contains("\nStateDirectory=relight\n") && container.contains(&format!("\nVOLUME {state}\n"))
    );
    assert!(container.contains(
        "\nCMD [\"run\", \"-c\", \"/etc/relight/relight.yaml\", \"--state\", \"/var/lib/relight\"]\n"
    ));
    assert!(container.contains("CMD [\"/relight\", \"health\"]\n"));
}
