"""Frame synchronisation from photons and a public string, for the key engine: the numerics are the calibration's."""

from __future__ import annotations

from calibration.framesync import (
    ACCEPT_SIGMA,
    CODE_SLOTS,
    SUPERFRAME_SLOTS,
    SUPERFRAMES,
    FoldResult,
    SyncRefused,
    SyncResult,
    acquire,
    fold_delays,
    resolve_superframe,
    sync_bits,
)

__all__ = [
    "ACCEPT_SIGMA",
    "CODE_SLOTS",
    "SUPERFRAMES",
    "SUPERFRAME_SLOTS",
    "FoldResult",
    "SyncRefused",
    "SyncResult",
    "acquire",
    "fold_delays",
    "resolve_superframe",
    "sync_bits",
]
