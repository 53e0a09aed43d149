from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import registry
from drivers.errors import BusFault, OutOfRange, Refused, Timeout, WrongDevice
from drivers.instruments.itla import Itla
from drivers.instruments.itla_frame import Status, bip4, parse, request
from tests.drivers.fakes import Clock, Serial, make_pool


def test_vectors_of_the_reference() -> None:
    assert request(0).hex() == "00000000"
    assert request(0x32, 8, write=True).hex() == "81320008"
    assert request(0x31, 1000, write=True).hex() == "613103e8"
    assert request(0x35, 193, write=True).hex() == "a13500c1"
    assert request(0x36, 4145, write=True).hex() == "71361031"
    reply = parse(bytes.fromhex("54000010"))
    assert reply is not None
    assert (reply.register, reply.status, reply.value) == (0, Status.OK, 0x10)


@given(st.binary(min_size=4, max_size=4), st.integers(0, 31))
def test_a_flipped_bit_is_never_a_reply(data: bytes, bit: int) -> None:
    low = data[0] & 0x07 | 0x04
    good = bytes([bip4(low, *data[1:]) << 4 | low, *data[1:]])
    assert parse(good) is not None
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    assert parse(bytes(bad)) is None  # the communication-error bit too: parity is judged first


def reply_frame(register: int, value: int, status: int = 0, ce: int = 0) -> bytes:
    low = 0x04 | ce << 3 | status
    data = (value & 0xFFFF).to_bytes(2, "big")
    return bytes([bip4(low, register, *data) << 4 | low, register, *data])


class Laser:
    """Registers, strings, pending operations that end after some NOPs, execution errors."""

    def __init__(self) -> None:
        self.registers = {0x0D: 0, 0x08: 0, 0x30: 1, 0x34: 500, 0x20: 0x1000, 0x21: 0x1000, 0x31: 1000, 0x32: 0}
        self.registers |= {0x35: 193, 0x36: 0, 0x67: 0, 0x40: 193, 0x41: 4145, 0x68: 3, 0x42: 1000}
        self.registers |= {0x50: 700, 0x51: 1300, 0x52: 191, 0x53: 5000, 0x54: 196, 0x55: 1000}
        self.texts = {1: b"CW ITLA\0", 3: b"Model 5\0", 4: b"SN0042\0", 6: b"1.3.0\0"}
        self.text = b""
        self.pending = 0
        self.counting = False  # every answer to a read is another number
        self.count = 0
        self.never_settles = False
        self.error = 0
        self.mangle: list[str] = []
        self.held = b""
        self.writes: list[tuple[int, int]] = []

    def __call__(self, sent: bytes) -> bytes:
        reply = self._reply(sent)
        how = self.mangle.pop(0) if self.mangle else ""
        if how in ("held back", "held back in part"):
            # It may come later: before, and never after, the reply to a later request.
            now = reply[:2] if how == "held back in part" else b""
            self.held += reply[len(now) :]
            return now
        held, self.held = self.held, b""
        if how == "broken request":
            return reply_frame(sent[1], 0, ce=1)
        return {
            "flipped": bytes([reply[0], reply[1], reply[2] ^ 4, reply[3]]),
            "after those held back": held + reply,
            "garbage before": b"\x00\xff\x12" + reply,
        }.get(how, reply)

    def _refuse(self, register: int, code: int) -> bytes:
        self.error = code
        return reply_frame(register, 0, status=1)

    def _reply(self, sent: bytes) -> bytes:
        assert bip4(*sent) == sent[0] >> 4
        register, value, write = sent[1], int.from_bytes(sent[2:], "big"), sent[0] & 1
        if register == 0:
            busy = self.pending > 0 or self.never_settles
            self.pending -= busy
            return reply_frame(0, (0x0100 if busy else 0) | 0x10 | self.error)
        if register in self.texts:
            self.text = self.texts[register]
            return reply_frame(register, len(self.text), status=2)
        if register == 0x0B:
            two, self.text = self.text[:2], self.text[2:]
            return reply_frame(0x0B, int.from_bytes(two.ljust(2, b"\0"), "big")) if two else self._refuse(0x0B, 6)
        if register not in self.registers:
            return self._refuse(register, 1)
        if not write:
            if self.counting:
                self.count += 1
                self.registers[register] = self.count
            return reply_frame(register, self.registers[register])
        if register in (0x35, 0x36, 0x67) and self.registers[0x32] & 8:
            return self._refuse(register, 9)
        self.error = 0
        self.writes.append((register, value))
        self.registers[register] = value & ~self.registers[register] if register in (0x20, 0x21) else value
        if register == 0x32:
            self.registers[0x20] = self.registers[0x21] = 0 if value & 8 else 0x1000
            self.pending = 3
            return reply_frame(register, 0, status=3)
        return reply_frame(register, value)


