//! From a record's value to what the engine takes.
//!
//! OTLP metrics in protobuf are handed over as they are: the engine reads them without a copy of each point.

use rdkafka::message::{Headers, Message};
use relight_core::Timestamp;
use relight_core::record::{Reason, Record};
use relight_core::source::kafka::{Format, Topic};

use super::mapping::Mapper;
use super::pool::Pool;
use crate::cloudevents;
use crate::complaints::Complaints;
use crate::json;
use crate::live::Load;
use crate::otlp::Otlp;
use crate::source::{Decoder, Sink};

/// Reads values of one topic.
pub(super) enum Decode {
    OtlpProto(Pool),
    OtlpJson(Box<Otlp>),
    Json(Box<Mapper>),
    CloudEvents,
}

impl Decode {
    pub(super) fn new(topic: &Topic) -> Self {
        match (topic.format, &topic.mapping) {
            (Format::OtlpProto, _) => Self::OtlpProto(Pool::new()),
            (Format::OtlpJson, _) => Self::OtlpJson(Box::new(Otlp::new())),
            (Format::Json, mapping) => {
                Self::Json(Box::new(Mapper::new(&mapping.clone().unwrap_or_default())))
            }
            (Format::Cloudevents, _) => Self::CloudEvents,
        }
    }

    /// Reads one value; fails with the reason if nothing of it can be used.
    pub(super) fn read(
        &mut self,
        message: &impl Message,
        value: &[u8],
        received: Timestamp,
    ) -> Result<Load, String> {
        let mut record = Record::default();
        match self {
            Self::OtlpProto(_) => {}
            Self::OtlpJson(_) | Self::Json(_) => json::bounded(value)?,
            Self::CloudEvents => json::bounded_tree(value)?,
        }
        match self {
            Self::OtlpProto(pool) => return Ok(Load::Metrics(pool.copy(value))),
            Self::OtlpJson(decoder) => {
                let (mut partitions, mut complaints) =
                    (vec![message.topic().to_owned()], Complaints::default());
                let line = message.offset().max(0) as u64;
                decoder.decode(value, &mut Sink::new(&mut record, &mut partitions, &mut complaints, line));
                let useless = record.points.is_empty() && record.events.is_empty();
                if useless && record.refused.iter().any(|(reason, _)| *reason == Reason::Malformed) {
                    return Err(complaints
                        .texts()
                        .last()
                        .cloned()
                        .unwrap_or_else(|| "no OTLP JSON".to_owned()));
                }
            }
            Self::Json(mapper) => mapper.read(value, received, &mut record)?,
            Self::CloudEvents => record.events = events(message, value, received)?,
        }
        Ok(Load::Record(Box::new(record)))
    }
}

/// Binary mode has its attributes in headers `ce_...`; without them it is structured mode.
fn events(
    message: &impl Message,
    value: &[u8],
    received: Timestamp,
) -> Result<Vec<relight_core::record::Event>, String> {
    let attributes: Vec<(&str, &str)> = message
        .headers()
        .into_iter()
        .flat_map(Headers::iter)
        .filter_map(|header| {
            Some((header.key.strip_prefix("ce_")?, std::str::from_utf8(header.value?).ok()?))
        })
        .collect();
    if attributes.iter().any(|(key, _)| *key == "specversion") {
        return cloudevents::binary(attributes, value, received).map(|event| vec![event]);
    }
    cloudevents::structured(value, received)
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp as Stamp;
    use rdkafka::message::OwnedMessage;

    use super::*;

    /// Scenario: documents of a few megabytes that hold more than they should, in each format of JSON.
    /// Guarantee: they are dead letters before they are decoded, which would take fifty times as much.
    #[test]
    fn b05_a_json_bomb_is_a_dead_letter() {
        let objects = "{},".repeat(600_000);
        let values = "0,".repeat(1_100_000);
        for (format, bomb, why) in [
            (
                "otlp_json",
                format!(r#"{{"resourceMetrics":[{objects}{{}}]}}"#),
                "objects at once (at most 500000)",
            ),
            ("json", format!("[{objects}{{}}]"), "objects at once (at most 500000)"),
            ("cloudevents", format!("[{values}0]"), "values at once (at most 1000000)"),
        ] {
            let topic = format!(
                r#"{{"topic":"t","format":"{format}","mapping":{{"metric":"m","value_field":"v"}}}}"#
            );
            let topic: Topic = serde_json::from_str(&topic).expect("a topic");
            let message = OwnedMessage::new(None, None, "t".to_owned(), Stamp::NotAvailable, 0, 0, None);
            let read = Decode::new(&topic).read(&message, bomb.as_bytes(), Timestamp::MIN);
            assert!(read.err().is_some_and(|told| told.ends_with(why)), "{format}");
        }
    }
}
