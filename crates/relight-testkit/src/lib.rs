//! relight-testkit.
