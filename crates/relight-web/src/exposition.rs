//! Samples as Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

use relight_core::telemetry::{CATALOGUE, MetricKind, Sample};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric that has samples, in the order of the catalogue, each with its help.
pub(crate) fn render(samples: &[Sample]) -> String {
    let mut page = String::new();
    for metric in CATALOGUE {
        let mut of_metric = samples.iter().filter(|sample| sample.metric.name == metric.name).peekable();
        if of_metric.peek().is_none() {
            continue;
        }
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let help = metric.help.trim();
        let _ = writeln!(page, "# HELP {} {help}\n# TYPE {} {kind}", metric.name, metric.name);
        of_metric.for_each(|sample| line(sample, &mut page));
    }
    page
}

// Writing to a text cannot fail.
fn line(sample: &Sample, page: &mut String) {
    page.push_str(sample.metric.name);
    for (i, (name, value)) in sample.metric.labels.iter().zip(&sample.labels).enumerate() {
        let _ = write!(page, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(value));
    }
    if !sample.labels.is_empty() {
        page.push('}');
    }
    let _ = writeln!(page, " {}", sample.value);
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use relight_core::telemetry::SOURCE;

    use super::*;

    /// Guarantee: a hostile label value stays within its quotes.
    #[test]
    fn label_values_are_escaped() {
        let page = render(&[Sample::labelled(SOURCE, ["a\"} 1\nb\\", "requests", "ok"], 2.0)]);
        let last = page.lines().last();
        assert_eq!(last, Some(r#"relight_source_total{source="a\"} 1\nb\\",what="requests",kind="ok"} 2"#));
    }
}
