"""A whole pair in simulated time for the tests: both daemons, their drivers, chips and one world in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from qmodd.demo.compose import SERIALS
from qmodd.door_frames import Inbound
from qmodd.identity import ClientFiles, sign_request
from qmodd.lifecycle import Activity
from qmodd.messages import RequestBody
from qmodd.provision import SITE
from qmodd.soak import STROBE, Run
from sim.faults import Fault
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

Script = Callable[[Run], Awaitable[None]]
Event = Mapping[str, Any]


def simulate(
    directory: Path,
    script: Script,
    *,
    seed: int = 1,
    scenario: Scenario | None = None,
    settings: Mapping[str, Any] | None = None,
    most_s: float = 5000.0,
) -> Run:
    """Run a pair beside `script`, which ends the run when it returns; at most `most_s` simulated seconds."""
    loop = SimulatedLoop()
    world = (scenario or Scenario()).model_copy(update={"seed": seed})

    async def main() -> Run:
        run = Run(loop, directory, world, seed, {**STROBE, **(settings or {})})
        work = asyncio.ensure_future(script(run))
        try:
            await run.for_seconds(most_s, until=work.done)
            assert work.done(), f"the script has not ended after {most_s} s; {states(run)}"
            await work
        except BaseException:
            run.close()
            raise
        finally:
            work.cancel()
            await asyncio.wait({work})
        return run

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def build(directory: Path, script: Script, *, seed: int = 1, scenario: Scenario | None = None) -> Run:
    """A pair that is built but not started: devices are there, nothing has spoken to them. Then run `script`."""
    loop = SimulatedLoop()

    async def main() -> Run:
        run = Run(loop, directory, (scenario or Scenario()).model_copy(update={"seed": seed}), seed)
        try:
            await script(run)
        finally:
            for site in run.sites.values():
                await site.core.module.close()
            run.close()
        return run

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def states(run: Run) -> dict[str, str]:
    return {
        name: f"{site.core.life.activity}: {site.core.life.why('activity')}; {site.core.engine.status.why}"
        for name, site in run.sites.items()
    }


def events(run: Run, site: str, name: str, since_s: float = 0.0) -> list[Event]:
    """Events of a name from a simulated time on, in order."""
    begin = (run.clock.epoch + timedelta(seconds=since_s)).isoformat(timespec="milliseconds")
    entries = run.sites[site].core.events.entries
    return [e for e in entries if e["event"] == name and str(e["t"]) >= begin]


async def until(run: Run, condition: Callable[[], bool], within_s: float, what: str, grain_s: float = 0.05) -> float:
    """Seconds until the condition holds."""
    begin = run.loop.time()
    while not condition():
        assert run.loop.time() - begin < within_s, f"not within {within_s} s: {what}; {states(run)}"
        await asyncio.sleep(grain_s)
    return run.loop.time() - begin


def keying(run: Run) -> bool:
    return all(site.core.life.activity is Activity.KEYING for site in run.sites.values())


async def until_keying(run: Run, within_s: float = 400.0) -> float:
    return await until(run, lambda: keying(run), within_s, "both modules make keys")


async def until_blocks(run: Run, count: int, within_s: float = 1000.0) -> None:
    def enough() -> bool:
        return all(site.core.store.commits >= count for site in run.sites.values())

    await until(run, enough, within_s, f"{count} blocks at both sites", 0.5)


# what the world itself says


@dataclass(frozen=True)
class Outputs:
    """What comes out of a module's electronics, by the world and not by the daemon."""

    emitting: bool
    heater_rail_on: bool
    heater_currents_a: tuple[float, ...]
    detector_bias_a: tuple[float, ...]
    tec_on: bool

    @property
    def rails_off(self) -> bool:
        return not self.emitting and not self.heater_rail_on

    @property
    def dark(self) -> bool:
        """No laser light, no heat, no bias."""
        return self.rails_off and not any(self.heater_currents_a) and not any(self.detector_bias_a)


def outputs(run: Run, name: str) -> Outputs:
    rig = run.rigs[name]
    rig.tick()
    port = rig.port
    dac = rig.part("ltc2672")
    currents = tuple(dac.current(channel) if rig.present("ltc2672") else 0.0 for channel in range(5))
    alice = name == "alice"
    return Outputs(
        emitting=run.world.alice.laser()[0] if alice else False,
        heater_rail_on=port.heater_rail()[0] > 0.0,
        heater_currents_a=currents,
        detector_bias_a=() if alice else tuple(float(a) for a in run.world.bob.bank.bias),
        tec_on=port.tec.enabled,
    )


# what may befall it


def strike(run: Run, kind: str, target: str, duration_s: float, probability: float = 1.0) -> None:
    """A scripted fault from now on, of the buses and parts; `probability` of each transaction."""
    run.world.faults.add(Fault(run.loop.time(), kind, target, duration_s, None, probability))


def befall_world(run: Run, kind: str, target: str, duration_s: float) -> None:
    """A fault of the world itself, which acts on its next step (0.2 s at the latest)."""
    strike(run, kind, target, duration_s)
    run.world.before_change()
    run.world._apply_faults(run.loop.time())


# requests, as from the network


@dataclass
class Noc:
    """The operator at the network's end: signs requests and collects the answers."""

    run: Run

    def __post_init__(self) -> None:
        self.files = ClientFiles.load(self.run.directory / SITE / "operator")
        self.answers: list[tuple[str, bytes]] = []

    def body(self, site: str, command: str, arguments: Mapping[str, Any] | None = None, **changes: Any) -> RequestBody:
        core, now = self.run.sites[site].core, self.run.clock.utc()
        return RequestBody(
            **{
                "module": SERIALS[site],
                "topic": f"qmodd/v1/{SERIALS[site]}/command/{command}",
                "epoch": core.epoch,
                "id": str(uuid4()),
                "client": "operator",
                "issued_at": now,
                "expires_at": now + timedelta(seconds=60),
                "arguments": dict(arguments or {}),
                **changes,
            }
        )

    def signed(self, body: RequestBody) -> bytes:
        return sign_request(self.files.signer, self.files.certificate, body).payload()

    def send(self, site: str, topic: str, payload: bytes, **flags: Any) -> None:
        self.run.uplink.request(SERIALS[site], Inbound(topic=topic, payload=payload, **flags))

    def do(self, site: str, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        body = self.body(site, command, arguments)
        self.send(site, body.topic, self.signed(body))
