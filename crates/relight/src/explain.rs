//! `relight explain`: the page that lies beside each plug-in's source, and relight's own metrics.

use relight_core::telemetry::{CATALOGUE, Metric, MetricKind};

use crate::REGISTRY;
use crate::failure::Failure;
use crate::output::{self, BOLD};

/// The name under which relight's own metrics are explained.
const METRICS: &str = "metrics";

pub(crate) fn run(name: Option<&str>) -> Result<(), Failure> {
    let detectors = || REGISTRY.detectors.iter().map(|spec| (spec.name, spec.doc));
    let responders = || REGISTRY.responders.iter().map(|spec| (spec.name, spec.doc));
    let Some(name) = name else {
        let more = [(METRICS, "What relight shows of itself.")];
        let lists = [
            list("Detectors", detectors()),
            list("Responders", responders()),
            list("More", more.into_iter()),
        ];
        return output::print(&lists.join("\n"));
    };
    if name == METRICS {
        return output::print(&metrics());
    }
    if let Some((_, doc)) = detectors().chain(responders()).find(|(known, _)| *known == name) {
        return output::print(doc);
    }
    if let Some(metric) = CATALOGUE.iter().find(|metric| metric.name == name) {
        return output::print(&page(metric));
    }
    let have: Vec<&str> = detectors().chain(responders()).map(|(name, _)| name).collect();
    let metrics = CATALOGUE.iter().map(|metric| metric.name);
    let hint = match relight_config::nearest(&name.to_lowercase(), have.iter().copied().chain(metrics)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!(" (have: {}, {METRICS})", have.join(", ")),
    };
    Err(Failure::usage(format_args!("no detector, responder or metric is named `{name}`{hint}")))
}

fn metrics() -> String {
    format!(
        "relight's own metrics, at `/metrics` of its `admin`. Those without a value are left out.\n\n{}",
        CATALOGUE.iter().map(page).collect::<String>()
    )
}

fn page(metric: &Metric) -> String {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    };
    let labels = match metric.labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(", ")),
    };
    format!("{BOLD}{}{labels}{BOLD:#}  {kind}\n    {}\n", metric.name, metric.help.trim())
}

fn list<'a>(title: &str, pages: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines = pages.map(|(name, doc)| format!("  {name:<14}{}\n", first_sentence(doc)));
    format!("{BOLD}{title}{BOLD:#}\n{}", lines.collect::<String>())
}

/// The first sentence of a page's first paragraph.
fn first_sentence(doc: &str) -> String {
    let lines = doc.lines().skip_while(|line| line.is_empty() || line.starts_with('#'));
    let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let text = paragraph.join(" ");
    let end = text.find([':', ';']).into_iter().chain(text.find(". ")).min();
    text[..end.unwrap_or(text.len())].trim_end_matches('.').to_owned()
}
