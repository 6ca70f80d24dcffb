//! detectors.
