//! The responder bus between a live engine, a ledger on disk and responders that fail in every way: what leaves, when,
//! how often, and what is known of it afterwards.

mod attempts;
mod doubts;
mod fake;
mod heart;
mod journal;
mod ledger;
mod rig;
mod secrets;
mod trouble;
