"""Procedures that turn raw readings into versioned calibration records."""
