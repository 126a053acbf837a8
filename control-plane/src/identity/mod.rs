//! Certificate authority, join tokens, certificate requests.
