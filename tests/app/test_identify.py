"""What follows from a replaced device, and from a replaced far module, without running the pair."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from calibration.record import Record
from drivers.roles import Identity
from qmodd.soak import Run
from tests.app.pair import build, events


def identity(serial: str) -> Identity:
    return Identity("itla", "serial:laser", "model", serial)


def record(run: Run, name: str, parents: dict[str, int] | None = None) -> Record:
    now = run.clock.utc()
    valid = now + timedelta(hours=1)
    return Record(name=name, value={"x_v": 1.0}, created=now, valid_until=valid, parents=parents or {})


def test_a_device_with_another_serial_is_told_once(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        bay = run.sites["alice"].core.wiring.bay
        bay.library.select("QA1")
        for serial in ("L1", "L1", "L2", "L2"):
            bay._compare_devices({"laser": identity(serial)})

    (told,) = events(build(tmp_path, script), "alice", "device.replaced")
    assert (told["assembly"], told["device"], told["old"], told["new"]) == ("QA1", "laser", "L1", "L2")


def test_a_module_that_comes_back_is_compared_with_its_own_last_time(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        bay = run.sites["alice"].core.wiring.bay
        for module, serial in (("QA1", "L1"), ("QA2", "L2"), ("QA1", "L1"), ("QA2", "L2")):
            bay.library.select(module)
            bay._compare_devices({"laser": identity(serial)})

    assert not events(build(tmp_path, script), "alice", "device.replaced")


def test_another_transmitter_makes_the_fringe_invalid_and_what_rests_on_it(tmp_path: Path) -> None:
    interrupted: list[str] = []

    async def script(run: Run) -> None:
        wiring = run.sites["bob"].core.wiring
        wiring.bay.on_peer_replaced = interrupted.append
        wiring.bay.library.select("QB1")
        wiring.bay.hear_peer("QA1")
        wiring.records.append(record(run, "detector_bias"))
        wiring.records.append(record(run, "arm_phase"))
        wiring.records.append(record(run, "crosstalk_trim", {"arm_phase": 1}))
        wiring.bay.hear_peer("QA1")
        assert not interrupted
        wiring.bay.hear_peer("QA2")

    run = build(tmp_path, script)
    records = run.sites["bob"].core.records
    why = "taken with the far photonic module QA1; QA2 is in now"
    assert [records.invalid_reason(n) for n in ("detector_bias", "arm_phase", "crosstalk_trim")] == [None, why, why]
    (told,) = events(run, "bob", "peer.replaced")
    assert (told["old"], told["new"], told["redone"]) == ("QA1", "QA2", "arm_phase")
    assert len(interrupted) == 1


def test_nothing_of_the_transmitter_rests_on_the_receiver(tmp_path: Path) -> None:
    interrupted: list[str] = []

    async def script(run: Run) -> None:
        wiring = run.sites["alice"].core.wiring
        wiring.bay.on_peer_replaced = interrupted.append
        wiring.bay.library.select("QA1")
        wiring.records.append(record(run, "laser"))
        wiring.bay.hear_peer("QB1")
        wiring.bay.hear_peer("QB2")

    run = build(tmp_path, script)
    assert run.sites["alice"].core.records.invalid_reason("laser") is None
    assert events(run, "alice", "peer.replaced")
    assert not interrupted
