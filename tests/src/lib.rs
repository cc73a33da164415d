//! Helpers for the tests across processes.
