from __future__ import annotations

import json
import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sim.chips.analog import Analog
from sim.chips.checksums import crc16_ccitt
from sim.clock import ManualClock
from sim.faults import Fault, FaultSchedule
from sim.individuals import draw_alice, draw_bob
from sim.instruments.itla import with_bip4
from sim.instruments.mecom import decode
from sim.instruments.ports import CountsPort
from sim.ports import AlicePort
from sim.rig import Rig, build_rigs
from sim.scenario import Scenario
from tests.sim.fake_ports import FakeModule


class Bench:
    def __init__(self, name: str = "alice", *faults: Fault) -> None:
        self.clock = ManualClock()
        self.module = FakeModule(name, self.clock)
        port = cast("AlicePort", self.module)
        self.rig = Rig(port, clock=self.clock, factory_analog=Analog.nominal(), faults=FaultSchedule(faults))

    def lines(self, levels: int) -> None:
        self.rig.i2c[2].transfer(0x20, [(0, bytes([2, levels, 0]))])

    def start(self) -> None:
        self.lines(0)
        self.rig.i2c[2].transfer(0x20, [(0, b"\x06\xf0")])

    def inputs(self) -> int:
        return self.rig.i2c[2].transfer(0x20, [(0, b"\x01"), (1, 1)])[0][0]


def test_every_part_answers_where_the_map_says() -> None:
    bench = Bench()
    rig = bench.rig
    assert rig.i2c[1].transfer(0x48, [(0, b"\x0f"), (1, 2)]) == [b"\x01\x17"]
    assert rig.i2c[1].transfer(0x40, [(0, b"\x3f"), (1, 2)])[0][:1] == b"\x22"
    assert bench.inputs() == 0x05
    rig.spi[0, 0].transfer(b"\x60\x00\x05", 0, 1)
    rig.spi[0, 0].transfer(b"\x30\x80\x00", 0, 1)
    assert bench.module.heaters[0] == pytest.approx(0.025)
    rig.spi[0, 1].transfer(b"\x33\x80\x00", 0, 1)
    rig.spi[0, 1].transfer(b"\x34\x80\x00", 0, 1)
    assert bench.module.biases == {3: 2.5}
    rig.spi[1, 0].transfer(bytes(30), 1, 1)
    rx = rig.spi[1, 0].transfer(bytes(30), 1, 1)
    assert int.from_bytes(rx[3:6], "big") * 1.2 / (1 << 23) == pytest.approx(0.6, abs=2e-3)
    rig.serial["laser"].feed(b"\0\0\0\0")
    assert rig.serial["laser"].take() == bytes.fromhex("54000010")
    assert rig.scpi["source"].execute(b"*IDN?\n") == b"QMODD,SYMBOL-SOURCE,S0001,1.0\n"
    common = {"ina228", "tmp117", "pca9535", "ltc2672", "ltc2668", "ads131m08", "tec", "pmbus", "eeprom24c64"}
    assert set(rig) == common | {"laser", "source"}


def test_bob_has_tagger_and_detectors() -> None:
    bench = Bench("bob")
    assert bench.rig.scpi["tagger"].execute(b"*IDN?\n") == b"QMODD,TIME-TAGGER,T0001,1.0\n"
    bench.rig.tcp["snspd"].feed(b'{"request":"BiasVoltage"}')  # type: ignore[union-attr]
    reply = bench.rig.tcp["snspd"].take()  # type: ignore[union-attr]
    assert json.loads(reply[:-1]) == {"label": "BiasVoltage", "value": [0.0, 0.0, 0.0]}
    counts = bench.rig.tcp["snspd_counts"]
    assert isinstance(counts, CountsPort)
    assert counts.stream_lines(0.1) == b"0.100000,100,200,300\n"
    assert "laser" not in bench.rig.serial
    bench.start()
    bench.lines(0b0110)
    assert bench.module.rail
    assert not bench.module.laser_line


def test_receivers_witnesses_and_lines() -> None:
    bench = Bench("bob")
    assert bench.inputs() == 0x1D
    counter = bench.rig.scpi["counter"]
    for command in (b"INP2:LEV 0.05\n", b"CONF:TOT:TIM 0.1,(@2)\n", b"INIT\n"):
        counter.execute(command)
    bench.clock.t = 0.2
    assert float(counter.execute(b"FETC?\n") or b"nan") == pytest.approx(200.0)
    assert bench.rig.scpi["cryostat"].execute(b"KRDG? A\r\n") == b"+2.50000E+00\r\n"
    bench.module.detector_bias[1], bench.module.kelvin = 2e-6, 3.5
    assert bench.inputs() == 0x05
    bench.module.kelvin = 2.5
    bench.rig.unplug("cryostat")
    assert bench.inputs() == 0x05  # without supply its line is low