def laser(clock: Clock, device: Laser, **options: object) -> tuple[Itla, Serial]:
    line = Serial(device)
    made = registry.create("itla", "laser", "serial:/dev/laser", make_pool(clock, serial=lambda p, b: line), options)
    assert isinstance(made, Itla)
    return made, line


async def test_open_is_dark_and_identified(clock: Clock) -> None:
    device = Laser()
    device.registers[0x32] = 8
    made, _ = laser(clock, device)
    identity = await made.open()
    assert (identity.model, identity.serial, identity.firmware) == ("Model 5", "SN0042", "1.3.0")
    assert device.registers[0x32] == 0
    reading = await made.read()
    assert not reading.emitting
    assert reading.frequency_hz == 193.414503e12
    assert reading.power_dbm == 10.0
    await made.close()


async def test_set_points_and_enable(clock: Clock) -> None:
    device = Laser()
    made, _ = laser(clock, device)
    await made.open()
    device.writes.clear()
    await made.set_frequency(193.414512e12)
    await made.set_power(12.34)
    assert device.writes == [(0x30, 1), (0x35, 193), (0x36, 4145), (0x67, 12), (0x31, 1234)]
    before = clock.t
    await made.enable(True)
    assert clock.t - before == pytest.approx(0.3)  # three polls
    assert (await made.read()).emitting
    with pytest.raises(Refused, match="set while the output is off; it is on"):
        await made.set_frequency(193.4e12)
    device.registers[0x20] = 1 << 13 | 1 << 10
    device.registers[0x21] = 1 << 8
    reading = await made.read()
    assert reading.alarms == ("fatal:FATAL", "fatal:FREQ", "warning:PWR")
    device.registers[0x20] = 1 << 12
    assert not (await made.read()).emitting  # held dark by its disable pin
    await made.make_safe()
    assert device.registers[0x32] == 0


async def test_limits_are_the_narrower_of_configuration_and_laser(clock: Clock) -> None:
    device = Laser()
    made, _ = laser(clock, device, high_hz=195e12)
    await made.open()
    count = len(device.writes)
    with pytest.raises(OutOfRange, match=r"laser\.frequency: 1\.95\d*e\+14 Hz is above the upper limit 1\.95e\+14 Hz"):
        await made.set_frequency(195.5e12)
    with pytest.raises(OutOfRange, match=r"laser\.power: 13\.2 dBm is above the upper limit 13 dBm"):
        await made.set_power(13.2)
    assert len(device.writes) == count
    device.registers[0x54] = 190
    with pytest.raises(OutOfRange, match="lies outside the laser's own"):
        await made.open()


async def test_a_laser_without_optional_registers(clock: Clock) -> None:
    device = Laser()
    for register in (0x67, 0x68, 0x50, 0x52):
        del device.registers[register]
    made, _ = laser(clock, device)
    await made.open()
    await made.set_frequency(193.4145e12)
    assert (await made.read()).frequency_hz == 193.4145e12
    with pytest.raises(Refused, match="RNI: register not implemented"):
        await made.set_frequency(193.414512e12)


