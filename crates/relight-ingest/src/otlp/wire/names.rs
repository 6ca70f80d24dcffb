//! Names of series that Intake does not know, from the attributes of resource, scope and point.
//!
//! What is shared is read once for all new series that share it, and what a summary's series share likewise.

use super::WireError;
use super::attributes;
use super::reader::Reader;
use crate::key::{Level, encode_levels};

/// The attributes of the resource and the scope that the request is at, and of the last point that was new.
#[derive(Default)]
pub(super) struct Names<'a> {
    resource: Shared<'a>,
    scope: Shared<'a>,
    /// Whether no series of this scope can be taken, whatever its own attributes are; `None` until that is asked.
    is_hopeless: Option<bool>,
    own: Level<'a>,
    /// Where in the request the point with those attributes begins.
    own_at: Option<usize>,
    /// `service.name` of the resource, once that is asked.
    service: Option<String>,
}

/// A resource or a scope, and its attributes once they were needed.
#[derive(Default)]
struct Shared<'a> {
    parts: Vec<Reader<'a>>,
    level: Level<'a>,
    is_read: bool,
}

impl<'a> Shared<'a> {
    fn begin(&mut self) -> &mut Vec<Reader<'a>> {
        self.parts.clear();
        self.is_read = false;
        &mut self.parts
    }

    fn read(&mut self, number: u32) -> Result<(), WireError> {
        if !self.is_read {
            self.level.clear();
            self.parts.iter().try_for_each(|part| attributes::put(*part, number, &mut self.level))?;
            self.is_read = true;
        }
        Ok(())
    }
}

impl<'a> Names<'a> {
    /// A resource begins: where to put its parts.
    pub(super) fn resource(&mut self) -> &mut Vec<Reader<'a>> {
        self.service = None;
        self.resource.begin()
    }

    /// `service.name` of the resource, for people; empty if there is none.
    pub(super) fn service(&mut self) -> &str {
        let parts = &self.resource.parts;
        self.service.get_or_insert_with(|| {
            let of = |part: &Reader<'a>| attributes::find(*part, 1, crate::otlp::SERVICE).ok().flatten();
            parts.iter().rev().find_map(of).unwrap_or_default()
        })
    }

    /// A scope of it begins: where to put its parts.
    pub(super) fn scope(&mut self) -> &mut Vec<Reader<'a>> {
        self.is_hopeless = None;
        self.scope.begin()
    }

    /// Replaces `key` by the name of a point's series; `false` if its labels are over a limit.
    pub(super) fn encode(
        &mut self,
        name: (&str, &str),
        (point, attributes): (Reader<'a>, u32),
        quantile: Option<&str>,
        key: &mut Vec<u8>,
    ) -> Result<bool, WireError> {
        if self.is_hopeless()? {
            return Ok(false);
        }
        if self.own_at != Some(point.at) {
            self.own.clear();
            attributes::put(point, attributes, &mut self.own)?;
            self.own_at = Some(point.at);
        }
        let levels = [&self.resource.level, &self.scope.level, &self.own];
        let quantile = quantile.map(|quantile| ("quantile", quantile));
        Ok(encode_levels(name, &levels, quantile, key).is_ok())
    }

    fn is_hopeless(&mut self) -> Result<bool, WireError> {
        if let Some(known) = self.is_hopeless {
            return Ok(known);
        }
        self.resource.read(1)?;
        self.scope.read(3)?;
        let found = self.resource.level.refusal(&self.scope.level).is_some();
        self.is_hopeless = Some(found);
        Ok(found)
    }
}
