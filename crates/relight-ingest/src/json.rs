//! How much a JSON document may hold: decoded it takes memory by its values, and `{}` is short.

/// Objects of one document, each about 200 bytes of memory when decoded; a point of OTLP with 10 attributes has 21.
const MAX_OBJECTS: usize = 500_000;
/// Values of one document that is kept as a tree, at 32 to 100 bytes each. An event has about twelve in 300 bytes.
const MAX_VALUES: usize = 1_000_000;

/// A document without the byte order mark that some editors and .NET put before it.
pub(crate) fn without_bom(json: &[u8]) -> &[u8] {
    json.strip_prefix(crate::lines::BOM).unwrap_or(json)
}

/// Whether a document has few enough objects; what is in texts counts as well.
pub(crate) fn bounded(json: &[u8]) -> Result<(), String> {
    let objects: usize = json.iter().map(|byte| usize::from(*byte == b'{')).sum();
    within(objects, "objects", MAX_OBJECTS)
}

/// The same of one that is kept as a tree, where each number takes as much as an object.
pub(crate) fn bounded_tree(json: &[u8]) -> Result<(), String> {
    let values: usize = json.iter().map(|byte| usize::from(matches!(byte, b'{' | b'[' | b','))).sum();
    within(values, "values", MAX_VALUES)
}

/// Bytes that a document takes when it is decoded, roughly: 200 an object, and 50 any other value.
pub(crate) fn decoded_bytes(json: &[u8]) -> usize {
    let bytes = json.iter().map(|byte| match byte {
        b'{' => 150,
        b'[' | b',' => 50,
        _ => 0_usize,
    });
    bytes.sum()
}

fn within(n: usize, what: &str, limit: usize) -> Result<(), String> {
    if n > limit { Err(format!("{n} {what} at once (at most {limit})")) } else { Ok(()) }
}
