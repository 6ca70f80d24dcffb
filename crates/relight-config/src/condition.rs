//! Conditions in CEL.
//!
//! CEL checks no types before it runs, so it is done here, once, when the config is read: names are
//! resolved in the syntax tree, and each part of the expression is evaluated against sample turns, whatever
//! `&&` and `||` would skip. Comprehensions (`all`, `exists`, `map`) are refused: the cost of an
//! evaluation is bounded by the length of its text.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::{Expression, Parser};
use cel::{Context, Env, ExecutionError, ExecutionError as E, Value};
use relight_core::rule::{Condition, ConditionError, DetectorView, RuleView};
use relight_core::{Labels, Span};

use crate::names::{Field, Names, Scope, Slot, texts_in};

/// The longest expression; its parser recurses, so this bounds its depth as well.
const MAX_BYTES: usize = 2048;

/// Texts of an expression that are tried as values of labels.
const MAX_TEXTS: usize = 16;
/// A label's value that no expression has in mind.
const NO_LITERAL: &str = "\u{1}";
/// Operators that do not always look at all of their operands.
const JOINS: [&str; 4] =
    [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT, operators::CONDITIONAL];

/// CEL's standard functions, shared by all conditions.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled condition.
pub(crate) struct Cel {
    text: String,
    expression: Expression,
    names: Vec<(String, Slot)>,
    changes: Vec<(String, Span)>,
}

impl Cel {
    /// Compiles and checks an expression; the errors are all that are wrong with it.
    pub(crate) fn compile(text: &str, scope: &Scope<'_>) -> Result<Self, Vec<String>> {
        if text.len() > MAX_BYTES {
            return Err(vec![format!(
                "an expression of {} bytes; at most {MAX_BYTES} are allowed",
                text.len()
            )]);
        }
        let mut expression = Parser::default().parse(text).map_err(|errors| {
            let each = errors.errors.iter().map(|error| {
                // The parser goes on to list every token of its grammar that it would have taken.
                let message = error.msg.split(" expecting {").next().unwrap_or_default();
                format!("not valid CEL at {}:{}: {message}", error.pos.0, error.pos.1)
            });
            each.collect::<Vec<_>>()
        })?;
        let Names { slots, changes, mut errors, .. } = Names::resolve(&mut expression, scope);
        let condition = Self { text: text.to_owned(), expression, names: slots, changes };
        if errors.is_empty() {
            condition.check_types(&condition.expression, &mut errors);
        }
        errors.sort();
        errors.dedup();
        if errors.is_empty() { Ok(condition) } else { Err(errors) }
    }

    /// The detectors that are named, as indices into [`Scope::detectors`].
    pub(crate) fn detectors(&self) -> BTreeSet<usize> {
        let named = self.names.iter().filter_map(|(_, slot)| match slot {
            Slot::Detector(ix, _) => Some(*ix),
            _ => None,
        });
        named.collect()
    }

    /// The labels of the group that are named.
    pub(crate) fn labels(&self) -> Vec<String> {
        let named = self.names.iter().filter_map(|(_, slot)| match slot {
            Slot::Label(label) => Some(label.clone()),
            _ => None,
        });
        named.collect()
    }

    /// Makes it look its detectors up in a rule's own list.
    pub(crate) fn bind(mut self, rule: &[usize]) -> Self {
        for (_, slot) in &mut self.names {
            if let Slot::Detector(ix, _) = slot {
                *ix = rule.iter().position(|own| own == ix).expect("a rule lists what its conditions name");
            }
        }
        self
    }

    /// Whether it can be true while every score is 0: with few rows and many, with and without events, and
    /// with each text that the expression itself compares labels to.
    pub(crate) fn holds_when_calm(&self) -> bool {
        let mut texts = Vec::new();
        texts_in(&self.expression, &mut texts);
        texts.truncate(MAX_TEXTS);
        texts.push(String::new());
        texts.push(NO_LITERAL.to_owned());
        let samples = texts.iter().flat_map(|label| {
            [(1, false), (1, true), (100, false), (100, true)].map(|(rows, changed)| {
                let calm = DetectorView { rows, with_data: rows, ..DetectorView::default() };
                self.sample(calm, changed, label)
            })
        });
        samples
            .into_iter()
            .any(|sample| matches!(self.evaluate(&self.expression, &sample.view()), Ok(Value::Bool(true))))
    }

