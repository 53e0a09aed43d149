from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import registry
from drivers.bus.crc import crc16
from drivers.errors import BusFault, DriverError, OutOfRange, Refused, Timeout, WrongDevice
from drivers.instruments.mecom_frame import match, request
from drivers.instruments.mecom_tec import MecomTec
from drivers.roles import TecState
from tests.drivers.fakes import Clock, Serial, make_pool

READ = b"#021AB7?VR03E801D8B7\r"
SET = b"#021AB7VS0BB80141C8000063D1\r"


def test_vectors_of_the_reference() -> None:
    assert request(2, 0x1AB7, "?VR03E801") == READ
    assert request(2, 0x1AB7, "VS0BB80141C80000") == SET
    assert match(b"!021AB763D1\r", SET) == ""
    payload = match(b"!021AB741C7FBE71F38\r", READ)
    assert payload == "41C7FBE7"
    assert struct.unpack(">f", bytes.fromhex(payload))[0] == pytest.approx(24.998, abs=1e-3)
    with pytest.raises(Refused, match=r"\+05: parameter not available"):
        match(b"!021AB7+059817\r", READ)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 254))
def test_only_its_own_sequence_and_address_match(asked: int, answered: int, address: int) -> None:
    sent = request(address, asked, "?VR03E801")
    body = f"!{address:02X}{answered:04X}41C80000".encode()
    got = match(body + b"%04X\r" % crc16(body), sent)
    assert (got == "41C80000") == (asked == answered)


@given(st.binary(max_size=30))
def test_garbage_is_a_bus_fault_or_nothing(garbage: bytes) -> None:
    try:
        assert match(garbage + b"\r", READ) is None
    except BusFault:
        return


def f(value: float) -> bytes:
    return struct.pack(">f", value)


