//! A batch of records that no producer would make: small as it is sent, enormous once it is unpacked.

use std::io::Write as _;

/// A zstd stream of so many zeros. Made as it is written: nobody ever holds them.
fn packed(zeros: u64) -> Vec<u8> {
    let chunk = vec![0; 1 << 20];
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    for _ in 0..zeros / chunk.len() as u64 {
        encoder.write_all(&chunk).expect("memory");
    }
    encoder.finish().expect("memory")
}

/// One batch, of what it says is one record: format 2, packed by zstd.
pub(super) fn zeros(count: u64) -> Vec<u8> {
    let records = packed(count);
    assert!(records.len() < 1 << 20, "{} bytes", records.len());
    let (no_producer, no_checksum) = (-1_i64, 0_u32);
    let mut rest = Vec::new();
    rest.extend((-1_i32).to_be_bytes());
    rest.push(2);
    rest.extend(no_checksum.to_be_bytes());
    // The codec: zstd.
    rest.extend(4_i16.to_be_bytes());
    rest.extend(0_i32.to_be_bytes());
    rest.extend([1_700_000_000_000_i64; 2].iter().flat_map(|at| at.to_be_bytes()));
    rest.extend(no_producer.to_be_bytes());
    rest.extend((-1_i16).to_be_bytes());
    rest.extend((-1_i32).to_be_bytes());
    rest.extend(1_i32.to_be_bytes());
    rest.extend(records);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend((rest.len() as i32).to_be_bytes());
    batch.extend(rest);
    batch
}

/// A request that writes a batch to a partition: `Produce` of version 7, for all in sync.
pub(super) fn produce(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat();
    let mut body = Vec::new();
    body.extend([0_i16, 7].iter().flat_map(|n| n.to_be_bytes()));
    body.extend(1_i32.to_be_bytes());
    body.extend(text("bomb"));
    // No transaction, all in sync.
    body.extend([-1_i16, -1].iter().flat_map(|n| n.to_be_bytes()));
    body.extend([10_000_i32, 1].iter().flat_map(|n| n.to_be_bytes()));
    body.extend(text(topic));
    body.extend([1, partition, batch.len() as i32].iter().flat_map(|n| n.to_be_bytes()));
    body.extend(batch);
    [&(body.len() as i32).to_be_bytes(), &*body].concat()
}

/// The error in the answer to that: 0 for none.
pub(super) fn error(answer: &[u8], topic: &str) -> Option<i16> {
    // Correlation, topics, name, partitions, partition.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    Some(i16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?))
}

/// The most memory that this process has had.
pub(super) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
