//! Messages as the Collector's file exporter writes them with `format: proto` or `compression: zstd`: export requests of any
//! signal, in protobuf or JSON, each a record.
//!
//! A file may hold several signals, and protobuf does not say which a message is of: its first entry's fields do.

use relight_core::aliases::Aliases;
use relight_core::record::Reason;

use super::Otlp;
use super::wire::{OtlpMetrics, Signal, decode_logs, signal_of};
use crate::source::{Decoder, Sink};

/// Decoder of messages of either writing.
pub(crate) struct Messages {
    json: Otlp,
    metrics: OtlpMetrics,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self { json: Otlp::new(), metrics: OtlpMetrics::default() }
    }
}

impl Decoder for Messages {
    fn decode(&mut self, message: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        // No message of OTLP begins with the field that this byte would be.
        if message.trim_ascii_start().first() == Some(&b'{') {
            return self.json.decode(message, out);
        }
        let (offset, received) = (out.record.offset, out.record.received);
        let read = match signal_of(message) {
            Signal::Metrics => self.metrics.decode(message, offset, received, out.record),
            Signal::Logs => decode_logs(message, offset, received, out.record),
            Signal::Spans => {
                out.refuse(Reason::Malformed, "traces are not read");
                return Some(0);
            }
        };
        // A capture's series are known by their keys.
        out.record.points.iter_mut().for_each(|point| point.alias = Aliases::NONE);
        out.complain();
        if let Err(error) = read {
            out.refuse(Reason::Malformed, error);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::prelude::*;
    use prost::Message as _;
    use relight_core::record::Record;

    use super::*;
    use crate::otlp::wire::tests::requests;
    use crate::source::decode_lines;

    fn decode(message: &[u8]) -> Record {
        decode_lines(&mut Messages::new(), &[message]).0.remove(0).1
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Guarantee: a message is read as what it is of, as the request that it is.
        #[test]
        fn signals_are_told_apart(metrics in requests::metrics(), logs in requests::logs(), traces in requests::traces()) {
            let metrics: ExportMetricsServiceRequest = metrics;
            let body = metrics.encode_to_vec();
            let mut expected = Record::default();
            let read = OtlpMetrics::default().decode(&body, 0, None, &mut expected);
            prop_assert!(read.is_ok());
            expected.points.iter_mut().for_each(|point| point.alias = Aliases::NONE);
            prop_assert_eq!(&decode(&body).points, &expected.points);
            let has_time = |request: &ExportLogsServiceRequest| {
                let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
                let first = scopes.flat_map(|scope| &scope.log_records).next();
                first.is_some_and(|log| log.time_unix_nano != 0 || log.observed_time_unix_nano != 0)
            };
            if has_time(&logs) {
                let body = logs.encode_to_vec();
                decode_logs(&body, 0, None, &mut expected).expect("prost wrote it");
                prop_assert_eq!(&decode(&body).events, &expected.events);
            }
            let traces: ExportTraceServiceRequest = traces;
            let mut spans = traces.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            if spans.any(|scope| scope.spans.first().is_some_and(|span| span.start_time_unix_nano != 0)) {
                let record = decode(&traces.encode_to_vec());
                prop_assert_eq!((record.points.len(), record.refused.first()), (0, Some(&(Reason::Malformed, 1))));
            }
        }
    }
}
