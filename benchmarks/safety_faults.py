"""Random faults of the safety benchmark: of the world, the parts, the buses, the supply, the interlocks, the daemon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.safety_rig import SITES

PARTS = ("ina228", "tmp117", "pca9535", "ltc2672", "ltc2668", "ads131m08", "tec", "pmbus", "eeprom24c64")
BUSES = ("i2c1", "i2c2", "spi0.0", "spi0.1", "spi1.0", "serial.tec")
OWN = {
    "alice": (("laser", "source"), ("serial.laser", "visa.source")),
    "bob": (("snspd", "tagger"), ("tcp.snspd", "visa.tagger")),
}
BUS_KINDS = ("nack", "crc", "stuck", "late", "garbage", "hang")
# Of the supply, its fan, the rail's monitor and the enables: kind, part, value.
SICK: tuple[tuple[str, str, float | None], ...] = (
    ("slow", "pmbus", 0.0),
    ("slow", "pmbus", 0.1),
    ("hot", "pmbus", 45.0),
    ("hot", "pmbus", 70.0),
    ("sagging", "pmbus", 1.5),
    ("rising", "pmbus", 1.5),
    ("input", "pmbus", 38.0),
    ("high", "pca9535.1", None),
    ("high", "pca9535.2", None),
    ("low", "pca9535.2", None),
    ("high", "pca9535.9", None),
    ("low", "pca9535.0", None),
)
DAEMON = ("loop crash", "loop hang", "SIGTERM", "SIGKILL", "SIGKILL in a latch write", "hot")


@dataclass(frozen=True)
class Drawn:
    """One fault to come. `site`: the module it befalls, "" for the fibre."""

    kind: str
    target: str
    site: str
    duration_s: float
    value: float | None = None
    group: str = "world"

    def __str__(self) -> str:
        return f"{self.kind} {self.target} for {self.duration_s:.1f} s"


def draw(rng: np.random.Generator) -> Drawn:
    """One fault of one of six groups."""
    site = str(rng.choice(SITES))
    seconds = float(rng.uniform(0.5, 20.0))
    group = str(rng.choice(["world", "part", "bus", "sick", "interlock", "daemon"], p=[0.2, 0.12, 0.18, 0.1, 0.1, 0.3]))
    match group:
        case "world":
            return _world(rng, site, seconds)
        case "part":
            part = str(rng.choice([*PARTS, *OWN[site][0]]))
            return Drawn(str(rng.choice(["unplug", "reset"])), f"{site}.{part}", site, seconds, group=group)
        case "bus":
            bus = str(rng.choice([*BUSES, *OWN[site][1]]))
            return Drawn(str(rng.choice(BUS_KINDS)), f"{site}.{bus}", site, seconds, group=group)
        case "sick":
            kind, part, value = SICK[int(rng.integers(len(SICK)))]
            return Drawn(kind, f"{site}.{part}", site, seconds, value, group)
        case "interlock":
            return Drawn("open", f"{site}.{rng.choice(['interlock', 'cover'])}", site, seconds, group=group)
    return Drawn(str(rng.choice(DAEMON)), site, site, float(rng.uniform(0.7, 6.0)), group=group)


def _world(rng: np.random.Generator, site: str, seconds: float) -> Drawn:
    heater, diode = int(rng.integers(4)), int(rng.choice([0, 1, 3, 4] if site == "bob" else [0, 1, 3, 4, 6]))
    kinds: list[tuple[str, str, str, float | None]] = [
        ("cut", "fibre", "", None),
        ("bend", "fibre", "", float(rng.uniform(1.0, 10.0))),
        ("jump", "fibre", "", float(rng.uniform(-3.0, 3.0))),
        ("bright", f"{site}.input", site, 1e-6),
        ("open", f"{site}.heater.{heater}", site, None),
        ("short", f"{site}.heater.{heater}", site, None),
        ("railed", f"{site}.heater.{heater}", site, float(rng.uniform(0.02, 0.2))),
        ("dead", f"{site}.photodiode.{diode}", site, None),
        ("dead", "alice.laser", "alice", None),
        ("fan", f"{site}.tec", site, 4.0),
        ("latched", f"bob.detector.{int(rng.integers(3))}", "bob", None),
        ("swapped", "bob.detector", "bob", None),
        ("stuck", "bob.shutter", "bob", 0.0),
        ("warm", "bob.cryostat", "bob", float(rng.uniform(0.5, 4.0))),
    ]
    kind, target, where, value = kinds[int(rng.integers(len(kinds)))]
    return Drawn(kind, target, where, seconds, value)
