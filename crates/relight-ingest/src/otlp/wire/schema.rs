//! OTLP's messages as tables: which field has which type. For what must be well formed before it is known by a hash
//! (resources, scopes, attributes that were not met before), and for log records and spans.

use super::WireError;
use super::reader::{FIXED32, FIXED64, Reader, VARINT};

pub(super) enum Type {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    Message(&'static Schema),
}

pub(super) struct Schema(&'static [(u32, Type)]);

use Type::{Bytes, Fixed32, Fixed64, Message, Text, Varint};

pub(super) static ANY_VALUE: Schema = Schema(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY_VALUE)),
    (6, Message(&ATTRIBUTES)),
    (7, Bytes),
    (8, Varint),
]);
static ARRAY_VALUE: Schema = Schema(&[(1, Message(&ANY_VALUE))]);
/// A list of attributes, in field 1.
static ATTRIBUTES: Schema = Schema(&[(1, Message(&KEY_VALUE))]);
pub(super) static KEY_VALUE: Schema = Schema(&[(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)]);
static ENTITY_REF: Schema = Schema(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
pub(super) static RESOURCE: Schema =
    Schema(&[(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))]);
pub(super) static SCOPE: Schema = Schema(&[(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);

pub(super) static LOG_RECORD: Schema = Schema(&[
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Message(&ANY_VALUE)),
    (6, Message(&KEY_VALUE)),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
]);

static SPAN_EVENT: Schema = Schema(&[(1, Fixed64), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static SPAN_LINK: Schema =
    Schema(&[(1, Bytes), (2, Bytes), (3, Text), (4, Message(&KEY_VALUE)), (5, Varint), (6, Fixed32)]);
static SPAN_STATUS: Schema = Schema(&[(2, Text), (3, Varint)]);
pub(super) static SPAN: Schema = Schema(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&SPAN_EVENT)),
    (12, Varint),
    (13, Message(&SPAN_LINK)),
    (14, Varint),
    (15, Message(&SPAN_STATUS)),
    (16, Fixed32),
]);

impl Reader<'_> {
    /// Whether the message is well formed, all the way down.
    pub(super) fn check(mut self, schema: &Schema) -> Result<(), WireError> {
        while let Some((field, wire)) = self.key()? {
            match schema.0.iter().find(|(number, _)| *number == field) {
                Some((_, known)) => self.check_field(known, wire)?,
                None => self.skip(field, wire)?,
            }
        }
        Ok(())
    }

    fn check_field(&mut self, known: &Type, wire: u8) -> Result<(), WireError> {
        match known {
            Varint => self.expect(wire, VARINT).and_then(|()| self.varint().map(drop)),
            Fixed64 => self.expect(wire, FIXED64).and_then(|()| self.pass(8).map(drop)),
            Fixed32 => self.expect(wire, FIXED32).and_then(|()| self.pass(4).map(drop)),
            Text => self.text(wire).map(drop),
            Bytes => self.slice(wire).map(drop),
            Message(schema) => self.message(wire)?.check(schema),
        }
    }

    /// The list in a packed field. It is no level of its own.
    pub(super) fn packed(&mut self) -> Result<Self, WireError> {
        let len = self.varint()?;
        let mut list = *self;
        self.pass(len)?;
        list.bytes = &self.bytes[..self.at];
        Ok(list)
    }
}
