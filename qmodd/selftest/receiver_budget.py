"""Where light is missing in the receiver, by photodiodes and detectors together: pure numerics.

Each of three outputs (Z, X0, X1) is seen twice, by the photodiode at its tap and by the detector behind it. What both
miss the path has lost; what one of them misses it does not see itself. All in dB against what is usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.fit import Array

# Transmission from entry to tap: 1 % tap, 2.6 dB common, 0.15 dB of polarisation; 0.35 dB of Z, 0.65 dB of X (pair A3,
# A7).
USUAL_DB = np.array([-3.1, -3.4, -3.4])
# The best of three is better than the usual one.
BEST_DB = 0.25
# Individuals, and the factory's own uncertainty of responsivities and taps (1 % each): beyond this it is a fault, dB.
INPUT_DB, ARM_DB, RESPONSE_DB = 1.6, 1.5, 1.5
# Less than nothing comes through.
LEAST_DB = -40.0
PHOTODIODES, DETECTORS = (
    ("photodiode pb1", "photodiode pb2", "photodiode pb3"),
    ("detector DZ", "detector DX0", "detector DX1"),
)


@dataclass(frozen=True)
class Budget:
    """dB. `entrance`: what all outputs miss (negative: pb0, against which it is, sees too little); `z`, `x`: what that
    arm misses beyond; `photodiodes`, `detectors`: what each sees less than its twin."""

    entrance: float
    z: float
    x: float
    photodiodes: Array
    detectors: Array

    def parts(self) -> dict[str, tuple[float, float, float]]:
        """Part: (value, lowest, highest allowed)."""
        out = {
            "path input": (max(self.entrance, 0.0), 0.0, INPUT_DB),
            "photodiode pb0": (max(-self.entrance, 0.0), 0.0, INPUT_DB),
            "path z": (self.z, -0.1, ARM_DB),
            "path x": (self.x, -0.1, ARM_DB),
        }
        for names, values in ((PHOTODIODES, self.photodiodes), (DETECTORS, self.detectors)):
            out |= {n: (float(v), -0.1, RESPONSE_DB) for n, v in zip(names, values, strict=True)}
        return out


def budget(tap_db: Array, detector_db: Array) -> Budget:
    """tap_db: light at each tap over light at the entry, by photodiodes; detector_db: clicks over light at the tap, of
    which only differences count; shape (3,), for Z, X0, X1."""
    by_diode = np.maximum(tap_db - USUAL_DB, LEAST_DB)
    twin = np.clip(detector_db - np.median(detector_db), LEAST_DB, -LEAST_DB)
    by_detector = np.maximum(by_diode + twin, LEAST_DB)
    seen = np.maximum(by_diode, by_detector)
    best = float(seen.max())
    return Budget(
        BEST_DB - best, best - float(seen[0]), best - float(seen[1:].min()), seen - by_diode, seen - by_detector
    )
