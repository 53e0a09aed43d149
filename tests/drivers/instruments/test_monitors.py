"""Counter and cryostat monitor: drivers over their emulated twins, in memory and over real sockets."""

from __future__ import annotations

import asyncio
import time

import pytest

from drivers import registry
from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from drivers.bus.real import real_libraries
from drivers.errors import BusFault, OutOfRange, Refused, Stale, WrongDevice
from drivers.instruments.counter import Counter
from drivers.instruments.cryostat import Cryostat
from sim.instruments.counter import Counter as CounterTwin
from sim.instruments.cryostat import OPEN
from sim.instruments.cryostat import Cryostat as CryostatTwin
from sim.server.rawscpi import RawScpiServer
from tests.drivers.fakes import Clock, Visa, make_pool


class Now:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.t


def counter(clock: Clock) -> tuple[Counter, CounterTwin, list[tuple[int, float, float]]]:
    asked: list[tuple[int, float, float]] = []

    def counts(channel: int, seconds: float, level: float) -> float:
        asked.append((channel, seconds, level))
        return 1000.0 * seconds

    twin = CounterTwin(Now(clock), counts, "MY123")
    pool = make_pool(clock, visa=lambda resource: Visa(lambda m: twin.execute(m)))
    return registry.create("counter", "witness", "visa:x", pool, {"level_v": 0.1}), twin, asked  # type: ignore[return-value]


async def test_pulses_of_a_gate(clock: Clock) -> None:
    device, _, asked = counter(clock)
    identity = await device.open()
    assert (identity.model, identity.serial) == ("53220A", "MY123")
    assert await device.count(0.5) == 500.0
    assert await device.count(0.1, 2) == 100.0
    assert asked == [(0, 0.5, 0.1), (1, 0.1, 0.1)]
    with pytest.raises(OutOfRange, match="witness: input 3 is none of 1, 2"):
        await device.count(0.1, 3)
    with pytest.raises(OutOfRange, match=r"witness: gate 1e-05 s is outside 0.0001 to 1000 s"):
        await device.count(1e-5)


def test_the_counter_refuses_an_answer_before_its_time(clock: Clock) -> None:
    _, twin, _ = counter(clock)
    assert twin.execute(b"CONF:TOT:TIM 1,(@1);:INIT;:FETC?\n") is None
    assert twin.execute(b"SYST:ERR?\n") == b'-221,"Settings conflict;measurement in progress"\n'
    clock.t += 1.0
    assert twin.execute(b"FETC?\n") == twin.execute(b"FETC?\n") == b"+1.00000000000000E+03\n"


async def test_a_counter_without_its_gate_says_so(clock: Clock) -> None:
    device, twin, _ = counter(clock)
    await device.open()
    execute = twin.execute

    def lose_init(message: bytes) -> bytes | None:
        return None if message.startswith(b"INIT") else execute(message)

    twin.execute = lose_init  # type: ignore[method-assign]
    with pytest.raises((Refused, BusFault)):
        await device.count(0.1)


def cryostat(clock: Clock, kelvin: float = 2.51) -> tuple[Cryostat, CryostatTwin]:
    twin = CryostatTwin(lambda: kelvin, "LSA1")
    pool = make_pool(clock, visa=lambda resource: Visa(lambda m: twin.execute(m)))
    return registry.create("cryostat", "cryostat", "visa:y", pool, {}), twin  # type: ignore[return-value]


async def test_the_cryostat_is_read(clock: Clock) -> None:
    device, twin = cryostat(clock)
    assert (await device.open()).model == "MODEL336"
    reading = await device.read()
    assert (reading.kelvin, reading.heater_range, reading.heater_fault) == (2.51, 1, "")
    twin.heater_status = 1
    assert (await device.read()).heater_fault == "open heater load"
    twin.reading_status = OPEN
    with pytest.raises(Stale, match=r"cryostat at visa:y: sensor A: sensor units over range \(open\)"):
        await device.read()
    assert twin.execute(b"NONSENSE\r\n") is None
    assert twin.execute(b"RANGE 1,3;RANGE?;SETP 1,3.1;SETP?\r\n") == b"3;+3.10000E+00\r\n"


@pytest.mark.parametrize("driver", ["counter", "cryostat"])
async def test_something_else_at_the_address(clock: Clock, driver: str) -> None:
    pool = make_pool(clock, visa=lambda resource: Visa(lambda m: b"ACME,X,1,2\n" if b"IDN" in m else None))
    with pytest.raises(WrongDevice, match="found 'ACME,X,1,2'"):
        await registry.create(driver, "x", "visa:z", pool, {}).open()


class Twin:
    present, late_s = True, 0.0

    def __init__(self, device: CryostatTwin) -> None:
        self.execute = device.execute


async def test_over_a_raw_socket_with_the_real_library() -> None:
    server = RawScpiServer(Twin(CryostatTwin(lambda: 2.5, "LSA2")))
    port = await server.start()
    real = real_libraries()
    pool = BusPool(Libraries(real.i2c, real.spi, real.serial, real.visa, real.tcp, threaded=True), time.monotonic)
    device = registry.create("cryostat", "cryostat", f"visa:TCPIP::127.0.0.1::{port}::SOCKET", pool, {})
    assert isinstance(device, Cryostat)
    try:
        async with asyncio.timeout(20):
            assert (await device.open()).serial == "LSA2"
            assert (await device.read()).kelvin == 2.5
    finally:
        await device.close()
        await server.close()