def test_heater_monitor_reaches_the_converter() -> None:
    bench = Bench()
    spi = bench.rig.spi
    for frame in (b"\x62\x00\x05", b"\x32\x80\x00", b"\xb0\x00\x1a"):
        spi[0, 0].transfer(frame, 0, 1)
    spi[1, 0].transfer(bytes(30), 1, 1)
    rx = spi[1, 0].transfer(bytes(30), 1, 1)
    volts = [int.from_bytes(rx[3 * i : 3 * i + 3], "big", signed=True) * 1.2 / (1 << 23) for i in range(1, 9)]
    assert volts[2] == pytest.approx(0.025 * 90 / 4, abs=1e-4)
    assert volts[7] == pytest.approx(0.6, abs=2e-3)  # PA7, as every other photodiode here


def test_watchdog_works_without_traffic() -> None:
    bench = Bench()
    bench.start()
    bench.lines(0b0110)
    assert bench.module.laser_line
    assert bench.module.rail
    bench.clock.t = 0.6
    bench.rig.tick()
    assert not bench.module.laser_line
    assert not bench.module.rail
    assert bench.inputs() == 0x07
    bench.lines(0b0000)
    bench.lines(0b0001)
    bench.lines(0b0111)
    assert bench.module.laser_line


def test_unplugging_a_part_loses_its_outputs_and_registers() -> None:
    bench = Bench()
    rig = bench.rig
    rig.spi[0, 0].transfer(b"\xe0\x00\x05", 0, 1)
    rig.spi[0, 0].transfer(b"\x31\xff\xff", 0, 1)
    rig.unplug("ltc2672")
    assert not rig.present("ltc2672")
    assert bench.module.heaters == [0.0] * 5
    assert rig.spi[0, 0].transfer(b"\xf0\x00\x00", 0, 1) == b"\xff\xff\xff"
    rig.replug("ltc2672")
    rig.spi[0, 0].transfer(b"\x31\xff\xff", 0, 1)
    assert bench.module.heaters == [0.0] * 5  # span is gone, too
    bench.start()
    bench.lines(0b0110)
    rig.unplug("pca9535")
    assert not bench.module.rail
    with pytest.raises(OSError, match="no acknowledge"):
        bench.lines(0)
    rig.unplug("tec")
    rig.serial["tec"].feed(b"#02")
    assert (rig.serial["tec"].take(), rig.serial["tec"].due) == (b"", None)
    rig.unplug("source")
    assert rig.scpi["source"].execute(b"*IDN?\n") is None
    with pytest.raises(KeyError):
        rig.unplug("flux capacitor")


def test_scripted_unplug_reset_and_interlock() -> None:
    bench = Bench(
        "alice",
        Fault(1.0, "unplug", "alice.tmp117", 1.0),
        Fault(1.0, "reset", "alice.ltc2672", 0.5),
        Fault(1.0, "open", "alice.interlock", 1.0),
    )
    rig = bench.rig
    rig.spi[0, 0].transfer(b"\x60\x00\x05", 0, 1)
    rig.spi[0, 0].transfer(b"\x30\x80\x00", 0, 1)
    bench.clock.t = 1.0
    with pytest.raises(OSError, match="no acknowledge"):
        rig.i2c[1].transfer(0x48, [(0, b"\x0f")])
    assert bench.module.heaters[0] == 0.0
    assert bench.inputs() == 0x04
    rig.spi[0, 0].transfer(b"\x60\x00\x05", 0, 1)
    rig.spi[0, 0].transfer(b"\x30\x80\x00", 0, 1)
    assert bench.module.heaters[0] > 0.0  # reset once, not for as long as the fault lasts
    bench.clock.t = 2.0
    assert rig.i2c[1].transfer(0x48, [(0, b"\x00"), (1, 2)]) == [b"\x80\x00"]
    assert bench.inputs() == 0x05


def test_serial_faults() -> None:
    nop = with_bip4(0, 0, 0)
    bench = Bench(
        "alice",
        Fault(1.0, "hang", "alice.laser", 0.5),
        Fault(2.0, "late", "alice.serial.laser", 0.5, value=0.7),
        Fault(3.0, "stuck", "alice.laser", 0.5),
        Fault(4.0, "garbage", "alice.laser", 0.5),
    )
    line = bench.rig.serial["laser"]
    for at, lost in ((0.5, False), (1.0, True), (3.0, True)):
        bench.clock.t = at
        line.feed(nop)
        assert (line.take() == b"") == lost
    bench.clock.t = 2.0
    line.feed(nop)
    assert line.take() == b""
    assert line.due == pytest.approx(2.7)
    bench.clock.t = 2.8
    assert line.take() == bytes.fromhex("54000010")
    bench.clock.t = 4.1
    line.feed(nop)
    answer = line.take()
    assert len(answer) == 4
    assert answer != bytes.fromhex("54000010")


