"""What the models cannot tell of a setting: from when it counts, who may set it, which way is the safe one, what it is.

Type and limits are those of `qmodd.config`. A field without an entry here can be set in the configuration file only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qmodd.messages import Role

# now: at once; block, run: for blocks closed, runs begun from now on; session, restart: it waits for the next time that
# the module comes up from dark, that core starts; file: not at run time.
Applies = Literal["now", "block", "run", "session", "restart", "file"]
SafeSide = Literal["lower", "higher"]
Side = Literal["alice", "bob"]

OPERATE: tuple[Role, ...] = ("maintainer", "operator")
MAINTAIN: tuple[Role, ...] = ("maintainer",)


@dataclass(frozen=True)
class Entry:
    """`safe`: only towards this side of the file's value. `only`: the one kind of module that uses it."""

    applies: Applies
    roles: tuple[Role, ...]
    description: str
    safe: SafeSide | None = None
    only: Side | None = None


def _file(description: str, only: Side | None = None) -> Entry:
    return Entry("file", (), description, only=only)


def _now(description: str, only: Side | None = None) -> Entry:
    return Entry("now", OPERATE, description, only=only)


def _session(description: str, only: Side | None = None) -> Entry:
    return Entry("session", MAINTAIN, description, only=only)


def _limit(safe: SafeSide, description: str, applies: Applies = "now", only: Side | None = None) -> Entry:
    return Entry(applies, MAINTAIN, description, safe, only)


_PAIR: Mapping[str, Entry] = {
    "pair.symbol_period_ps": _file("length of a slot, the same on both sides"),
}

_SOURCE: Mapping[str, Entry] = {
    "source.mu_signal": _session("mean photon number of a signal symbol at the output", "alice"),
    "source.decoy_ratio": _session("decoy over signal intensity", "alice"),
    "source.p_decoy": _session("probability of the decoy intensity", "alice"),
    "source.p_x": _session("probability of the X basis", "alice"),
    "source.laser_frequency_hz": _session("optical frequency of the laser", "alice"),
    "source.laser_power_dbm": _session("power of the laser", "alice"),
}

# The two modules compare these when a run begins: set on one side only they would stop the keys.
_RECEIVER: Mapping[str, Entry] = {
    "receiver.basis_split": _file("share of the light that goes to the X arm", "bob"),
    "receiver.half_gate_ps": _file("a click counts within this of a bin's centre; both sides must agree"),
    "receiver.hold_off_slots": _file("slots after any click that are not used; both sides must agree"),
    "receiver.gate_open_ps": _file("strobe of the tagger; 0: always open", "bob"),
    "receiver.gate_period_ps": _file("period of the strobe", "bob"),
}

_KEYS: Mapping[str, Entry] = {
    "keys.proof": _file("bound for the key length; both sides must agree"),
    "keys.eps_sec": _file("secrecy of a block; both sides must agree"),
    "keys.eps_cor": _file("correctness of a block; both sides must agree"),
    "keys.n_z": _file("matched Z detections that close a block; both sides must agree"),
    "keys.key_bits": _file("size of a delivered key; both sides must agree"),
    "keys.length": _file("how the length of a key is decided; both sides must agree"),
    "keys.fixed_margin": _file("margin of a length that is fixed before the block; both sides must agree"),
    "keys.worker": _file("heavy kernels in a process of their own"),
    "keys.reconciliation": Entry("block", OPERATE, "how blocks are corrected", only="alice"),
    "keys.purge_after_s": _file("so long after the end of its lifetime every trace of a key goes but its number"),
    "keys.lifetime_s": Entry("block", MAINTAIN, "a key expires after this", only="alice"),
    "keys.sync_s": Entry("run", MAINTAIN, "length of the public string before keying", only="alice"),
    "keys.batch_s": _session("length of a sifting batch", "bob"),
    "keys.store_limit": _now("keys that may wait for delivery before distillation stops"),
}

