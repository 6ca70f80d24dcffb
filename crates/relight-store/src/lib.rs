//! relight-store.
