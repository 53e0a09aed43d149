from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.clock import ManualClock
from sim.instruments.symbol_source import ReadOnce, SymbolSource
from sim.instruments.time_tagger import TimeTagger
from sim.scpi import block
from tests.sim.fake_ports import FakeSource, FakeTagger


def unblock(answer: bytes | None) -> bytes:
    assert answer is not None
    digits = int(answer[1:2])
    length = int(answer[2 : 2 + digits])
    assert answer[2 + digits + length :] == b"\n"
    return answer[2 + digits : 2 + digits + length]


class Source:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.port = FakeSource(self.clock)
        self.device = SymbolSource(self.port, "S1")

    def ask(self, message: str) -> str:
        answer = self.device.execute(message.encode() + b"\n")
        return answer.decode().rstrip("\n") if answer else ""

    def error(self) -> int:
        return int(self.ask("SYST:ERR?").partition(",")[0])

    def nibbles(self, answer: bytes | None) -> tuple[int, npt.NDArray[np.uint8]]:
        data = unblock(answer)
        magic, head, flags, _first, count, _run, _zero, crc = struct.unpack("<4sHHQIIII", data[:32])
        assert (magic, head) == (b"QSY1", 32)
        assert crc == zlib.crc32(data[32:], zlib.crc32(data[:28]))
        packed = np.frombuffer(data, np.uint8, offset=32)
        out = np.empty(2 * len(packed), np.uint8)
        out[0::2], out[1::2] = packed & 15, packed >> 4
        return flags, out[:count]

    def read(self, slots: list[int]) -> tuple[int, npt.NDArray[np.uint8]]:
        request = struct.pack("<Q", slots[0]) + np.diff(slots).astype("<u4").tobytes()
        return self.nibbles(self.device.execute(b"SYMB:READ? " + block(request) + b"\n"))

    def keying(self, slots: int = 10_000) -> None:
        self.device.execute(b"SYMB:MODE KEY\n")
        self.device.execute(b"SYMB:RUN\n")
        self.port.plan.append((0, "KEY", 0, 0))
        self.clock.t = slots * 8e-9


