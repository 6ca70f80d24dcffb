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

    /// Labels.
    type Pairs = Vec<(String, String)>;

    /// A line as a reader of the format takes it: name, labels, value.
    fn read(line: &str) -> Option<(&str, Pairs, f64)> {
        let (name, mut rest) = line.split_once('{')?;
        let mut labels = Vec::new();
        loop {
            let (label, quoted) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), quoted.char_indices());
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        known @ ('\\' | '"') => known,
                        _ => return None,
                    }),
                    (_, plain) => value.push(plain),
                }
            };
            labels.push((label.to_owned(), value));
            match quoted[end..].strip_prefix(',') {
                Some(more) => rest = more,
                None => return Some((name, labels, quoted[end..].strip_prefix("} ")?.parse().ok()?)),
            }
        }
    }

    /// Scenario: label values that try to end their quotes, their line or the page.
    /// Guarantee: each is one line from which a reader gets the value back, to the last character.
    #[test]
    fn h15_metrics_hostile_label() {
        for hostile in
            ["a\"} 1\nb\\", "\\n", "\\\"", "", "\r\n# TYPE x y", "\u{0}\u{1B}[2J\u{202E}", "a=\"b\",c{}"]
        {
            let page = render(&[Sample::labelled(SOURCE, [hostile, "requests", "ok"], 2.0)]);
            let samples: Vec<&str> = page.split('\n').filter(|line| !line.starts_with("# ")).collect();
            let [line, ""] = samples[..] else { panic!("{hostile:?}: {page}") };
            let (name, labels, value) = read(line).unwrap_or_else(|| panic!("{hostile:?}: {line}"));
            let expected = [("source", hostile), ("what", "requests"), ("kind", "ok")];
            assert_eq!((name, value), ("relight_source_total", 2.0));
            assert_eq!(labels, expected.map(|(label, value)| (label.to_owned(), value.to_owned())));
        }
    }
}