_CONTROL: Mapping[str, Entry] = {
    "control.tec_target_c": _session("temperature of the chip"),
    "control.tec_current_limit_a": _session("current of the temperature controller, below its gain reversal"),
    "control.tec_kp_a_per_k": _session("gain of the temperature loop until the plant is identified"),
    "control.tec_ti_s": _session("integral time of the temperature loop until the plant is identified"),
    "control.slow_period_s": _session("period of the loops of laser, mean photon number and biases", "alice"),
    "control.phase_period_s": _session("period of the interferometer's phase loop", "bob"),
    "control.pilot_period_s": _session("the same while the transmitter sends a pilot", "bob"),
    "control.phase_limit_deg": Entry("now", MAINTAIN, "phase error above which the lock counts as lost", only="bob"),
    "control.visibility_min": Entry("now", MAINTAIN, "visibility below which the lock counts as lost", only="bob"),
    "control.realtime_priority": _file(
        "priority of core's control loops in the kernel's scheduler; 0: an ordinary one"
    ),
    "control.upkeep_period_s": _now("how often upkeep looks at the calibrations"),
    "control.upkeep_margin_s": _now("a record is renewed this long before it runs out"),
    "control.upkeep_spread_s": _now("least time between calibrations that keys do not rest on"),
}

_SAFETY: Mapping[str, Entry] = {
    "safety.watchdog_period_s": _limit("lower", "period of the watchdog line", "session"),
    "safety.check_in_s": _limit("lower", "a loop silent for longer stops the watchdog", "session"),
    "safety.tec_ramp_c_per_s": _limit("lower", "fastest change of the temperature's set point", "restart"),
    "safety.submount_max_c": _limit("lower", "submount, beyond which the module goes dark and latches"),
    "safety.object_max_c": _limit("lower", "object of the temperature controller, the same"),
    "safety.sink_max_c": _limit("lower", "heat sink, the same"),
    "safety.supply_max_c": _limit("lower", "power supply, the same"),
    "safety.rail_max_a": _limit("lower", "current of the heater rail, the same"),
    "safety.tec_max_a": _limit("lower", "output of the temperature controller, the same"),
    "safety.heater_budget_w": _limit("lower", "power of all heaters of the chip together"),
    "safety.cryostat_max_k": _limit("lower", "detectors, beyond which there is no bias", only="bob"),
    "safety.fan_min_rpm": _limit("higher", "fan, below which an alarm is raised"),
    "safety.trips_max": _limit("lower", "trips of the hardware watchdog that set a latch"),
    "safety.trips_within_s": _limit("higher", "time within which those trips count"),
    "safety.tamper": _file("what an opened cover means beside its interlock"),
    "safety.tamper_debounce_s": _file("an opening that is shorter is a bounce of the contact"),
    "safety.approval_s": _file("so long a command that needs two persons waits for the second one"),
}

_SELFTEST: Mapping[str, Entry] = {
    "selftest.boot_level": Entry("session", OPERATE, "self-test before the calibrations at every start"),
    "selftest.schedule_level": _now("self-test in service"),
    "selftest.every_h": _now("from one self-test to the next in service; 0: never"),
}

_UPLINK: Mapping[str, Entry] = {
    "uplink.telemetry_period_s": _now("period of telemetry"),
    "uplink.door_shared": _file("whether the group of the door's directory may use the door"),
}

_ALARMS: Mapping[str, Entry] = {
    "alarms.temperature_k": _now("distance from the set point that raises temperature-not-held"),
    "alarms.disk_share": _now("free share of the disk below which disk-filling is raised"),
    "alarms.outbox_rows": _now("messages that wait, from which outbox-backlog is raised"),
    "alarms.store_share": _now("share of keys.store_limit from which key-store-full is raised"),
    "alarms.stalled_s": _now("a run in which nothing moves for so long raises no-keys"),
    "alarms.barren_blocks": _now("blocks in a row without a key that raise no-keys"),
    "alarms.detector_resets": _now("resets of detectors within a minute that raise detectors-latching", "bob"),
}

CATALOGUE: Mapping[str, Entry] = {
    **_PAIR,
    **_SOURCE,
    **_RECEIVER,
    **_KEYS,
    **_CONTROL,
    **_SAFETY,
    **_SELFTEST,
    **_UPLINK,
    **_ALARMS,
}
# A key that nobody has said anything about yet.
UNLISTED = Entry("file", (), "")
