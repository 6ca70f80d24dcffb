//! Protobuf, read field by field without copying.
//!
//! No schema and no recursion in here. Groups, which no protocol of ours has, are refused where they begin,
//! so that nesting costs nothing.

/// One field's value as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// A nested message, or what text is made of.
    pub(crate) fn bytes(self) -> Result<&'a [u8], &'static str> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("a field of the wrong wire type"),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text that is not UTF-8")
    }

    pub(crate) fn varint(self) -> Result<u64, &'static str> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err("a field of the wrong wire type"),
        }
    }

    pub(crate) fn fixed64(self) -> Result<u64, &'static str> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err("a field of the wrong wire type"),
        }
    }
}

/// The fields of a message, in the order they were sent.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next of varints that are packed into one field.
    pub(crate) fn packed(&mut self) -> Option<Result<u64, &'static str>> {
        (!self.0.is_empty()).then(|| self.varint())
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("it ends within a field")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if shift == 63 && *byte > 1 { Err("a varint beyond 64 bits") } else { Ok(value) };
            }
        }
        Err("a varint beyond 64 bits")
    }

    fn bytes(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).map_err(|_| "it ends within a field")?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("it ends within a field")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or("it ends within a field")?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), &'static str> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or("a field without a valid number")?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.bytes(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err("a group or an unknown wire type"),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Spans of an `ExportTraceServiceRequest`: the 2nd field of the 2nd of the 1st. What is inside them is not read.
pub(crate) fn count_spans(request: &[u8]) -> Result<u64, String> {
    let mut spans = 0;
    each(request, 1, &mut |resource| {
        each(resource, 2, &mut |scope| {
            each(scope, 2, &mut |_| {
                spans += 1;
                Ok(())
            })
        })
    })
    .map_err(|why: &str| format!("not an ExportTraceServiceRequest: {why}"))?;
    Ok(spans)
}

/// Visits each message in a repeated field.
pub(crate) fn each<'a, E: From<&'static str>>(
    message: &'a [u8],
    wanted: u32,
    visit: &mut dyn FnMut(&'a [u8]) -> Result<(), E>,
) -> Result<(), E> {
    for field in Fields::new(message) {
        let (number, value) = field?;
        if number == wanted {
            visit(value.bytes()?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_lie() {
        let message = b"\x08\x96\x01\x12\x02hi\x19\x01\0\0\0\0\0\0\0\x25\x02\0\0\0";
        let fields: Result<Vec<_>, _> = Fields::new(message).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed64(1)),
            (4, Value::Fixed32(2)),
        ];
        assert_eq!(fields.as_deref(), Ok(&expected[..]));
    }

    /// Guarantee: what is no protobuf is refused, wherever it breaks off, and nesting is not followed.
    #[test]
    fn damage_is_refused() {
        let nested = b"\x0b".repeat(1_000_000);
        for bad in [
            &b"\x08"[..],
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\x05hi",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x19\x01",
            b"\x25\x01",
            b"\x00\x01",
            b"\x0f",
            &nested,
        ] {
            assert!(Fields::new(bad).any(|field| field.is_err()), "{:?}", &bad[..bad.len().min(12)]);
        }
    }

    #[test]
    fn spans_are_counted() {
        let scope = b"\x12\x01x\x0a\0\x12\0";
        let resource = [&b"\x12\x07"[..], scope, b"\x12\x07", scope].concat();
        let request = [&[0x0a, resource.len() as u8][..], &resource].concat();
        assert_eq!(count_spans(&request), Ok(4));
        assert!(count_spans(&request[..9]).is_err());
        assert!(count_spans(b"\x18\x01").is_ok_and(|n| n == 0), "an unknown field is left alone");
    }
}