async def test_reasons_of_the_laser(clock: Clock) -> None:
    device = Laser()
    made, _ = laser(clock, device, settle_s=2.0)
    await made.open()
    device.registers[0x32] = 8
    with pytest.raises(Refused, match="laser at serial:/dev/laser: write of register 0x35: CIE: command invalid while"):
        await made._write(0x35, 193)
    device.registers[0x32] = 0
    device.never_settles = True
    with pytest.raises(Timeout, match=r"still pending \(0x01\d\d\) after 2 s"):
        await made.enable(True)
    device.never_settles = False
    ordinary = device._reply

    def fatal(sent: bytes) -> bytes:
        device.registers[0x20] |= 1 << 13
        return ordinary(sent)

    device._reply = fatal  # type: ignore[method-assign]
    with pytest.raises(Refused, match="fatal alarm after enabling: FATAL"):
        await made.enable(True)


async def test_wrong_laser(clock: Clock) -> None:
    device = Laser()
    device.texts[1] = b"PUMP\0"
    made, line = laser(clock, device)
    with pytest.raises(WrongDevice, match=r"laser at serial:/dev/laser: expected OIF ITLA .*found 'PUMP'"):
        await made.open()
    line.answer = lambda sent: b""
    with pytest.raises(WrongDevice, match="no complete reply"):
        await made.open()
    line.answer = lambda sent: reply_frame(sent[1], 5)
    with pytest.raises(WrongDevice, match="holds no text"):
        await made.open()


FAULTS = ["", "held back", "held back in part", "flipped", "after those held back", "garbage before", "broken request"]
SAFE_TO_READ = [0x08, 0x30, 0x34, 0x0D, 0x31, 0x40, 0x41]


@given(
    st.lists(st.sampled_from(FAULTS), max_size=30),
    st.lists(st.tuples(st.sampled_from(SAFE_TO_READ), st.booleans()), min_size=10, max_size=10),
)
def test_no_fault_ever_shifts_a_reply(faults: list[str], calls: list[tuple[int, bool]]) -> None:
    """Every answer of the laser is another number, so that an old one from the same register is told from the one to
    the latest request."""

    async def scenario() -> None:
        device = Laser()
        made, line = laser(Clock(), device)
        device.mangle = list(faults)
        device.counting = True
        for register, late in calls:
            if late:
                line.late, device.held = device.held, b""  # what was unanswered is answered after all
            try:
                assert await made._read(register) == device.registers[register] == device.count
            except (Timeout, BusFault):
                continue
        device.mangle.clear()
        assert await made._read(0x30) == device.registers[0x30] == device.count

    asyncio.run(scenario())


async def test_a_line_that_was_dead_for_long_must_fall_silent_first(clock: Clock) -> None:
    device = Laser()
    made, line = laser(clock, device)
    device.mangle = ["held back"] * 60
    for _ in range(6):
        with pytest.raises(Timeout):
            await made._read(0x41)
    device.mangle.clear()
    line.late = reply_frame(0x41, 1) + reply_frame(0, 0x10) + reply_frame(0x0D, 2)
    assert await made._read(0x41) == 4145
    device.mangle = ["held back"] * 60
    for _ in range(6):
        with pytest.raises(Timeout):
            await made._read(0x41)
    line.read = lambda size=1, /: b"x" * size  # type: ignore[method-assign]
    with pytest.raises(BusFault, match="does not fall silent"):
        await made._read(0x41)


async def test_fine_tuning(clock: Clock) -> None:
    device = Laser()
    device.registers |= {0x4F: 3000, 0x62: 77}
    made, _ = laser(clock, device)
    await made.open()
    assert device.registers[0x62] == 0
    assert made.output("fine").limits.high == 3e9
    await made.set_fine_hz(-250.4e6)
    assert device.registers[0x62] == 0x10000 - 250
    assert made.output("fine").value == -250e6
    await made.set_fine_hz(12e6)
    assert device.registers[0x62] == 12
    with pytest.raises(OutOfRange, match=r"laser\.fine: 3\.1e\+09 Hz is above the upper limit 3e\+09 Hz"):
        await made.set_fine_hz(3.1e9)
    with pytest.raises(KeyError):
        made.output("colour")


async def test_a_laser_without_fine_tuning_says_so(clock: Clock) -> None:
    made, _ = laser(clock, Laser())
    await made.open()
    with pytest.raises(Refused, match="RNI: register not implemented"):
        await made.set_fine_hz(1e6)
