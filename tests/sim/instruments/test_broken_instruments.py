"""Each fault of an instrument as it is seen over its own protocol, beside what a whole one says."""

from __future__ import annotations

import pytest

from sim.clock import ManualClock
from sim.instruments import itla_registers as reg
from sim.instruments.counter import Counter
from sim.instruments.cryostat import Cryostat
from sim.instruments.time_tagger import TimeTagger
from sim.trouble import Trouble
from tests.sim.fake_ports import FakeTagger
from tests.sim.instruments import test_itla, test_quantum_devices, test_snspd, test_tec


def spoil(trouble: Trouble, kind: str, place: str = "", value: float | None = None) -> None:
    trouble.set({(kind, place): value})


class TestTec:
    def test_an_error_stays_whatever_is_sent(self) -> None:
        bench = test_tec.Bench()
        spoil(bench.tec.trouble, "error", value=33)
        assert (bench.get(104), bench.get(105)) == (3, 33)
        bench.set(2010, 1)
        bench.set(2010, 0)
        assert (bench.get(104), bench.port.enabled) == (3, False)

    def test_gains_are_not_kept(self) -> None:
        bench = test_tec.Bench()
        spoil(bench.tec.trouble, "forgetful")
        bench.set(3010, 2.5)
        assert bench.get(3010, is_float=True) == pytest.approx(0.95)
        assert bench.port.kp_a_per_k == pytest.approx(0.95)

    def test_a_thermistor_that_reads_too_much_is_regulated_to(self) -> None:
        bench = test_tec.Bench()
        spoil(bench.tec.trouble, "offset", value=3.0)
        assert bench.get(1000, is_float=True) == pytest.approx(27.0)
        bench.set(3000, 30.0)
        bench.set(2010, 1)
        bench.clock.t = 100.0
        bench.tec.poll()
        assert bench.port.target_c == pytest.approx(27.0)

    def test_an_output_stage_that_gives_little(self) -> None:
        bench = test_tec.Bench()
        spoil(bench.tec.trouble, "weak", value=0.1)
        bench.set(2030, 2.0)
        assert (bench.port.current_limit_a, bench.get(2030, is_float=True)) == (0.1, 2.0)


class TestLaser:
    def test_status_bits(self) -> None:
        bench = test_itla.Bench()
        spoil(bench.laser.trouble, "fatal")
        assert bench.read(reg.STATUS_F) & 0x2200 == 0x2200
        assert not bench.read(reg.STATUS_W) & 0x0F00
        spoil(bench.laser.trouble, "alarm", value=0x0100)
        assert bench.read(reg.STATUS_W) & 0x4100 == 0x4100

    def test_light_is_weak_or_off_its_frequency(self) -> None:
        bench = test_itla.Bench()
        bench.emit()
        on, hertz, dbm = bench.port.laser_set
        spoil(bench.laser.trouble, "weak", value=2.0)
        assert bench.port.laser_set[:2] == (on, hertz)
        assert bench.port.laser_set[2] == pytest.approx(dbm - 2.0)
        spoil(bench.laser.trouble, "detuned", value=1e9)
        assert bench.port.laser_set == (on, hertz + 1e9, dbm)

    def test_never_lit_but_can_be_switched_off(self) -> None:
        bench = test_itla.Bench()
        spoil(bench.laser.trouble, "unlit")
        bench.write(reg.RESENA, 8)
        bench.clock.t = 100.0
        assert bench.read(reg.NOP) & 0x0100
        assert not bench.port.laser_set[0]
        assert bench.write(reg.RESENA, 0) == 0
        assert not bench.read(reg.NOP) & 0x0100


class TestSource:
    @pytest.mark.parametrize(("place", "mask"), [("basis", 1), ("value", 2), ("decoy", 4)])
    def test_a_random_bit_stands_still(self, place: str, mask: int) -> None:
        s = test_quantum_devices.Source()
        s.keying()
        spoil(s.device.trouble, "stuck", place)
        assert not (s.read(list(range(100)))[1] & mask).any()
        spoil(s.device.trouble, "stuck", place, 1.0)
        assert (s.read(list(range(100, 200)))[1] & mask).all()

    def test_a_random_bit_is_biased(self) -> None:
        s = test_quantum_devices.Source()
        s.keying()
        before = (s.read(list(range(4000)))[1] & 2 > 0).mean()
        spoil(s.device.trouble, "biased", "value", 0.5)
        after = (s.read(list(range(4000, 8000)))[1] & 2 > 0).mean()
        assert after == pytest.approx(before + 0.5 * (1.0 - before), abs=0.03)

    def test_drives_randomiser_status_and_period(self) -> None:
        s = test_quantum_devices.Source()
        s.ask("OUTP:CARV:AMPL 4;:OUTP:RAND ON")
        sound = float(s.ask("OUTP:RAND:RMS?"))
        spoil(s.device.trouble, "weak", "carver", 0.25)
        assert (s.port.rf["carver"], float(s.ask("OUTP:CARV:AMPL?"))) == (1.0, 4.0)
        spoil(s.device.trouble, "randomiser", value=0.5)
        assert s.port.rf["carver"] == 4.0
        assert float(s.ask("OUTP:RAND:RMS?")) == pytest.approx(sound / 2, abs=1e-3)
        spoil(s.device.trouble, "unlocked")
        assert s.ask("STAT:QUES?") == "1"
        spoil(s.device.trouble, "health")
        assert s.ask("STAT:QUES?") == "2"
        spoil(s.device.trouble, "period", value=1.5)
        assert s.ask("SYMB:PER?") == "12000"


