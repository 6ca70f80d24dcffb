//! The Kafka sources of a run. A build without the feature `kafka` has none, and says so.

use relight_config::Config;
use relight_ingest::live::Hub;

use crate::failure::Failure;

#[cfg(feature = "kafka")]
pub(super) use with_kafka::Readers;
#[cfg(not(feature = "kafka"))]
pub(super) use without_kafka::Readers;

/// One line for each source, for whoever starts relight.
pub(super) fn greeting(config: &Config) -> String {
    let line = |(name, kafka): (&String, &relight_core::source::kafka::Kafka)| {
        let topics: Vec<&str> = kafka.topics.iter().map(|topic| topic.topic.as_str()).collect();
        format!("  Kafka              {} at {}   ({name})\n", topics.join(", "), kafka.brokers.join(", "))
    };
    config.kafka.iter().map(line).collect()
}

#[cfg(feature = "kafka")]
mod with_kafka {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use relight_core::Timestamp;
    use relight_ingest::kafka::{Clock, KafkaSource, Surroundings};
    use relight_runtime::{Clock as _, SystemClock};

    use super::{Config, Failure, Hub};
    use crate::output;

    pub(in crate::run) struct Readers(Vec<KafkaSource>);

    impl Readers {
        pub(in crate::run) fn start(config: &Config, hub: &Hub) -> Result<Self, Failure> {
            let surroundings = Surroundings {
                hub: hub.clone(),
                clock: Arc::new(SystemClocks(Instant::now())),
                notices: Arc::new(|notice| output::notice(&notice.to_string())),
                may_commit: Arc::new(|| true),
                dead_letters: config.daemon.state.join("dead-letters.ndjson"),
            };
            let start = |(name, settings): (&String, _)| {
                KafkaSource::start(name, settings, &config.secrets, &surroundings)
                    .map_err(|error| Failure::Run(error.into()))
            };
            config.kafka.iter().map(start).collect::<Result<_, _>>().map(Self)
        }

        pub(in crate::run) fn halt(&self) {
            self.0.iter().for_each(KafkaSource::halt);
        }

        pub(in crate::run) fn close(self) {
            let clock = SystemClocks(Instant::now());
            if !self.0.into_iter().all(|source| source.close(&clock)) {
                output::notice("a Kafka client did not close in time: its last offsets may not be committed");
            }
        }
    }

    struct SystemClocks(Instant);

    impl Clock for SystemClocks {
        fn wall(&self) -> Timestamp {
            SystemClock::default().wall()
        }

        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }
}

#[cfg(not(feature = "kafka"))]
mod without_kafka {
    use super::{Config, Failure, Hub};

    pub(in crate::run) struct Readers;

    impl Readers {
        pub(in crate::run) fn start(config: &Config, _hub: &Hub) -> Result<Self, Failure> {
            match config.kafka.keys().next() {
                None => Ok(Self),
                Some(name) => Err(Failure::usage(format_args!(
                    "source `{name}` is of type kafka, and this relight was built without it: build with `--features kafka`"
                ))),
            }
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn halt(&self) {}

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn close(self) {}
    }
}
