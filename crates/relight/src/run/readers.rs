//! The Kafka sources of a run. A build without the feature `kafka` has none, and says so.

use relight_config::Config;
use relight_ingest::live::Hub;

use crate::failure::Failure;

#[cfg(feature = "kafka")]
pub(super) use with_kafka::{Readers, clock};
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

    use crossbeam_channel::Sender;
    use relight_core::Timestamp;
    use relight_core::telemetry::{self as metrics, Sample};
    use relight_ingest::kafka::{Clock, Committer, KafkaSource, Notice, Surroundings};
    use relight_runtime::{Clock as _, Guard, LiveInput, ReceivedClock, SystemClock, Trouble};

    use super::{Config, Failure, Hub};
    use crate::output;

    pub(in crate::run) struct Readers(Vec<(String, KafkaSource)>);

    /// The time, for whoever minds a client.
    pub(in crate::run) fn clock() -> Arc<dyn Clock> {
        Arc::new(SystemClocks(Instant::now()))
    }

    impl Readers {
        /// Starts all sources. Offsets are committed while `guard` lets effects out; what people must know goes to
        /// the engine.
        pub(in crate::run) fn start(
            config: &Config,
            hub: &Hub,
            received: &ReceivedClock,
            guard: &Guard,
            inputs: &Sender<LiveInput>,
        ) -> Result<Self, Failure> {
            let (guard, inputs) = (Arc::clone(guard), inputs.clone());
            let surroundings = Surroundings {
                hub: hub.clone(),
                clock: Arc::new(ReceivedClocks(received.clone(), Instant::now())),
                notices: Arc::new(move |notice| tell(&notice, &inputs)),
                may_commit: Arc::new(move || guard().is_some()),
                dead_letters: config.daemon.state.join("dead-letters.ndjson"),
            };
            let start = |(name, settings): (&String, _)| {
                KafkaSource::start(name, settings, &config.secrets, &surroundings)
                    .map(|source| (name.clone(), source))
                    .map_err(|error| Failure::Run(error.into()))
            };
            config.kafka.iter().map(start).collect::<Result<_, _>>().map(Self)
        }

        pub(in crate::run) fn halt(&self) {
            for (_, source) in &self.0 {
                source.halt();
            }
        }

        /// What commits the offsets of each source before a lock is let go of.
        pub(in crate::run) fn committers(&self) -> Vec<Committer> {
            self.0.iter().map(|(_, source)| source.committer()).collect()
        }

        /// Whether a source reads no more although there is more, and a new client did not help.
        pub(in crate::run) fn is_stuck(&self) -> impl Fn() -> bool + use<> {
            let counters: Vec<_> = self.0.iter().map(|(_, source)| Arc::clone(source.counters())).collect();
            move || counters.iter().any(|counters| counters.is_stuck())
        }

        /// What the sources have counted, for the board.
        pub(in crate::run) fn counted(&self) -> impl Fn() -> Vec<Sample> + Send + use<> {
            let counters: Vec<_> =
                self.0.iter().map(|(name, source)| (name.clone(), Arc::clone(source.counters()))).collect();
            let sample = |name: &str, (what, value): (&'static str, u64)| {
                Sample::labelled(metrics::SOURCE, [name, what, ""], value as f64)
            };
            move || {
                let each = counters.iter();
                each.flat_map(|(name, c)| c.all().into_iter().map(move |one| sample(name, one))).collect()
            }
        }

        pub(in crate::run) fn close(self) {
            let clock = clock();
            // Each, however the one before ended.
            let closed: Vec<bool> = self.0.into_iter().map(|(_, source)| source.close(&*clock)).collect();
            if closed.contains(&false) {
                output::notice("a Kafka client did not close in time: its last offsets may not be committed");
            }
        }
    }

    /// Trouble goes through the engine, which tells of it in the log, too.
    fn tell(notice: &Notice, inputs: &Sender<LiveInput>) {
        let source = notice.about.split('/').next().unwrap_or_default();
        let trouble = notice.news.trouble().map(|kind| Trouble {
            kind,
            about: source.to_owned(),
            why: notice.to_string(),
            is_loss: notice.news.is_loss(),
        });
        // Nobody takes it any more only when the engine has ended.
        if trouble.is_none_or(|trouble| inputs.send(LiveInput::Trouble(trouble)).is_err()) {
            output::notice(&notice.to_string());
        }
    }

    /// What a source reads: when a log was read to its end, and a record that carries no time.
    struct ReceivedClocks(ReceivedClock, Instant);

    impl Clock for ReceivedClocks {
        fn wall(&self) -> Timestamp {
            self.0.now()
        }

        fn elapsed(&self) -> Duration {
            self.1.elapsed()
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
    use crossbeam_channel::Sender;
    use relight_core::telemetry::Sample;
    use relight_runtime::{Guard, LiveInput, ReceivedClock};

    use super::{Config, Failure, Hub};

    pub(in crate::run) struct Readers;

    impl Readers {
        pub(in crate::run) fn start(
            config: &Config,
            _hub: &Hub,
            _received: &ReceivedClock,
            _guard: &Guard,
            _inputs: &Sender<LiveInput>,
        ) -> Result<Self, Failure> {
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
        pub(in crate::run) const fn committers(&self) -> Vec<()> {
            Vec::new()
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) fn is_stuck(&self) -> impl Fn() -> bool + use<> {
            || false
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) fn counted(&self) -> impl Fn() -> Vec<Sample> + Send + use<> {
            Vec::new
        }

        #[expect(clippy::unused_self, reason = "the same as with Kafka")]
        pub(in crate::run) const fn close(self) {}
    }
}
