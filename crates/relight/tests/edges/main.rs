//! The process at its edges: what it says to its supervisor, how it ends, and what the network and the system do to it.
//!
//! What a source answers to one request is tested beside it; here is what only a whole process shows.

mod attack;
mod daemon;
mod fleet;
mod flood;
mod foreign;
mod h2;
mod lifecycle;
mod memory;
mod start;
mod state;
mod steer;
mod stop;
mod system;
