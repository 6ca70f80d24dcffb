//! The Kafka source against librdkafka's own mock cluster, in process. What that cannot do (transactions, login,
//! added partitions) is tested against the real broker, in `tests/peer.rs` of this folder.

mod faults;
mod formats;
mod offsets;
mod peer;
mod rig;
mod standby;
