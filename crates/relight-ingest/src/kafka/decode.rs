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
