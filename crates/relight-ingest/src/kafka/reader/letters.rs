//! Dead letters of a reader: what cannot be read, put aside with the reason, so that its partition moves on.
//!
//! Writes nothing: letters go to their writer, and an offset waits until its letter is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message as _};
use relight_core::Timestamp;

use super::super::client::MOST_AT_ONCE;
use super::super::dead_letter::Letter;
use super::super::{News, Notice, count};
use super::Reader;
use crate::live::{Answer, Delivery, Load, Verdict};

impl Reader {
    /// A letter about a record, still without its reason.
    fn letter(&self, message: &BorrowedMessage<'_>, value: Bytes, received: Timestamp) -> Option<Letter> {
        Some(Letter {
            topic: Arc::clone(&self.topic),
            partition: message.partition(),
            offset: message.offset().max(0) as u64,
            received,
            why: String::new(),
            key: message.key().map(Bytes::copy_from_slice),
            value,
            unwritten: self.parts.get(&message.partition())?.unwritten.clone(),
        })
    }

    /// Makes a dead letter of a record; its offset waits until that is durable.
    pub(super) fn bury(
        &mut self,
        message: &BorrowedMessage<'_>,
        value: &[u8],
        received: Timestamp,
        why: String,
        now: Duration,
    ) {
        let kept = &value[..value.len().min(self.shared.max_record_bytes)];
        let Some(mut letter) = self.letter(message, Bytes::copy_from_slice(kept), received) else { return };
        count(&self.shared.counters.poison, 1);
        let about = self.parts.get(&letter.partition).map(|part| part.inlet.partition().to_owned());
        self.say_about(about, News::Poison { offset: letter.offset, why: why.clone() }, now);
        letter.why = why;
        letter.unwritten.add(letter.offset);
        // The writer ends after the readers.
        let _ = self.shared.letters.send(letter);
    }

    /// Makes a dead letter of the records from the first offset to below the second, of which nothing but that is
    /// known.
    pub(super) fn bury_packed(&mut self, id: i32, (first, end): (u64, u64), now: Duration) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        let why = format!(
            "{} records cannot be unpacked: their batch is damaged, or unpacks to more than {MOST_AT_ONCE} bytes",
            end - first
        );
        let letter = Letter {
            topic: Arc::clone(&self.topic),
            partition: id,
            offset: first,
            received: self.shared.surroundings.clock.wall(),
            why: why.clone(),
            key: None,
            value: Bytes::new(),
            unwritten: part.unwritten.clone(),
        };
        let delivery =
            Delivery { offset: Some(first), received: letter.received, load: Load::Nothing, answer: None };
        count(&self.shared.counters.poison, end - first);
        letter.unwritten.add(first);
        // The writer ends after the readers.
        let _ = self.shared.letters.send(letter);
        let about = part.inlet.partition().to_owned();
        let flow = part.take(delivery, now);
        self.mind(id, flow, now);
        self.say_about(Some(about), News::Poison { offset: first, why }, now);
    }

    /// Makes a dead letter of a record that the engine cannot decode. Its offset has passed by then, so it may be
    /// in a snapshot before the letter is durable; a commit waits for it all the same.
    pub(super) fn answer(
        &self,
        message: &BorrowedMessage<'_>,
        bytes: &Bytes,
        received: Timestamp,
    ) -> Option<Answer> {
        let mut letter = self.letter(message, bytes.clone(), received)?;
        let (letters, counters) = (self.shared.letters.clone(), Arc::clone(&self.shared.counters));
        let notices = Arc::clone(&self.shared.surroundings.notices);
        let about = self.parts.get(&letter.partition)?.inlet.partition().to_owned();
        Some(Box::new(move |verdict| {
            if let Verdict::Malformed(why) = verdict {
                let nth = counters.poison.fetch_add(1, Ordering::Relaxed);
                // The engine has no minute to count in: the 1st, 2nd, 4th, 8th ... are told.
                if (nth + 1).is_power_of_two() {
                    notices(Notice {
                        about,
                        news: News::Poison { offset: letter.offset, why: why.clone() },
                        unsaid: 0,
                    });
                }
                letter.why = why;
                letter.unwritten.add(letter.offset);
                let _ = letters.send(letter);
            }
        }))
    }
}
