//! Names in a condition: what they may be, and what they stand for.
//!
//! Works on the syntax tree alone; nothing is evaluated here.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;
use relight_core::Span;
use relight_core::rule::CHANGES_FOR;

use crate::errors::{nearest, no_such, unknown};

/// What an expression may name.
pub(crate) struct Scope<'a> {
    /// Every detector of the config.
    pub(crate) detectors: &'a [String],
    /// The labels of the rule's groups, if they are known beforehand.
    pub(crate) group: Option<&'a [String]>,
}

/// What a resolved name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    /// A field of a detector.
    Detector(usize, Field),
    /// A label of the group.
    Label(String),
    /// One of [`Names::changes`].
    Changed(usize),
}

/// What can be asked of a detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field {
    Score,
    Rows,
    Anomalous,
    InBand,
    Stale,
}

const FIELDS: [(&str, Field); 5] = [
    ("score", Field::Score),
    ("rows", Field::Rows),
    ("anomalous", Field::Anomalous),
    ("in_band", Field::InBand),
    ("stale", Field::Stale),
];

/// Resolves names in a syntax tree: `err.score`, `group.service` and `changed("deploy", "30m")` each become
/// one variable, so that an evaluation looks nothing up in maps.
pub(crate) struct Names<'a> {
    scope: &'a Scope<'a>,
    pub(crate) slots: Vec<(String, Slot)>,
    pub(crate) changes: Vec<(String, Span)>,
    pub(crate) errors: Vec<String>,
}

impl<'a> Names<'a> {
    /// Replaces each name in an expression by the one variable that it stands for.
    pub(crate) fn resolve(expression: &mut Expression, scope: &'a Scope<'a>) -> Self {
        let mut names = Self { scope, slots: Vec::new(), changes: Vec::new(), errors: Vec::new() };
        names.part(expression);
        names
    }

    fn part(&mut self, part: &mut Expression) {
        let slot = match &mut part.expr {
            Expr::Select(select) if !select.test => match &select.operand.expr {
                Expr::Ident(name) => self.member(name, &select.field),
                _ => Err("only detectors and `group` have fields".to_owned()),
            },
            Expr::Ident(name) => Err(self.bare(name)),
            Expr::Call(call) => match self.call(call) {
                Some(slot) => slot,
                None => return,
            },
            Expr::List(list) => return list.elements.iter_mut().for_each(|part| self.part(part)),
            Expr::Literal(_) => return,
            _ => Err("only comparisons, arithmetic, lists and functions are allowed here".to_owned()),
        };
        match slot {
            Ok((name, slot)) => {
                if !self.slots.iter().any(|(known, _)| *known == name) {
                    self.slots.push((name.clone(), slot));
                }
                part.expr = Expr::Ident(name);
            }
            Err(message) => self.errors.push(message),
        }
    }

    /// `NAME.FIELD`.
    fn member(&self, name: &str, field: &str) -> Result<(String, Slot), String> {
        if name == "group" {
            return self.label(field);
        }
        let Some(ix) = self.detector(name) else {
            return Err(self.bare(name));
        };
        let Some((_, known)) = FIELDS.iter().find(|(known, _)| *known == field) else {
            let message = unknown("field", field, FIELDS.iter().map(|(known, _)| *known));
            return Err(format!("{name}.{field}: {message}"));
        };
        Ok((format!("{name}.{field}"), Slot::Detector(ix, *known)))
    }

    fn label(&self, label: &str) -> Result<(String, Slot), String> {
        let known = self.scope.group.is_none_or(|group| group.iter().any(|known| known == label));
        if !known {
            let have = self.scope.group.unwrap_or_default().iter().map(String::as_str);
            return Err(format!("group.{label}: {}", no_such("label of `group_by`", label, have)));
        }
        Ok((format!("group.{label}"), Slot::Label(label.to_owned())))
    }

    /// `group["LABEL"]` and `changed("KIND", "WINDOW")`; of other calls, the arguments.
    fn call(&mut self, call: &mut CallExpr) -> Option<Result<(String, Slot), String>> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [of, label]) if matches!(&of.expr, Expr::Ident(name) if name == "group") => {
                let message = "`group[...]` takes a quoted label";
                return Some(text_of(label).ok_or(message.to_owned()).and_then(|label| self.label(&label)));
            }
            ("changed", args) => return Some(self.changed(args)),
            _ => {}
        }
        call.target.iter_mut().for_each(|part| self.part(part));
        call.args.iter_mut().for_each(|part| self.part(part));
        None
    }

    fn changed(&mut self, args: &[Expression]) -> Result<(String, Slot), String> {
        let texts: Option<Vec<String>> = args.iter().map(text_of).collect();
        let Some([kind, window]) = texts.as_deref() else {
            return Err(
                "`changed` takes a kind of event and a window, both quoted: changed(\"deploy\", \"30m\")"
                    .to_owned(),
            );
        };
        let span: Span = window.parse().map_err(|error| format!("changed: {error}"))?;
        if span > CHANGES_FOR {
            return Err(format!("changed: {window} is too long: changes are remembered for {CHANGES_FOR}"));
        }
        let name = format!("changed({kind:?}, {window:?})");
        let known = self.changes.iter().position(|known| known.0 == *kind && known.1 == span);
        let ix = known.unwrap_or_else(|| {
            self.changes.push((kind.clone(), span));
            self.changes.len() - 1
        });
        Ok((name, Slot::Changed(ix)))
    }

    fn detector(&self, name: &str) -> Option<usize> {
        self.scope.detectors.iter().position(|known| known == name)
    }

    /// Why a name cannot stand alone.
    fn bare(&self, name: &str) -> String {
        if name == "group" {
            "`group` is a map: ask for a label of it, `group.LABEL` or `group[\"LABEL\"]`".to_owned()
        } else if self.detector(name).is_some() {
            format!("`{name}` is a detector: ask for its score, `{name}.score`")
        } else {
            let have = || self.scope.detectors.iter().map(String::as_str);
            // Any two names of one or two letters are near each other.
            match nearest(name, have()).filter(|_| name.chars().count() > 2) {
                Some(near) => format!("no detector named `{name}`; did you mean `{near}`?"),
                None => no_such("detector", name, have()),
            }
        }
    }
}

fn text_of(part: &Expression) -> Option<String> {
    match &part.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

/// The quoted texts of an expression.
pub(crate) fn texts_in(part: &Expression, texts: &mut Vec<String>) {
    match &part.expr {
        Expr::Call(call) => {
            call.target.iter().map(AsRef::as_ref).chain(&call.args).for_each(|part| texts_in(part, texts));
        }
        Expr::List(list) => list.elements.iter().for_each(|part| texts_in(part, texts)),
        _ => texts.extend(text_of(part)),
    }
}
