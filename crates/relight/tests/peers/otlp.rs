//! OTLP requests in JSON, as small as they get.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The present, in milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A point of each of `instances` gauges named `load`, of one service.
pub(crate) fn load(service: &str, instances: u64, at_ms: u64, value: f64) -> String {
    let point = |instance: u64| -> Value {
        json!({"timeUnixNano": (at_ms * 1_000_000).to_string(), "asDouble": value,
            "attributes": [{"key": "instance", "value": {"intValue": instance.to_string()}}]})
    };
    let points: Vec<Value> = (0..instances).map(point).collect();
    let service = json!([{"key": "service.name", "value": {"stringValue": service}}]);
    json!({"resourceMetrics": [{"resource": {"attributes": service}, "scopeMetrics": [{"metrics": [
        {"name": "load", "gauge": {"dataPoints": points}}]}]}]})
    .to_string()
}
