//! relight-runtime.
