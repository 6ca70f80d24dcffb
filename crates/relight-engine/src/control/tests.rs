//! Control as a whole: scenarios, one line a turn's worth of symbols, and properties.

mod attempts;
mod fleet;
mod gates;
mod lifecycle;
mod properties;
mod reload;
mod response;
mod stage;
mod standby;
mod trouble;