def test_message_faults() -> None:
    bench = Bench(
        "bob",
        Fault(1.0, "hang", "bob.tagger", 0.5),
        Fault(2.0, "stuck", "bob.visa.tagger", 0.5),
        Fault(3.0, "crc", "bob.tagger", 0.5),
        Fault(3.0, "hang", "bob.tcp.snspd_counts", 0.5),
        Fault(4.0, "late", "bob.tagger", 0.5, value=3.0),
    )
    port = bench.rig.scpi["tagger"]
    expected = b"QMODD,TIME-TAGGER,T0001,1.0\n"
    answers = []
    for bench.clock.t in (0.0, 1.0, 2.0, 3.0):
        answers.append(port.execute(b"*IDN?\n"))
    assert answers[:3] == [expected, None, None]
    assert answers[3] not in (None, expected)
    counts = bench.rig.tcp["snspd_counts"]
    assert isinstance(counts, CountsPort)
    assert counts.stream_lines(3.1) == b""
    bench.clock.t = 4.0
    assert counts.stream_lines(4.0) != b""
    assert port.execute(b"*CLS\n") is None
    assert port.late_s == 3.0
    bench.rig.unplug("snspd")
    assert counts.stream_lines(9.0) == b""


def test_stale_readings_of_the_tec() -> None:
    bench = Bench("alice", Fault(5.0, "stale", "alice.tec", 5.0))
    seen = []
    for t, celsius in ((0.0, 24.0), (4.0, 25.0), (6.0, 26.0), (9.0, 27.0), (11.0, 28.0)):
        bench.clock.t, bench.module.tec.object_c = t, celsius
        body = b"#021AB7?VR03E801"
        bench.rig.serial["tec"].feed(body + b"%04X\r" % crc16_ccitt(body, 0))
        seen.append(decode(bench.rig.serial["tec"].take()[7:-5], is_float=True))
    assert seen == [24.0, 25.0, 25.0, 25.0, 28.0]


def test_stale_chips_repeat_their_answers() -> None:
    bench = Bench("bob", *(Fault(5.0, "stale", f"bob.{part}", 5.0) for part in ("i2c1", "ads131m08", "tagger")))
    rail, adc, visa = bench.rig.i2c[1], bench.rig.spi[1, 0], bench.rig.scpi["tagger"]

    def read() -> tuple[bytes, bytes, bytes | None]:
        adc.transfer(bytes(30), 1, 1)
        temperature = rail.transfer(0x48, [(0, b"\0"), (1, 2)])[0]
        return temperature, adc.transfer(bytes(30), 1, 1), visa.execute(b"TAGS:TIME?\n")

    bench.rig.scpi["tagger"].execute(b"TAGS:RUN\n")
    bench.clock.t = 4.0
    before = read()
    bench.clock.t = 6.0
    bench.module.submount = 60.0
    assert read() == before
    bench.clock.t = 11.0
    assert all(now != old for now, old in zip(read()[1:], before[1:], strict=True))


def test_reading_noise_is_that_of_the_scenario() -> None:
    def spread(noise: float) -> float:
        clock = ManualClock()
        port = cast("AlicePort", FakeModule("alice", clock))
        adc = Rig(port, clock=clock, factory_analog=Analog.nominal(), reading_noise=noise).spi[1, 0]
        raw = [adc.transfer(bytes(30), 1, 1)[3:6] for _ in range(400)][2:]
        volts = np.array([int.from_bytes(r, "big") for r in raw]) * 1.2 / (1 << 23)
        return float(volts.std() / 0.2 * np.log(10.0))

    assert spread(0.005) == pytest.approx(0.005, rel=0.15)
    assert spread(5e-4) == pytest.approx(5e-4, rel=0.15)


def test_noise_is_seeded() -> None:
    def reading(seed: int) -> bytes:
        clock = ManualClock()
        port = cast("AlicePort", FakeModule("alice", clock))
        return Rig(port, clock=clock, factory_analog=Analog.nominal(), seed=seed).spi[1, 0].transfer(bytes(30), 1, 1)

    assert reading(1) == reading(1)
    assert reading(1) != reading(2)


def test_rigs_of_a_world() -> None:
    clock = ManualClock()
    modules: dict[str, Any] = {name: FakeModule(name, clock) for name in ("alice", "bob")}
    for module, individual in zip(modules.values(), (draw_alice(7), draw_bob(7)), strict=True):
        monitors = replace(individual.monitors, tia_vy_v=np.full(8, 0.21), tia_iz_a=np.full(8, 1e-10))
        module.individual = replace(individual, monitors=monitors)
    world = SimpleNamespace(**modules, faults=FaultSchedule(), scenario=Scenario(seed=7))
    rigs = build_rigs(world, clock)
    assert list(rigs) == ["alice", "bob"]
    rx = rigs["bob"].spi[1, 0].transfer(bytes(30), 1, 1)
    (raw,) = struct.unpack(">i", b"\0" + rx[3:6])
    assert raw * 1.2 / (1 << 23) == pytest.approx(0.63, abs=2e-3)
