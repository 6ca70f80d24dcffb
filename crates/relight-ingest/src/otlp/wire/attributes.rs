//! Attributes from the wire in the form that the JSON decoder has them in, so that both come to one text.
//!
//! Only for what was checked before ([`super::schema`]): series met for the first time, and logs.

use super::WireError;
use super::reader::Reader;
use crate::key::Level;
use crate::ndjson::Text;
use crate::otlp::DROPPED;
use crate::otlp::value::{AnyValue, Attribute, Float, Int, Pairs, Values};

/// Lists, maps and bytes of one attribute that are longer than this are not read: as a text they are longer than any
/// label, and as objects up to 75 times as large.
const MAX_NESTED_BYTES: usize = 64 << 10;

/// Puts the attributes in field `number` of a message into a level, but for those that churn.
pub(super) fn put<'a>(mut message: Reader<'a>, number: u32, level: &mut Level<'a>) -> Result<(), WireError> {
    while !level.is_over()
        && let Some((field, wire)) = message.key()?
    {
        if field != number {
            message.skip(field, wire)?;
            continue;
        }
        let entry = message.message(wire)?;
        if entry.rest().len() > MAX_NESTED_BYTES {
            let (key, nested) = outline(entry)?;
            if nested > MAX_NESTED_BYTES {
                if !DROPPED.contains(&key) {
                    level.put_too_long(nested);
                }
                continue;
            }
        }
        let (key, value) = attribute(entry)?;
        if !DROPPED.contains(&key) {
            level.put(key, value.into_text());
        }
    }
    Ok(())
}

/// The text of the attribute of this name in field `number` of a message; of several the last.
pub(super) fn find(mut message: Reader<'_>, number: u32, name: &str) -> Result<Option<String>, WireError> {
    let mut found = None;
    while let Some((field, wire)) = message.key()? {
        if field != number {
            message.skip(field, wire)?;
            continue;
        }
        let entry = message.message(wire)?;
        if entry.rest().len() <= MAX_NESTED_BYTES
            && let (key, value) = attribute(entry)?
            && key == name
        {
            found = Some(value.into_text().into_owned());
        }
    }
    Ok(found)
}

/// An attribute's key, and how long the lists, maps and bytes in it are.
fn outline(mut entry: Reader<'_>) -> Result<(&str, usize), WireError> {
    let (mut key, mut nested) = ("", 0);
    while let Some((field, wire)) = entry.key()? {
        match field {
            1 => key = entry.text(wire)?,
            2 => {
                let mut value = entry.message(wire)?;
                while let Some((kind, wire)) = value.key()? {
                    let begin = value.at;
                    value.skip(kind, wire)?;
                    nested += if matches!(kind, 5..=7) { value.at - begin } else { 0 };
                }
            }
            _ => entry.skip(field, wire)?,
        }
    }
    Ok((key, nested))
}

/// The attributes in field `number` of a message.
pub(super) fn of<'a>(
    message: Reader<'a>,
    number: u32,
    out: &mut Vec<Attribute<'a>>,
) -> Result<(), WireError> {
    let mut message = message;
    while let Some((field, wire)) = message.key()? {
        if field == number {
            let (key, value) = attribute(message.message(wire)?)?;
            out.push(Attribute { key: Text(key.into()), value });
        } else {
            message.skip(field, wire)?;
        }
    }
    Ok(())
}

fn attribute(mut message: Reader<'_>) -> Result<(&str, AnyValue<'_>), WireError> {
    let (mut key, mut value) = ("", AnyValue::default());
    while let Some((field, wire)) = message.key()? {
        match field {
            1 => key = message.text(wire)?,
            2 => merge(&mut value, message.message(wire)?)?,
            _ => message.skip(field, wire)?,
        }
    }
    Ok((key, value))
}

/// Of the kinds of value the last one wins; lists and maps that follow each other are one.
pub(super) fn merge<'a>(value: &mut AnyValue<'a>, mut message: Reader<'a>) -> Result<(), WireError> {
    while let Some((field, wire)) = message.key()? {
        let none = AnyValue::default();
        *value = match field {
            1 => AnyValue { string: Some(Text(message.text(wire)?.into())), ..none },
            2 => AnyValue { boolean: Some(message.integer(wire)? != 0), ..none },
            3 => AnyValue { int: Some(Int(message.integer(wire)? as i64)), ..none },
            4 => AnyValue { double: Some(Float(message.double(wire)?)), ..none },
            5 => {
                let mut list = value.list.take().unwrap_or_else(|| Box::new(Values { values: Vec::new() }));
                values(&mut list.values, message.message(wire)?)?;
                AnyValue { list: Some(list), ..none }
            }
            6 => {
                let mut map = value.map.take().unwrap_or_else(|| Box::new(Pairs { values: Vec::new() }));
                of(message.message(wire)?, 1, &mut map.values)?;
                AnyValue { map: Some(map), ..none }
            }
            7 => AnyValue { bytes: Some(Text(base64(message.slice(wire)?).into())), ..none },
            // An index into a table that only profiles have.
            8 => message.integer(wire).map(|_| none)?,
            _ => {
                message.skip(field, wire)?;
                continue;
            }
        };
    }
    Ok(())
}

fn values<'a>(out: &mut Vec<AnyValue<'a>>, mut message: Reader<'a>) -> Result<(), WireError> {
    while let Some((field, wire)) = message.key()? {
        if field == 1 {
            let mut value = AnyValue::default();
            merge(&mut value, message.message(wire)?)?;
            out.push(value);
        } else {
            message.skip(field, wire)?;
        }
    }
    Ok(())
}

/// As OTLP's JSON shows bytes: RFC 4648, section 4, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let shown = digit <= chunk.len();
            text.push(if shown { DIGITS[word >> (18 - 6 * digit) & 63].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the vectors of RFC 4648, section 10.
    #[test]
    fn bytes_are_shown_as_the_rfc_has_it() {
        for (bytes, shown) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), shown);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }
}
