"""Numbers for the NOC, a flat object a group. Values are what loops know already."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from drivers.bus.pool import BusPool
from qmodd.app.alice import AliceOperator
from qmodd.app.bob import BobOperator
from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.keys.records import BlockRecord
from qmodd.keys.store import KeyStore

Numbers = dict[str, int | float | bool]


class Telemetry:
    def __init__(self, wiring: Wiring, operator: Operator, buses: BusPool, store: KeyStore) -> None:
        self._wiring = wiring
        self._operator = operator
        self._buses = buses
        self._store = store

    async def run(self) -> None:
        period_s = self._wiring.config.uplink.telemetry_period_s
        while True:
            for group, values in self.groups().items():
                self._wiring.door.telemetry(group, values)
            await self._wiring.tell_peer()
            await asyncio.sleep(period_s)

    def groups(self) -> dict[str, Numbers]:
        out = {"keys": self._keys(), "link": self._link(), "bus": self._bus(), "loops": self._loops()}
        if thermal := self._thermal():
            out["thermal"] = thermal
        if isinstance(self._operator, BobOperator) and (phase := self._phase(self._operator)):
            out["phase"] = phase
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
                f"{name}_late_max_s": r.late_max_s,
                f"{name}_busy_max_s": r.busy_max_s,
                f"{name}_runs_count": r.runs,
            }
        return out

    def _thermal(self) -> Numbers:
        reading = self._operator.tec.reading if self._operator.tec else None
        if reading is None:
            return {}
        return {
            "object_c": reading.object_c,
            "sink_c": reading.sink_c,
            "target_c": reading.target_c,
            "tec_current_a": reading.current_a,
            "stable": self._operator.temperature_within(0.02),
        }

    def _phase(self, operator: BobOperator) -> Numbers:
        report = operator.lock_report()
        if report is None or not operator.in_service:
            return {}
        return {
            "locked": report.locked,
            "error_deg": math.degrees(report.error_rad),
            "sigma_deg": math.degrees(report.sigma_rad),
            "visibility": report.visibility,
            "heater_w": report.power_w,
            "wraps_count": report.wraps,
            "relocks_count": report.relocks,
        }

    def _optics(self, operator: AliceOperator) -> Numbers:
        out: Numbers = {}
        if operator.mean_photon:
            out |= {"voa_trim_db": operator.mean_photon.trim_db}
        if operator.laser_power:
            out |= {"laser_trim_db": operator.laser_power.trim_db}
        if operator.decoy:
            out |= {
                "decoy_ratio_error": operator.decoy.error,
                "decoy_bias_trim_v": operator.decoy.volts - operator.decoy.peak_v,
            }
        if operator.monitor:
            out |= {"mean_power_change": operator.monitor.change}
        if operator.carver:
            out |= {"carver_error_deg": math.degrees(operator.carver.error_rad)}
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
            "key_bits": record.keys * record.key_bits,
            "leak_bits": record.leak_bits,
            "frames_helped": record.frames_helped,
            "seconds": record.seconds,
        }
        self._wiring.events.record("block.kept", fields)