class TestSymbolSource:
    def test_identity_and_constants(self) -> None:
        s = Source()
        assert s.ask("*IDN?") == "QMODD,SYMBOL-SOURCE,S1,1.0"
        assert s.ask("SYMB:PER?;SYMB:BIN?") == "8000;800"
        assert s.ask("SYMB:RUN?") == "0,0"
        assert s.ask("SYMB:MEM?") == "0,0"

    @given(st.floats(0.0, 1.0))
    def test_probabilities_are_multiples_of_a_65536th(self, p: float) -> None:
        s = Source()
        s.ask(f"SYMB:PROB:BAS {p};DEC {p}")
        used = float(s.ask("SYMB:PROB:BAS?"))
        assert used == float(s.ask("SYMB:PROB:DEC?"))
        assert abs(used - p) <= 0.5 / 65536
        assert s.port.probabilities == (round(p * 65536),) * 2

    def test_probabilities_are_refused_while_key_runs(self) -> None:
        s = Source()
        s.keying()
        s.ask("SYMB:PROB:BAS 0.3")
        assert s.error() == -221
        s.ask("SYMB:PROB:BAS 1.3")
        assert s.error() == -222

    def test_drives_and_randomiser(self) -> None:
        s = Source()
        s.ask("OUTP:CARV:AMPL 4.1;:OUTP:STAT:AMPL 4.0;:OUTP:DEC:AMPL 2.5;:OUTP:RAND ON")
        assert s.port.rf == {"carver": 4.1, "state": 4.0, "decoy": 2.5}
        assert s.ask("OUTP:CARV:AMPL?;:OUTP:RAND?") == "4.1;1"
        assert float(s.ask("OUTP:RAND:RMS?")) == pytest.approx(2 * np.pi / np.sqrt(12), rel=0.01)
        s.ask("OUTP:RAND OFF;:OUTP:DEC:AMPL -1")
        assert s.error() == -222
        assert float(s.ask("OUTP:RAND:RMS?")) == 0.0
        s.ask("OUTP:CARV:AMPL 11.5")
        s.device.reference_unlocked = s.device.rng_fault = True
        assert s.ask("STAT:QUES?") == "7"

    def test_modes(self) -> None:
        s = Source()
        s.ask("SYMB:MODE FIX,2,1")
        assert s.ask("SYMB:MODE?") == "FIX,2,1"
        s.ask("SYMB:RUN")
        s.port.plan[:] = [(0, "FIX", 2, 1)]
        assert s.ask("SYMB:MODE?") == "FIX,2,1"
        s.ask("SYMB:MODE SYNC")
        assert s.ask("SYMB:MODE?") == "SYNC"
        for wrong, code in (("FOO", -224), ("FIX", -109), ("FIX,4,0", -222), ("KEY,1", -108)):
            s.ask(f"SYMB:MODE {wrong}")
            assert s.error() == code

    def test_mode_at_needs_lead(self) -> None:
        s = Source()
        s.ask("SYMB:MODE:AT 100000000,KEY")
        assert s.error() == -221  # not running
        s.ask("SYMB:RUN")
        lead = round(0.2 / 8e-9)
        s.ask(f"SYMB:MODE:AT {lead - 1},KEY")
        assert s.error() == -222
        s.ask(f"SYMB:MODE:AT {lead},FIX,1,0;:SYMB:MODE:AT {lead + 5},KEY")
        assert s.error() == 0
        assert s.port.plan[-2:] == [(lead, "FIX", 1, 0), (lead + 5, "KEY", 0, 0)]

    def test_each_slot_is_answered_once(self) -> None:
        s = Source()
        s.keying()
        flags, nibbles = s.read([3, 10, 11, 500])
        assert flags == 0
        assert nibbles.tolist() == [3 * 5 % 7, 10 * 5 % 7, 11 * 5 % 7, 500 * 5 % 7]
        flags, nibbles = s.read([3, 12, 500])
        assert flags == 1
        assert nibbles.tolist() == [8, 12 * 5 % 7, 8]

    def test_window_freeing_and_future(self) -> None:
        s = Source()
        s.keying(10_000)
        assert s.ask("SYMB:MEM?") == "0,10000"
        s.ask("SYMB:FREE 100")
        assert s.ask("SYMB:MEM?") == "100,10000"
        s.ask("SYMB:FREE 50")
        assert s.ask("SYMB:MEM?") == "100,10000"
        assert s.read([99, 100, 9999, 10000])[1].tolist() == [8, 100 * 5 % 7, 9999 * 5 % 7, 8]
        s.clock.t = ((1 << 34) + 5000) * 8e-9
        assert s.ask("SYMB:MEM?") == f"5000,{(1 << 34) + 5000}"

    def test_slots_not_sent_as_key_are_not_valid(self) -> None:
        s = Source()
        s.keying()
        s.port.plan.append((5000, "SYNC", 0, 0))
        assert s.read([4999, 5000])[1].tolist() == [4999 * 5 % 7, 8]

    def test_dense_range_is_refused_for_key(self) -> None:
        s = Source()
        s.keying()
        assert s.ask("SYMB:RANG? 0,10") == ""
        assert s.error() == -221
        s.port.plan[:] = [(0, "SYNC", 0, 0)]
        assert s.nibbles(s.device.execute(b"SYMB:RANG? 9998,3\n"))[1].tolist() == [9998 * 5 % 7, 9999 * 5 % 7, 8]
        s.ask("SYMB:RANG? 0,2000000")
        assert s.error() == -222

    def test_malformed_requests(self) -> None:
        s = Source()
        s.keying()
        for message in (b"SYMB:READ? 5", b"SYMB:READ? #14abcd", b"SYMB:READ? #19abcdefghi"):
            s.device.execute(message + b"\n")
            assert s.error() == -161
        s.device.execute(b"SYMB:READ? " + block(b"\xff" * 8) + b"\n")
        assert s.error() == -222

    def test_power_on_is_dark_and_stopped(self) -> None:
        s = Source()
        s.keying()
        s.ask("OUTP:CARV:AMPL 4;FOO")
        s.device.power_on_reset()
        assert s.port.run == 0
        assert s.port.rf["carver"] == 0.0
        assert s.error() == 0

    @given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=20), max_size=12))
    def test_read_once_agrees_with_a_set(self, requests: list[list[int]]) -> None:
        once, seen = ReadOnce(), set[int]()
        for request in requests:
            slots = np.array(sorted(request), dtype=np.int64)
            fresh = once.claim(slots)
            for slot, new in zip(slots.tolist(), fresh.tolist(), strict=True):
                assert new == (slot not in seen)
                seen.add(slot)


