//! What the store promises, tried on real folders: damage, kills, refusals, and twins that agree.

mod faults;
mod twins;
mod world;
