//! What records of each format come to.

use rdkafka::config::ClientConfig;

use super::rig::{Rig, Seen, TOPIC};

/// Guarantee: the client has what the settings offer; what it was built without shows only when one is made.
#[test]
fn the_client_has_its_features() {
    let config = ClientConfig::new().create_native_config().expect("a config");
    let features = config.get("builtin.features").expect("the client says what it has");
    for feature in ["gzip", "snappy", "lz4", "zstd", "ssl", "sasl_plain", "sasl_scram"] {
        assert!(features.split(',').any(|has| has == feature), "{feature} is not in {features}");
    }
}

fn check(format: &str, sent: &[(&str, &[(&str, &str)])], expected: &[&str]) {
    let rig = Rig::new(1);
    for (value, headers) in sent {
        rig.send(0, Some(value.as_bytes()), headers);
    }
    rig.flush();
    let mut running = rig.start(&rig.settings(format, ""), &[]);
    running.until("records", |running| running.engine.offsets("s/t/0").len() >= sent.len());
    let lines = running.engine.of("s/t/0").iter().filter_map(|seen| match seen {
        Seen::Record(_, lines) => Some(lines.clone()),
        _ => None,
    });
    assert_eq!(lines.flatten().collect::<Vec<_>>(), expected);
}

/// Scenario: records of each format that is decoded here, in the ways in which they may be sent.
/// Guarantee: they come to the points and events that they say.
#[test]
fn formats_are_read() {
    let otlp = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},
        "scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"5000000000","asDouble":2.5}]}}]}]}]}"#;
    check(r#""format":"otlp_json""#, &[(otlp, &[])], &[r#"m{service.name="a"} 5 2.5"#]);
    let mapping =
        r#""format":"json","mapping":{"metric":"m","value_field":"v","labels":{"host":"tags.host"}}"#;
    check(mapping, &[(r#"{"v":1,"tags":{"host":"h"}}"#, &[])], &[r#"m{host="h"} 1700000000 1"#]);
    let event =
        r#"{"specversion":"1.0","id":"1","source":"ci","type":"deploy","time":"1970-01-01T00:00:07Z"}"#;
    let head = [("ce_specversion", "1.0"), ("ce_id", "2"), ("ce_source", "ci"), ("ce_type", "flag")];
    let body = r#"{"labels":{"service":"a"}}"#;
    check(
        r#""format":"cloudevents""#,
        &[(event, &[]), (body, &head)],
        &[r#"deploy{source="ci"} 7"#, r#"flag{service="a",source="ci"} 1700000000"#],
    );
}

/// Scenario: OTLP metrics in protobuf under every codec.
/// Guarantee: each value reaches the engine as it was sent, undecoded.
#[test]
fn codecs_are_unpacked() {
    let value: Vec<u8> = (0..20_000_u32).flat_map(|n| (n / 64).to_le_bytes()).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let rig = Rig::without_topic(codec);
        rig.cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        rig.produce(0, [&value]);
        let mut running = rig.start(&rig.proto(), &[]);
        running.expect_offsets("s/t/0", 0..1);
        assert_eq!(running.engine.of("s/t/0")[0], Seen::Metrics(0, value.clone()), "{codec}");
    }
}
