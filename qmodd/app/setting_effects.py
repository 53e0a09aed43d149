"""Brings a changed setting to where its value is held. Who reads `wiring.config` each time needs nothing from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qmodd.app.bob import BobOperator
from qmodd.app.operator import Operator
from qmodd.app.safekeeping import limits_of
from qmodd.app.telemetry import Telemetry
from qmodd.app.wiring import Wiring
from qmodd.config import Config
from qmodd.keys.reconciliation import Setting
from qmodd.requests import Arguments, Handler


@dataclass
class Effects:
    """One module's. `changed` is an effect of the desk."""

    wiring: Wiring
    operator: Operator
    telemetry: Telemetry

    def changed(self, config: Config) -> None:
        """From here on this configuration is in force."""
        before = self.wiring.config
        self.wiring.config = self.wiring.module.config = config
        if config.keys != before.keys:
            self._keys(config)
        if config.safety != before.safety:
            self._safety(config)
        if config.uplink.telemetry_period_s != before.uplink.telemetry_period_s:
            self.telemetry.period_changed()
        control, was = config.control, before.control
        if (control.phase_limit_deg, control.visibility_min) != (was.phase_limit_deg, was.visibility_min):
            self._phase()

    def _keys(self, config: Config) -> None:
        k, engine = config.keys, self.wiring.engine
        engine.follow(
            replace(
                engine.settings,
                reconciliation=Setting(k.reconciliation),
                batch_s=k.batch_s,
                sync_s=k.sync_s,
                lifetime_s=k.lifetime_s,
                store_limit=k.store_limit,
            )
        )

    def _safety(self, config: Config) -> None:
        keeping = self.operator.safekeeping
        keeping.limits = keeping.monitor.limits = limits_of(self.wiring)
        self.wiring.budget.budget_w = config.safety.heater_budget_w

    def _phase(self) -> None:
        if isinstance(self.operator, BobOperator) and self.operator.phase is not None:
            self.operator.phase.limited()


def setting_handlers(wiring: Wiring) -> Mapping[str, Handler]:
    """By command name."""

    async def undo(arguments: Arguments) -> dict[str, Any]:
        """A setting as it was before its last change."""
        return await wiring.settings.undo(arguments)

    return {"undo": undo}


def connect(wiring: Wiring, operator: Operator, telemetry: Telemetry) -> None:
    """Once everything is built with what is in force."""
    wiring.settings.follow(wiring.outbox, wiring.events)
    wiring.settings.effects.append(Effects(wiring, operator, telemetry).changed)
