//! Listeners from the outside: loopback sockets on one side, a stand-in for the engine on the other.
//!
//! Cases are named after the faults that they inject.

mod access;
mod bombs;
mod client;
mod others;
mod otlp;
mod remote_write;
mod slow;
mod world;

use client::{Answer, Call, grpc, post};
use world::{Engine, World, otlp_source};
