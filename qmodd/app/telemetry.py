"""Numbers for the NOC, a flat object a group. Values are what loops know already."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from calibration.names import DETECTORS
from drivers.bus.pool import BusPool
from qmodd.app.alice import AliceOperator
from qmodd.app.bob import BobOperator
from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.keys.records import BlockRecord
from qmodd.keys.store import KeyStore

Numbers = dict[str, int | float | bool]


class Telemetry:
    """`host` gives the controller's own numbers; in simulated time there are none."""

    def __init__(
        self,
        wiring: Wiring,
        operator: Operator,
        buses: BusPool,
        store: KeyStore,
        host: Callable[[], Numbers] = lambda: {},
    ) -> None:
        self._host = host
        self._wiring = wiring
        self._operator = operator
        self._buses = buses
        self._store = store
        self._sooner = asyncio.Event()

    async def run(self) -> None:
        while True:
            self._sooner.clear()
            for group, values in self.groups().items():
                self._wiring.door.telemetry(group, values)
            await self._wiring.tell_peer()
            try:
                async with asyncio.timeout(self._wiring.config.uplink.telemetry_period_s):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    def period_changed(self) -> None:
        """The wait that has begun is over: the next one is as long as is set now."""
        self._sooner.set()

    def groups(self) -> dict[str, Numbers]:
        out = {"keys": self._keys(), "link": self._link(), "bus": self._bus(), "loops": self._loops()}
        out["alarms"] = self._wiring.alarms.numbers()
        if monitors := self._operator.monitor_desk.monitors.numbers():
            out["monitors"] = monitors
        if thermal := self._thermal():
            out["thermal"] = thermal
        if isinstance(self._operator, BobOperator) and (phase := self._phase(self._operator)):
            out["phase"] = phase
        if isinstance(self._operator, BobOperator) and (detectors := self._detectors(self._operator)):
            out["detectors"] = detectors
        if host := self._host():
            out["host"] = host
        if isinstance(self._operator, AliceOperator):
            out["optics"] = self._optics(self._operator)
        return out

    def _keys(self) -> Numbers:
        s = self._wiring.engine.status
        totals = {f"{state}_count": n for state, n in self._store.totals().items()}
        return {
            **totals,
            "blocks_committed_count": s.blocks_committed,
            "blocks_aborted_count": s.blocks_aborted,
            "block_progress": s.block_progress,
            "secret_rate_bps": s.secret_bps,
            "qber_z": s.qber_z,
            "qber_x": s.qber_x,
            "pool_rounds_count": s.pool_rounds,
        }

    def _link(self) -> Numbers:
        s = self._wiring.engine.status
        return {
            "sifted_rate_per_s": s.sifted_bps,
            "batches_count": s.batches,
            "batches_dropped_count": s.batches_dropped,
            "clock_residual_ps": s.clock_residual_ps,
            "clock_offset_ppm": 1e6 * s.clock_y,
        }

    def _bus(self) -> Numbers:
        out: Numbers = {}
        for address, c in self._buses.counters().items():
            name = "".join(ch if ch.isalnum() else "_" for ch in address).strip("_")[-40:]
            out |= {
                f"{name}_transactions_count": c.transactions,
                f"{name}_errors_count": c.errors,
                f"{name}_retries_count": c.retries,
                f"{name}_latency_max_s": c.latency_s_max,
            }
        return out

    def _loops(self) -> Numbers:
        scheduler = self._wiring.scheduler
        out: Numbers = {}
        for r in scheduler.reports() if scheduler else ():
            name = r.name.replace(" ", "_")
            out |= {
                f"{name}_period_s": r.period_mean_s,
                f"{name}_late_rms_s": r.late_rms_s,
                f"{name}_late_p99_s": r.late_p99_s,
                f"{name}_late_max_s": r.late_max_s,
                f"{name}_busy_max_s": r.busy_max_s,
                f"{name}_bus_max_s": r.bus_max_s,
                f"{name}_bus_share": r.bus_share,
                f"{name}_runs_count": r.runs,
                f"{name}_overruns_count": r.overruns,
                f"{name}_restarts_count": r.restarts,
                f"{name}_facts_count": len(r.facts),
            }
        return out

    def _thermal(self) -> Numbers:
        loop = self._operator.tec
        reading = loop.reading if loop else None
        if loop is None or reading is None:
            return {}
        out: Numbers = {
            "object_c": reading.object_c,
            "sink_c": reading.sink_c,
            "target_c": reading.target_c,
            "tec_current_a": reading.current_a,
            "stable": self._operator.temperature_within(0.02),
            "identifying": loop.identifying,
            "kp_a_per_k": loop.tuning.kp_a_per_k,
            "ti_s": loop.tuning.ti_s,
            "current_clamp_a": loop.tuning.clamp_a,
            "feed_forward_k": loop.offset_k,
        }
        if plant := self._wiring.records.active("tec_plant"):
            out |= {
                "plant_slope_k_per_a_s": plant.value["slope_k_per_a_s"],
                "plant_delay_s": plant.value["dead_s"] + plant.value["lag_s"],
            }
        return out

    def _detectors(self, operator: BobOperator) -> Numbers:
        """Of the newest batch: clicks, and what became of the slots that were counted; the bias that is in force."""
        s, period_s = self._wiring.engine.status, 1e-12 * self._wiring.config.pair.symbol_period_ps
        out: Numbers = {}
        if s.light is not None and s.light.live_slots and s.light_slots:
            for name, clicks, gated in zip(DETECTORS, s.light.clicks, s.light.in_gate, strict=True):
                out[f"{name}_clicks_per_s"] = clicks / (s.light_slots * period_s)
                if clicks:
                    out[f"{name}_in_gate_share"] = gated / clicks
            for name in ("veto", "out_of_gate", "cross", "double_x"):
                out[f"{name}_share"] = getattr(s.light, name) / s.light.live_slots
        if record := self._wiring.records.active("detector_bias"):
            out |= {f"{name}_bias_a": float(record.value[f"{name}_bias_a"]) for name in DETECTORS}
        return out | {"blind": bool(operator.blind)} if out else {}

    def _phase(self, operator: BobOperator) -> Numbers:
        """Empty before the first lock: what the lock and its ledger say."""
        return operator.phase_numbers()

    def _optics(self, operator: AliceOperator) -> Numbers:
        out: Numbers = {}
        if loop := operator.mean_photon:
            out |= {"voa_trim_db": loop.trim_db, "mean_photon_error": loop.relative_error}
        if power := operator.laser_power:
            out |= {"laser_trim_db": power.trim_db}
        if wavelength := operator.laser_wavelength:
            out |= {"laser_error_hz": wavelength.error_hz, "laser_fine_hz": wavelength.fine_hz}
        if peak := operator.filter:
            out |= {"filter_loss": peak.loss, "filter_corrections_count": peak.corrections}
        if carver := operator.carver:
            out |= {"carver_error_deg": math.degrees(carver.error_rad)}
        return out | self._modulators(operator)

    @staticmethod
    def _modulators(operator: AliceOperator) -> Numbers:
        """What only exists once the modulators have been aligned for keys."""
        out: Numbers = {}
        if decoy := operator.decoy:
            out |= {"decoy_ratio_error": decoy.mean_error, "decoy_bias_trim_v": decoy.volts - decoy.peak_v}
        if seen := operator.decoys_seen:
            out |= {"decoy_ratio_error_seen": seen.error}
        if probe := operator.probe:
            out |= {
                "state_error": probe.state_error,
                "state_bias_trim_v": probe.volts - probe.state.null_v,
                "decoy_probe_error": probe.decoy_error,
                "probes_count": probe.looks,
                "probes_missed_count": probe.missed,
            }
        if split := operator.split:
            out |= {"split_error": split.error, "split_trim_w": split.watts - split.power_w}
        return out

    def block(self, record: BlockRecord) -> None:
        """One committed block, for the event log and with it for the NOC. Counts only, no bit of a key."""
        fields: dict[str, Any] = {
            "uuid": record.uuid,
            "n_z": sum(record.n_z),
            "n_x": sum(record.n_x),
            "qber_z": record.qber_z,
            "qber_x": record.qber_x,
            "length_bits": record.length_bits,
            "key_bits": record.secret_bits,
            "leak_bits": record.leak_bits,
            "frames_helped": record.frames_helped,
            "seconds": record.seconds,
            "modules": f"{record.alice_module} {record.bob_module}",
        }
        self._wiring.events.record("block.kept", fields)
