//! A detector that panics: on one value while it judges, on another while it learns, with its state half written.

use std::sync::Arc;

use relight_core::codec_struct;
use relight_core::detector::{Band, BankSource, ConfigError, Detector, Learn, Policy, Reading, source_of};
use relight_core::signal::SignalInfo;
use relight_core::{Span, Timestamp};

/// It panics when it judges this.
pub const JUDGED: f64 = 666.0;
/// It panics when it learns this.
pub const LEARNED: f64 = 667.0;

/// What it remembers: the sum of all values, and how many there were.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}
codec_struct!(Mean { sum, count });

struct Fragile;

impl Detector for Fragile {
    const NAME: &'static str = "fragile";
    const DOC: &'static str = "";
    const STATE_VERSION: u16 = 1;
    const WARM_UP: u32 = 0;
    type Config = ();
    type State = Mean;

    fn new((): (), _: &SignalInfo) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn init(&self) -> Mean {
        Mean::default()
    }

    fn judge(&self, state: &Mean, _: Timestamp, value: f64) -> Reading {
        assert!(value != JUDGED, "does not like {value}");
        let expected = state.sum / f64::from(state.count.max(1));
        let far = state.count > 0 && value > 10.0 * expected;
        let band = Band { expected, lower: f64::NEG_INFINITY, upper: 10.0 * expected };
        Reading::new(if far { 2.0 } else { 0.5 }, band)
    }

    fn absorb(&self, state: &mut Mean, _: Timestamp, value: f64, _: &Reading, learn: Learn) {
        state.count += 1;
        assert!(value != LEARNED, "cannot learn {value}");
        if learn == Learn::Hold {
            state.count -= 1;
        } else {
            state.sum += value;
        }
    }
}

/// Makes its banks.
///
/// # Panics
///
/// Never: it takes no parameters.
pub fn fragile() -> Arc<dyn BankSource> {
    let signal = SignalInfo { name: "any".to_owned(), interval: Span::from_secs(1) };
    source_of::<Fragile>(&serde_json::Value::Null, &Policy::default(), &signal)
        .expect("it takes no parameters")
}