class Tagger:
    def __init__(self, fifo: int = 4_000_000) -> None:
        self.clock = ManualClock()
        self.port = FakeTagger(self.clock)
        self.device = TimeTagger(self.port, "T1", fifo_records=fifo)
        self.device.execute(b"TAGS:RUN\n")

    def ask(self, message: str) -> str:
        answer = self.device.execute(message.encode() + b"\n")
        return answer.decode().rstrip("\n") if answer else ""

    def error(self) -> int:
        return int(self.ask("SYST:ERR?").partition(",")[0])

    def data(self, limit: str = "") -> tuple[dict[str, int], list[tuple[int, int, int]]]:
        block_ = unblock(self.device.execute(f"TAGS:DATA? {limit}\n".encode()))
        fields = struct.unpack("<4sHHQqqIIII", block_[:48])
        assert fields[:2] == (b"QTG1", 48)
        assert fields[9] == zlib.crc32(block_[48:], zlib.crc32(block_[:44]))
        r = np.frombuffer(block_, np.uint64, offset=48)
        assert len(r) == fields[6]
        names = ("flags", "sequence", "from", "to", "records", "lost", "ppm")
        mask = (1 << 54) - 1
        return dict(zip(names, fields[2:9], strict=True)), [(v >> 60, v >> 54 & 15, v & mask) for v in map(int, r)]


