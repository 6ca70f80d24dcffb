//! relight-ingest.
