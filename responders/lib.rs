//! responders.
