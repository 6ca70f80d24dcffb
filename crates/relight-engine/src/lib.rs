//! relight-engine.
