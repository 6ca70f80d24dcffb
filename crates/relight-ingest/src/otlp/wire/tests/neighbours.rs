//! One message that cannot be read, among others: it is refused alone, and named.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};

use super::*;

/// Bytes that are no message of OTLP, of any kind: a length beyond the end, a varint cut off, a field number 0.
const DAMAGE: [&[u8]; 4] = [&[0x0A, 0x7F], &[0x18, 0x80], &[0x00, 0x01], &[0x7C]];

fn field(number: u8, message: &[u8]) -> Vec<u8> {
    writings::enclosed(&[number], message)
}

/// A request with damaged messages among those of this kind: 1 resources, 2 scopes, 3 metrics, 4 points.
struct Damaged {
    level: u8,
    damage: &'static [u8],
    /// Before which of them, counted over the request.
    before: Vec<usize>,
    met: usize,
    refused: u32,
}

impl Damaged {
    fn among(&mut self, level: u8, number: u8, messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            if level == self.level {
                if self.before.contains(&self.met) {
                    out.extend(field(number, self.damage));
                    self.refused += 1;
                }
                self.met += 1;
            }
            out.extend(field(number, &message));
        }
        out
    }

    fn request(&mut self, request: &ExportMetricsServiceRequest) -> Vec<u8> {
        let resources: Vec<_> =
            request.resource_metrics.iter().map(|resource| self.resource(resource)).collect();
        self.among(1, 1, resources)
    }

    fn resource(&mut self, resource: &ResourceMetrics) -> Vec<u8> {
        let mut out = resource.resource.as_ref().map_or_else(Vec::new, |own| field(1, &own.encode_to_vec()));
        let scopes: Vec<_> = resource.scope_metrics.iter().map(|scope| self.scope(scope)).collect();
        out.extend(self.among(2, 2, scopes));
        out
    }

    fn scope(&mut self, scope: &ScopeMetrics) -> Vec<u8> {
        let mut out = scope.scope.as_ref().map_or_else(Vec::new, |own| field(1, &own.encode_to_vec()));
        let metrics: Vec<_> = scope.metrics.iter().map(|metric| self.metric(metric)).collect();
        out.extend(self.among(3, 2, metrics));
        out
    }

    fn metric(&mut self, metric: &Metric) -> Vec<u8> {
        let mut out = field(1, metric.name.as_bytes());
        let (number, points, rest) = match &metric.data {
            None => return out,
            Some(Data::Gauge(data)) => (5, encoded(&data.data_points), Vec::new()),
            Some(Data::Sum(data)) => {
                let is_monotonic = [0x18, u8::from(data.is_monotonic)];
                let rest = [temporality(data.aggregation_temporality), is_monotonic.to_vec()].concat();
                (7, encoded(&data.data_points), rest)
            }
            Some(Data::Histogram(data)) => {
                (9, encoded(&data.data_points), temporality(data.aggregation_temporality))
            }
            Some(Data::ExponentialHistogram(data)) => {
                (10, encoded(&data.data_points), temporality(data.aggregation_temporality))
            }
            Some(Data::Summary(data)) => (11, encoded(&data.data_points), Vec::new()),
        };
        let mut data = self.among(4, 1, points);
        data.extend(rest);
        out.extend(field(number, &data));
        out
    }
}

fn encoded<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
    messages.iter().map(Message::encode_to_vec).collect()
}

