"""Interlocks, latches that outlive a restart, the watchdog line and the safe state."""

from __future__ import annotations

from qmodd.safety.confirm import contradictions
from qmodd.safety.guards import HeaterBudget, guard
from qmodd.safety.interlocks import Limits, Readings, Violation, violations
from qmodd.safety.latches import Latch, LatchStore
from qmodd.safety.monitor import SafetyMonitor, SafetyTripped
from qmodd.safety.ramp import TecRampDown
from qmodd.safety.readings import ModuleReader
from qmodd.safety.watchdog import (
    CheckIns,
    HardwareTripped,
    InterlockOpen,
    SafeDevice,
    Watchdog,
    WatchdogStarved,
    check_interlock,
    drop_enables,
    safe_state,
)

__all__ = [
    "CheckIns",
    "HardwareTripped",
    "HeaterBudget",
    "InterlockOpen",
    "Latch",
    "LatchStore",
    "Limits",
    "ModuleReader",
    "Readings",
    "SafeDevice",
    "SafetyMonitor",
    "SafetyTripped",
    "TecRampDown",
    "Violation",
    "Watchdog",
    "WatchdogStarved",
    "check_interlock",
    "contradictions",
    "drop_enables",
    "guard",
    "safe_state",
    "violations",
]
