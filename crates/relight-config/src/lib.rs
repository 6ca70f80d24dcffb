//! relight-config.
