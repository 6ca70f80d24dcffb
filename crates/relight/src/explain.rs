//! `relight explain`: the page that lies beside each plug-in's source.

use crate::REGISTRY;
use crate::failure::Failure;
use crate::output::{self, BOLD};

pub(crate) fn run(name: Option<&str>) -> Result<(), Failure> {
    let detectors = || REGISTRY.detectors.iter().map(|spec| (spec.name, spec.doc));
    let responders = || REGISTRY.responders.iter().map(|spec| (spec.name, spec.doc));
    let Some(name) = name else {
        return output::print(&(list("Detectors", detectors()) + "\n" + &list("Responders", responders())));
    };
    if let Some((_, doc)) = detectors().chain(responders()).find(|(known, _)| *known == name) {
        return output::print(doc);
    }
    let have: Vec<&str> = detectors().chain(responders()).map(|(name, _)| name).collect();
    Err(Failure::usage(format_args!(
        "no detector or responder is named `{name}` (have: {})",
        have.join(", ")
    )))
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