class TestTimeTagger:
    def test_identity_and_times(self) -> None:
        t = Tagger()
        assert t.ask("*IDN?") == "QMODD,TIME-TAGGER,T1,1.0"
        t.clock.t = 1.5
        assert t.ask("TAGS:TIME?;:TAGS:DEPT?") == "1500000000000;4000000"
        t.ask("TAGS:STOP")
        t.clock.t = 9.0
        assert t.ask("TAGS:TIME?") == "1500000000000"

    def test_blocks_join_without_gap(self) -> None:
        t = Tagger()
        t.port.clicks = [(100, 0), (300, 2), (200, 1)]
        t.clock.t = 1e-9
        head, records = t.data()
        assert records == [(0, 0, 100), (0, 1, 200), (0, 2, 300)]
        assert head == {"flags": 0, "sequence": 0, "from": 0, "to": 1000, "records": 3, "lost": 0, "ppm": 1_000_000}
        t.clock.t = 2e-9
        head, records = t.data()
        assert (head["sequence"], head["from"], head["to"], records) == (1, 1000, 2000, [])
        t.ask("TAGS:RUN")
        assert t.data()[0]["sequence"] == 0

    def test_byte_limit_leaves_the_rest(self) -> None:
        t = Tagger()
        t.port.clicks = [(100 * k, k % 3) for k in range(10)]
        t.clock.t = 1e-9
        assert t.ask("TAGS:AVA?") == "10"
        head, records = t.data("72")
        assert len(records) == 3
        assert (head["flags"], head["to"]) == (8, 300)
        head, records = t.data()
        assert (head["from"], head["flags"], len(records)) == (300, 0, 7)
        t.ask("TAGS:DATA? 10")
        assert t.error() == -222

    def test_overflow_is_counted_and_marked(self) -> None:
        t = Tagger(fifo=4)
        t.port.clicks = [(10 * k, k % 3) for k in range(10)]
        t.clock.t = 1e-9
        assert t.ask("TAGS:LOST?") == "6"
        t.port.clicks = [(900, 0)]
        head, records = t.data()
        assert head["flags"] & 1
        assert head["lost"] == 7
        assert [k for k, _, _ in records] == [0, 0, 0, 0, 2, 4, 4, 4, 3]
        assert records[4] == (2, 0, 40)
        assert [n for k, _, n in records if k == 4] == [3, 2, 2]
        assert records[-1] == (3, 0, 1000)
        assert t.ask("COUN?") == "5,3,3"
        t.port.clicks = [(1500, 1)]
        t.clock.t = 2e-9
        assert t.data()[1] == [(0, 1, 1500)]

    def test_limited_read_in_an_overflow_keeps_time_in_order(self) -> None:
        t = Tagger(fifo=2)
        t.port.clicks = [(10 * k, 0) for k in range(5)]
        t.clock.t = 1e-9
        ends = [t.data("56")[0]["to"] for _ in range(5)]
        assert ends == sorted(ends)
        assert ends[-1] == 1000

    @given(st.lists(st.integers(0, 40), max_size=8))
    def test_nothing_is_lost_uncounted(self, bursts: list[int]) -> None:
        t = Tagger(fifo=50)
        made = delivered = lost = 0
        for burst in bursts:
            t.port.clicks += [(made + k, k % 3) for k in range(burst)]
            made += burst
            t.clock.t += 1e-9
            if burst % 2:
                _, records = t.data()
                delivered += sum(1 for k, _, _ in records if k == 0)
                lost += sum(n for k, _, n in records if k == 4)
        _, records = t.data()
        delivered += sum(1 for k, _, _ in records if k == 0)
        lost += sum(n for k, _, n in records if k == 4)
        assert made == delivered + lost
        assert made == sum(map(int, t.ask("COUN?").split(",")))

    def test_time_wraps_after_five_hours(self) -> None:
        t = Tagger()
        t.clock.t = 20_000.0
        late = 19_999 * 10**12
        t.port.clicks = [(late, 1)]
        assert t.data()[1] == [(0, 1, late % (1 << 54))]

    def test_input_delays_keep_order_and_hold_back(self) -> None:
        t = Tagger()
        t.ask("INP1:DEL 500;:INP2:DEL -100")
        assert t.ask("INP1:DEL?;:INP3:DEL?") == "500;0"
        t.port.clicks = [(100, 0), (700, 0), (300, 1), (400, 2)]
        t.clock.t = 1e-9
        head, records = t.data()
        assert records == [(0, 1, 200), (0, 2, 400), (0, 0, 600)]
        assert head["to"] == 900
        t.clock.t = 3e-9
        assert t.data()[1] == [(0, 0, 1200)]
        t.ask("INP1:DEL 9999999")
        assert t.error() == -222

    def test_threshold_above_the_pulses_hears_nothing(self) -> None:
        t = Tagger()
        t.ask("INP2:THR 0.6")
        assert t.ask("INP2:THR?") == "0.6"
        t.port.clicks = [(1, 0), (2, 1)]
        t.clock.t = 1e-9
        assert t.data()[1] == [(0, 0, 1)]
        t.ask("INP2:THR 3")
        assert t.error() == -222
        t.ask("INP4:THR 0.1")
        assert t.error() == -113

    def test_gate_and_flags(self) -> None:
        t = Tagger()
        t.ask("TAGS:GATE 1000,1000000")
        assert (t.port.gate, t.ask("TAGS:GATE?")) == ((1000, 1000000), "1000,1000000")
        t.device.reference_unlocked = True
        head, _ = t.data()
        assert (head["ppm"], head["flags"]) == (1000, 6)
        assert t.ask("STAT:QUES?") == "1"
        t.ask("TAGS:GATE 2,1")
        assert t.error() == -222
        t.ask("TAGS:GATE 0,0")
        assert t.data()[0]["ppm"] == 1_000_000

    def test_rates(self) -> None:
        t = Tagger()
        assert t.ask("COUN:RATE?") == "0.000,0.000,0.000"
        t.port.clicks = [(k, 0) for k in range(50)]
        t.clock.t = 0.5
        assert t.ask("COUN:RATE?") == "100.000,0.000,0.000"

    def test_power_on_stops(self) -> None:
        t = Tagger()
        t.device.power_on_reset()
        assert not t.port.running
        t.port.clicks = [(1, 0)]
        assert t.data()[1] == []