fn temporality(of: i32) -> Vec<u8> {
    let mut out = vec![0x10];
    prost::encoding::encode_varint(of as u64, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Scenario: a damaged resource, scope, metric or point before any others of its kind, several times.
    /// Guarantee: all others are read as without it, cold and warm; each damaged one is counted as one that is malformed.
    #[test]
    fn damage_refuses_itself_alone(request in requests::metrics(), level in 1_u8..=4, damage in 0..DAMAGE.len(),
        before in prop::collection::vec(0..6_usize, 1..4)) {
        let mut damaged = Damaged { level, damage: DAMAGE[damage], before, met: 0, refused: 0 };
        let request = Message::decode(&request.encode_to_vec()[..]).expect("prost wrote it");
        let body = damaged.request(&request);
        let mut expected = reference::read(&request);
        if damaged.refused > 0 {
            match expected.refused.iter_mut().find(|(reason, _)| *reason == Reason::Malformed) {
                Some((_, n)) => *n += damaged.refused,
                None => expected.refused.push((Reason::Malformed, damaged.refused)),
            }
            expected.refused.sort_unstable();
        }
        let only_malformed = expected.refused.iter().all(|(reason, _)| *reason == Reason::Malformed);
        let is_nothing = damaged.refused > 0 && expected.len() == 0 && only_malformed;
        let mut source = Source::default();
        for _ in 0..2 {
            match source.read(&body, |_| true) {
                Err(WireError::Malformed { .. }) if is_nothing => {}
                read => prop_assert_eq!(&read, &Ok(expected.clone())),
            }
        }
    }
}

/// Scenario: a resource with a service, and in it a metric whose points, one of them, or itself cannot be read.
/// Guarantee: the refusal names metric, service and cause, and counts the points that lie in what is refused.
#[test]
fn refusals_are_named() {
    let point = [0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0x31, 7, 0, 0, 0, 0, 0, 0, 0];
    let text = |text: &[u8]| writings::enclosed(&[2, 1], text);
    let service = [field(1, b"service.name"), text(b"shop")].concat();
    let resource = writings::enclosed(&[1, 1], &service);
    let metric = |name: &[u8], points: &[&[u8]]| {
        let points: Vec<u8> = points.iter().flat_map(|point| field(1, point)).collect();
        field(2, &[field(1, name), field(5, &points)].concat())
    };
    let bad_attribute = [&point[..], &field(7, &[field(1, b"k"), text(&[0xFF])].concat())].concat();
    let cut = [metric(b"whole", &[&point]), metric(b"cut", &[&point])].concat();
    for (metrics, taken, said) in [
        (
            metric(b"latency", &[&point, &point[..4], &point]),
            2,
            "`latency` of service `shop`: malformed 1 (malformed point: cut off within eight bytes)",
        ),
        (
            metric(b"latency", &[&bad_attribute, &point]),
            1,
            "`latency` of service `shop`: malformed 1 (malformed point: a text that is not UTF-8)",
        ),
        (
            [metric(b"bad\xFF", &[&point, &point]), metric(b"good", &[&point])].concat(),
            1,
            "service `shop`: malformed 2 (malformed metric: a text that is not UTF-8)",
        ),
        (metric(b"", &[&point]), 0, "service `shop`: malformed 1 (a metric without a name)"),
    ] {
        let body = field(1, &[resource.clone(), field(2, &metrics)].concat());
        let mut record = Record::default();
        OtlpMetrics::default().decode(&body, 0, None, &mut record).expect("some of it can be read");
        let refusals: Vec<_> = record.refusals.kinds().iter().map(ToString::to_string).collect();
        assert_eq!((record.points.len(), refusals), (taken, vec![said.to_owned()]));
    }
    // What is left of a request of which nothing can be read is its names.
    let body = field(1, &[resource, field(2, &cut[..cut.len() - 3])].concat());
    let mut record = Record::default();
    let read = OtlpMetrics::default().decode(&body, 0, None, &mut record);
    assert!(matches!(read, Err(WireError::Malformed { .. })), "{read:?}");
    let said = "service `shop`: malformed 1 (malformed scope: a length beyond the end of its message)";
    assert_eq!((record.refused.len(), record.refusals.kinds()[0].to_string().as_str()), (0, said));
}

/// Scenario: requests that break off: before anything was taken, and behind a resource that is whole.
/// Guarantee: the first is an error and leaves nothing; of the second all but the rest is taken.
#[test]
fn what_breaks_off_refuses_the_rest() {
    let point = [0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0x31, 7, 0, 0, 0, 0, 0, 0, 0];
    let metric = [field(1, b"m"), writings::enclosed(&[5, 1], &point)].concat();
    let whole = writings::enclosed(&[1, 2, 2], &metric);
    let mut record = Record::default();
    let read = OtlpMetrics::default().decode(&whole[..whole.len() - 1], 0, None, &mut record);
    assert!(matches!(read, Err(WireError::Malformed { .. })), "{read:?}");
    assert!(record.points.is_empty() && record.refused.is_empty());

    let body = [&whole[..], &whole[..9]].concat();
    OtlpMetrics::default().decode(&body, 0, None, &mut record).expect("the first resource is whole");
    assert_eq!((record.points.len(), &record.refused[..]), (1, &[(Reason::Malformed, 1)][..]));
    let said = record.refusals.kinds()[0].to_string();
    assert!(said.ends_with("the rest of the request cannot be read)"), "{said}");
}