def i(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


class Controller:
    """Parameters by id as 4 bytes; CRC, sequence and errors as in the protocol."""

    def __init__(self) -> None:
        self.values = {100: i(1091), 102: i(4711), 103: i(610), 104: i(2), 105: i(0), 1200: i(2)}
        self.values |= {1000: f(30.001), 1001: f(27.0), 1010: f(30.0), 1011: f(29.5), 1020: f(-0.5), 1021: f(-1.2)}
        self.values |= {p: f(0.0) for p in (2030, 2060, 3000, 3003, 3010, 3011, 3012)} | {
            2000: i(2),
            2010: i(0),
            2020: f(0.0),
        }
        self.mangle: list[str] = []
        self.old = b""
        self.error = ""

    def __call__(self, sent: bytes) -> bytes:
        reply = self._reply(sent)
        how = self.mangle.pop(0) if self.mangle else ""
        old, self.old = self.old, reply
        if how == "lost":
            return b""
        if how == "truncated":
            return reply[:-5]
        if how == "flipped":
            return reply[:8] + bytes([reply[8] ^ 1]) + reply[9:]
        if how == "after an old one":
            return old + reply
        if how == "garbage before":
            return b"\x00\xff!0" + reply
        return reply

    def _reply(self, sent: bytes) -> bytes:
        assert sent[-5:-1] == b"%04X" % crc16(sent[:-5])
        head, payload = b"!" + sent[1:7], sent[7:-5].decode()
        if self.error:
            body = head + self.error.encode()
        elif payload.startswith("?VR"):
            body = head + self.values[int(payload[3:7], 16)].hex().upper().encode()
        else:
            self.values[int(payload[2:6], 16)] = bytes.fromhex(payload[8:])
            return head + sent[-5:-1] + b"\r"
        return body + b"%04X\r" % crc16(body)


def tec(clock: Clock, device: Controller, **options: object) -> tuple[MecomTec, Serial]:
    line = Serial(device)
    made = registry.create("mecom_tec", "tec", "serial:/dev/tec", make_pool(clock, serial=lambda p, b: line), options)
    assert isinstance(made, MecomTec)
    return made, line


async def test_open_read_and_set(clock: Clock) -> None:
    device = Controller()
    made, line = tec(clock, device, watchdog_s=5.0, current_limit_a=1.5, ramp_c_per_s=0.1, device_address=2)
    identity = await made.open()
    assert (identity.model, identity.serial, identity.firmware) == ("TEC-1091", "4711", "6.10")
    assert struct.unpack(">f", device.values[2060]) == (5.0,)
    assert struct.unpack(">f", device.values[2030]) == (1.5,)
    assert struct.unpack(">f", device.values[3003])[0] == pytest.approx(0.1)
    reading = await made.read()
    assert reading.object_c == pytest.approx(30.001, abs=1e-5)
    assert (reading.state, reading.error, reading.current_a) == (TecState.STABLE, 0, -0.5)
    await made.set_target(30.0)
    assert line.sent[-1][7:-5] == b"VS0BB80141F00000"
    await made.set_gains(0.95, 8.8)
    await made.enable(True)
    assert device.values[2010] == b"\0\0\0\1"
    await made.make_safe()
    assert device.values[2010] == b"\0\0\0\1"  # hold
    with pytest.raises(OutOfRange, match=r"tec\.target: 70 C is above the upper limit 60 C"):
        await made.set_target(70)
    with pytest.raises(OutOfRange, match=r"tec\.current_limit: 2 A"):
        await made.set_current_limit(2.0)
    with pytest.raises(OutOfRange, match=r"tec\.kp: nan A/K"):
        await made.set_gains(float("nan"), 1.0)
    await made.close()


@pytest.mark.parametrize(
    ("status", "stable", "state"),
    [(1, 0, TecState.OFF), (2, 1, TecState.NOT_STABLE), (2, 0, TecState.OFF), (3, 0, TecState.ERROR)],
)
async def test_states(clock: Clock, status: int, stable: int, state: TecState) -> None:
    device = Controller()
    device.values |= {104: status.to_bytes(4, "big"), 1200: stable.to_bytes(4, "big"), 105: (108).to_bytes(4, "big")}
    made, _ = tec(clock, device)
    reading = await made.read()
    assert reading.state is state
    assert reading.error == (108 if state is TecState.ERROR else 0)


async def test_safe_off(clock: Clock) -> None:
    device = Controller()
    made, _ = tec(clock, device, safe="off", safe_c=22.0)
    device.values[2010] = b"\0\0\0\1"
    await made.open()
    assert device.values[2010] == b"\0\0\0\0"
    assert struct.unpack(">f", device.values[3000]) == (22.0,)


async def test_refusals_and_wrong_devices(clock: Clock) -> None:
    device = Controller()
    made, line = tec(clock, device)
    device.error = "+07"
    with pytest.raises(Refused, match=r"tec at serial:/dev/tec: VS0BB801.*\+07: value out of range"):
        await made.set_target(30.0)
    assert len(line.sent) == 1
    with pytest.raises(WrongDevice, match="value out of range"):
        await made.open()
    device.error = ""
    device.values[100] = (7).to_bytes(4, "big")
    with pytest.raises(WrongDevice, match=r"tec at serial:/dev/tec: expected MeCom TEC controller .*found type 7"):
        await made.open()
    line.answer = lambda sent: b""
    with pytest.raises(WrongDevice, match="no complete reply"):
        await made.open()


async def test_replies_of_a_wrong_shape(clock: Clock) -> None:
    device = Controller()
    made, _ = tec(clock, device)
    device.values[1000] = b"\0\0"
    with pytest.raises(BusFault, match="parameter 1000 answered with '0000'"):
        await made.get_float(1000)
    device.error = "00"
    with pytest.raises(BusFault, match="set of 3000 answered with '00'"):
        await made.set_target(25.0)


FAULTS = ["", "", "lost", "truncated", "flipped", "after an old one", "garbage before"]


@given(st.lists(st.sampled_from(FAULTS), max_size=12), st.lists(st.booleans(), min_size=8, max_size=8))
def test_no_fault_ever_shifts_a_reply(faults: list[str], late: list[bool]) -> None:
    """Every call returns its own parameter or raises; afterwards the line works again."""
    import asyncio

    async def scenario() -> None:
        device = Controller()
        made, line = tec(Clock(), device)
        for k in range(20):
            device.values[1000 + k] = f(k)
        device.mangle = list(faults)
        for k, is_late in enumerate(late):
            if is_late:
                line.late = device.old
            try:
                assert await made.get_float(1000 + k) == float(k)
            except (Timeout, BusFault):
                continue
        device.mangle.clear()
        assert await made.get_float(1019) == 19.0

    asyncio.run(scenario())
    assert issubclass(Timeout, DriverError)


async def test_a_fixed_current_and_back_to_regulation(clock: Clock) -> None:
    device = Controller()
    device.values[2000] = i(0)
    made, line = tec(clock, device, current_limit_a=1.5)
    await made.open()
    assert device.values[2000] == i(2)
    await made.drive_current(-0.75)
    assert (device.values[2000], device.values[2020]) == (i(0), f(-0.75))
    sent = len(line.sent)
    with pytest.raises(OutOfRange, match=r"tec\.current: 1\.6 A is above the upper limit 1\.5 A"):
        await made.drive_current(1.6)
    await made.set_current_limit(0.5)
    with pytest.raises(OutOfRange, match=r"tec\.current: -0\.6 A is below the lower limit -0\.5 A"):
        await made.drive_current(-0.6)
    assert len(line.sent) == sent + 1  # nothing was written but the limit
    await made.drive_current(None)
    assert device.values[2000] == i(2)
    await made.drive_current(0.1)
    await made.make_safe()
    assert device.values[2000] == i(2)
    with pytest.raises(KeyError):
        made.output("current")
    assert made.output("target").limits.unit == "C"