class TestTagger:
    def make(self) -> tuple[FakeTagger, TimeTagger]:
        port = FakeTagger(ManualClock())
        device = TimeTagger(port, "T1")
        device.execute(b"TAGS:RUN\n")
        return port, device

    def counts(self, device: TimeTagger) -> list[int]:
        return [int(n) for n in (device.execute(b"COUN?\n") or b"").split(b",")]

    def test_an_input_hears_nothing(self) -> None:
        port, device = self.make()
        spoil(device.trouble, "dead", "1")
        port.clicks = [(1, 0), (2, 1), (3, 1), (4, 2)]
        port.clock.t = 1e-9
        assert self.counts(device) == [1, 0, 1]

    def test_an_input_clicks_by_itself(self) -> None:
        port, device = self.make()
        spoil(device.trouble, "noisy", "2", 1000.0)
        for _ in range(2):
            port.clock.t += 0.5
            port.clicks = [(port.now_ps() - 1, 0)]
            counts = self.counts(device)
        assert counts == [2, 0, 1000]

    def test_reference_and_memory(self) -> None:
        port, device = self.make()
        spoil(device.trouble, "unlocked")
        assert device.execute(b"STAT:QUES?\n") == b"1\n"
        spoil(device.trouble, "overflow", value=3)
        port.clicks, port.clock.t = [(n, 0) for n in range(10)], 1e-9
        assert device.execute(b"TAGS:LOST?\n") == b"7\n"


class TestDetectors:
    def test_bias_sources(self) -> None:
        bench = test_snspd.Bench()
        bench.ask({"command": "SetAllBiasCurrents", "value": [10, 10, 0]}, {"command": "DetectorEnable", "value": True})
        bench.device.trouble.set({("dead", "0"): None, ("offset", "1"): 2.0, ("offset", "2"): 2.0})
        assert bench.port.detector_bias == pytest.approx([0.0, 12e-6, 2e-6])
        assert bench.ask({"request": "BiasCurrent"})[0]["value"] == [10, 10, 0]

    def test_properties_stand_still(self) -> None:
        bench = test_snspd.Bench()
        bench.ask({"request": "labelProps"})
        spoil(bench.device.trouble, "frozen")
        bench.ask({"command": "SetAllBiasCurrents", "value": [10, 10, 10]})
        assert bench.ask({"request": "BiasCurrent"})[0]["value"] == [0, 0, 0]

    def test_a_channel_is_not_counted(self) -> None:
        bench = test_snspd.Bench()
        spoil(bench.device.trouble, "silent", "1")
        [line] = bench.device.stream_lines(0.1).split()
        assert line == b"0.100000,100,0,300"


def test_the_counters_gate_and_inputs() -> None:
    clock = ManualClock()
    counter = Counter(clock, lambda channel, seconds, _level: 1000.0 * (channel + 1) * seconds, "C1")

    def count(channel: int) -> float:
        counter.execute(f"CONF:TOT:TIM 1,(@{channel});:INIT\n".encode())
        clock.t += 1.1
        return float(counter.execute(b"FETC?\n") or b"nan")

    assert [count(1), count(2)] == [1000.0, 2000.0]
    spoil(counter.trouble, "gate", value=0.5)
    assert [count(1), count(2)] == [500.0, 1000.0]
    spoil(counter.trouble, "dead", "1")
    assert [count(1), count(2)] == [1000.0, 0.0]


def test_the_cryostats_sensor_and_heater() -> None:
    cryostat = Cryostat(lambda: 2.5, "K1")
    assert cryostat.execute(b"RDGST? A;HTRST? 1\r\n") == b"000;0\r\n"
    spoil(cryostat.trouble, "open")
    assert cryostat.execute(b"KRDG? A;RDGST? A\r\n") == b"+0.00000E+00;128\r\n"
    spoil(cryostat.trouble, "heater")
    assert cryostat.execute(b"KRDG? A;HTRST? 1\r\n") == b"+2.50000E+00;1\r\n"