    /// Evaluates each part that `&&`, `||`, `!` and `?:` join, so that none hides behind another.
    fn check_types(&self, part: &Expression, errors: &mut Vec<String>) {
        if let Expr::Call(CallExpr { func_name, args, .. }) = &part.expr
            && JOINS.contains(&func_name.as_str())
        {
            return args.iter().for_each(|part| self.check_types(part, errors));
        }
        let calm = DetectorView { rows: 1, with_data: 1, ..DetectorView::default() };
        let wild = DetectorView { score: 2.5, rows: 4, anomalous: 3, with_data: 4, stale: true, ..calm };
        for sample in [self.sample(calm, false, NO_LITERAL), self.sample(wild, true, NO_LITERAL)] {
            match self.evaluate(part, &sample.view()) {
                // These hang on the values, and count as false when they happen.
                Ok(Value::Bool(_)) | Err(E::DivisionByZero(_) | E::RemainderByZero(_) | E::Overflow(..)) => {}
                Ok(other) => {
                    return errors.push(format!(
                        "must be true or false, but a part of it is of type {}",
                        other.type_of()
                    ));
                }
                Err(E::UndeclaredReference(name)) => {
                    return errors.push(format!("no function named `{name}`"));
                }
                Err(error) => return errors.push(error.to_string()),
            }
        }
    }

    fn sample(&self, detector: DetectorView, changed: bool, label: &str) -> Sample {
        let labels = self.names.iter().filter_map(|(_, slot)| match slot {
            Slot::Label(name) => Some((name.clone(), label.to_owned())),
            _ => None,
        });
        let detectors = self.detectors().last().map_or(0, |last| last + 1);
        Sample { detectors: vec![detector; detectors], group: Labels::new(labels), changed }
    }

    fn evaluate(&self, part: &Expression, view: &RuleView<'_>) -> Result<Value, ExecutionError> {
        // Asked for beforehand: the resolver must be `Sync`, which a view's own function need not be.
        let changed = self.changes.iter().map(|(kind, window)| (view.changed)(kind, *window)).collect();
        let turn = Turn { names: &self.names, detectors: view.detectors, group: view.group, changed };
        let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
        context.set_variable_resolver(&turn);
        Value::resolve(part, &context)
    }
}

impl Condition for Cel {
    fn holds(&self, view: &RuleView<'_>) -> Result<bool, ConditionError> {
        match self.evaluate(&self.expression, view) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(ConditionError(format!("is a {}, not true or false", other.type_of()))),
            Err(error) => Err(ConditionError(error.to_string())),
        }
    }

    fn text(&self) -> &str {
        &self.text
    }
}

/// A made-up turn.
struct Sample {
    detectors: Vec<DetectorView>,
    group: Labels,
    changed: bool,
}

impl Sample {
    fn view(&self) -> RuleView<'_> {
        let changed: &dyn Fn(&str, Span) -> bool = if self.changed { &|_, _| true } else { &|_, _| false };
        RuleView { detectors: &self.detectors, group: &self.group, changed }
    }
}

/// What names stand for in one turn; values are made when they are asked for.
struct Turn<'a> {
    names: &'a [(String, Slot)],
    detectors: &'a [DetectorView],
    group: &'a Labels,
    changed: Vec<bool>,
}

impl VariableResolver for Turn<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (_, slot) = self.names.iter().find(|(name, _)| name == variable)?;
        Some(match slot {
            Slot::Label(label) => CowVal::owned(CelString::from(self.group.get(label).unwrap_or_default())),
            Slot::Changed(ix) => CowVal::owned(CelBool::from(*self.changed.get(*ix)?)),
            Slot::Detector(ix, field) => {
                let detector = self.detectors.get(*ix)?;
                match field {
                    Field::Score => CowVal::owned(CelDouble::from(detector.score)),
                    Field::Rows => CowVal::owned(CelInt::from(i64::from(detector.rows))),
                    Field::Anomalous => CowVal::owned(CelInt::from(i64::from(detector.anomalous))),
                    Field::InBand => CowVal::owned(CelBool::from(detector.in_band())),
                    Field::Stale => CowVal::owned(CelBool::from(detector.stale)),
                }
            }
        })
    }
}
