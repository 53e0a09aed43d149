from __future__ import annotations

import json
from typing import cast

import pytest
from pyvisa.errors import VisaIOError
from serial import SerialException
from smbus2 import i2c_msg

from sim.chips.analog import Analog
from sim.clock import ManualClock
from sim.faults import Fault, FaultSchedule
from sim.inproc import InprocLibraries
from sim.instruments.itla import with_bip4
from sim.ports import AlicePort
from sim.rig import Rig
from tests.sim.fake_ports import FakeModule

NOP = with_bip4(0, 0, 0)
NOP_REPLY = bytes.fromhex("54000010")


class Bench:
    def __init__(self, name: str = "alice", *faults: Fault) -> None:
        self.clock = ManualClock()
        self.module = FakeModule(name, self.clock)
        port = cast("AlicePort", self.module)
        self.rig = Rig(port, clock=self.clock, factory_analog=Analog.nominal(), faults=FaultSchedule(faults))
        self.libraries = InprocLibraries(self.rig)


def test_smbus() -> None:
    bus = Bench().libraries.i2c(1)
    assert bus.read_word_data(0x48, 0x0F) == 0x1701  # SMBus words are little-endian
    assert bus.read_i2c_block_data(0x48, 0x0F, 2) == [0x01, 0x17]
    bus.write_word_data(0x48, 0x05, 0xEFBE)
    assert bus.read_byte_data(0x48, 0x05) == 0xBE
    bus.write_i2c_block_data(0x48, 0x05, [1, 2])
    bus.write_byte(0x48, 0x05)
    assert bus.read_byte(0x48) == 1
    bus.write_quick(0x40)
    with pytest.raises(OSError, match="no acknowledge"):
        bus.read_byte_data(0x11, 0)
    with pytest.raises(ValueError, match="32"):
        bus.read_i2c_block_data(0x48, 0, 33)
    with pytest.raises(ValueError, match="32"):
        bus.write_i2c_block_data(0x48, 0, [0] * 33)
    bus.pec = 1
    with pytest.raises(OSError, match="packet error"):
        bus.read_word_data(0x48, 0x0F)
    bus.close()


def test_combined_transactions_fill_the_message_buffers() -> None:
    bench = Bench()
    bus = bench.libraries.i2c(1)
    identity, rail = i2c_msg.read(0x48, 2), i2c_msg.read(0x40, 2)
    bus.i2c_rdwr(i2c_msg.write(0x48, [0x0F]), identity, i2c_msg.write(0x40, [0x3E]), rail)
    assert list(identity) == [0x01, 0x17]
    assert list(rail) == [0x54, 0x49]
    expander = bench.libraries.i2c(2)
    expander.write_byte_data(0x20, 2, 0)
    expander.write_byte_data(0x20, 6, 0xF0)
    expander.write_byte_data(0x20, 2, 0b0110)
    assert bench.module.rail


def test_spi() -> None:
    bench = Bench()
    spi = bench.libraries.spi(0, 0)
    spi.mode = 0
    spi.xfer2([0x60, 0, 5])
    assert spi.xfer([0, 0x30, 0x80, 0]) == [0, 0x60, 0, 5]
    assert bench.module.heaters[0] == pytest.approx(0.025)
    spi.writebytes([0x30, 0, 0])
    assert bench.module.heaters[0] == 0.0
    assert len(spi.readbytes(4)) == 4
    spi.close()


def test_what_is_not_there_cannot_be_opened() -> None:
    bench = Bench()
    with pytest.raises(FileNotFoundError):
        bench.libraries.i2c(7)
    with pytest.raises(FileNotFoundError):
        bench.libraries.spi(3, 0)
    with pytest.raises(FileNotFoundError):
        bench.libraries.serial("nowhere", 9600)
    with pytest.raises(FileNotFoundError):
        bench.libraries.visa("tagger")
    with pytest.raises(ConnectionRefusedError):
        bench.libraries.tcp("snspd", 12000)
    bench.rig.unplug("laser")
    with pytest.raises(SerialException):
        bench.libraries.serial("laser")
    assert not bench.libraries.threaded


def test_serial_reads_and_time_outs() -> None:
    bench = Bench()
    port = bench.libraries.serial("laser", 9600)
    port.timeout = 0.25
    assert port.read(4) == b""
    assert port.write(NOP) == 4
    assert port.in_waiting == 4
    assert port.read(2) + port.read(8) == NOP_REPLY
    port.write(NOP)
    port.reset_input_buffer()
    port.reset_output_buffer()
    port.flush()
    assert port.read(1) == b""
    tec = bench.libraries.serial("tec")
    tec.timeout = 0.1
    tec.write(b"#021AB7?VR03E801D8B7\r")
    assert tec.read_until(b"\r").endswith(b"\r")
    tec.write(b"#021AB7?VR03E801D8B7\r")
    assert tec.read_until(b"\r", 3) == b"!02"
    tec.close()
    with pytest.raises(SerialException):
        tec.read()


def test_a_late_reply_comes_within_the_time_out_or_later() -> None:
    bench = Bench("alice", Fault(0.0, "late", "alice.laser", 1.0, value=0.4))
    port = bench.libraries.serial("laser")
    port.timeout = 0.5
    port.write(NOP)
    assert port.read(4) == NOP_REPLY  # bus time is not modelled
    port.timeout = 0.1
    port.write(NOP)
    assert port.read(4) == b""
    bench.clock.t = 0.45
    assert port.read(4) == NOP_REPLY  # stale: the host must resynchronise
    port.timeout = None
    port.write(NOP)
    assert port.read(4) == NOP_REPLY
    assert port.read(4) == b""


def test_serial_unplugged_raises_the_librarys_error() -> None:
    bench = Bench()
    port = bench.libraries.serial("tec")
    bench.rig.unplug("tec")
    with pytest.raises(SerialException):
        port.write(b"x")
    with pytest.raises(OSError, match="input/output"):
        port.read(1)


def test_visa() -> None:
    bench = Bench()
    source = bench.libraries.visa("source")
    assert source.write_raw(b"*IDN?\n") == 6
    assert source.read_raw() == b"QMODD,SYMBOL-SOURCE,S0001,1.0\n"
    with pytest.raises(VisaIOError, match="Timeout"):
        source.read_raw()
    source.write_raw(b"*IDN?\n")
    source.clear()
    with pytest.raises(VisaIOError, match="Timeout"):
        source.read_raw()
    bench.rig.unplug("source")
    with pytest.raises(VisaIOError, match="lost"):
        source.write_raw(b"*IDN?\n")
    source.close()
    with pytest.raises(VisaIOError):
        source.read_raw()


def test_visa_late() -> None:
    bench = Bench("alice", Fault(0.0, "late", "alice.source", 1.0, value=3.0))
    source = bench.libraries.visa("source")
    source.write_raw(b"*OPC?\n")
    with pytest.raises(VisaIOError, match="Timeout"):
        source.read_raw()
    bench.clock.t = 2.0
    assert source.read_raw() == b"1\n"


def test_command_socket() -> None:
    bench = Bench("bob")
    command = bench.libraries.tcp("snspd", 12000)
    command.settimeout(0.5)
    command.sendall(b'{"request":"BiasCurrent"}')
    first = command.recv(10)
    rest = command.recv(4096)
    assert json.loads((first + rest).rstrip(b"\x17"))["label"] == "BiasCurrent"
    with pytest.raises(TimeoutError):
        command.recv(10)
    command.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        command.recv(10)
    bench.rig.unplug("snspd")
    assert command.recv(10) == b""
    with pytest.raises(ConnectionResetError):
        command.sendall(b"{}")
    command.close()
    with pytest.raises(OSError, match="descriptor"):
        command.recv(1)


def test_command_socket_late() -> None:
    bench = Bench("bob", Fault(0.0, "late", "bob.snspd", value=0.3))
    command = bench.libraries.tcp("snspd", 12000)
    command.settimeout(0.5)
    command.sendall(b'{"request":"BiasCurrent"}')
    assert command.recv(4096).endswith(b"\x17")


def test_counts_socket_gives_each_line_once() -> None:
    bench = Bench("bob")
    bench.clock.t = 10.0
    counts = bench.libraries.tcp("snspd", 12345)
    counts.settimeout(1.0)
    counts.sendall(b"ignored")
    assert counts.recv(4096) == b"10.100000,100,200,300\n"
    assert counts.recv(4096) == b"10.200000,100,200,300\n"
    counts.settimeout(0.05)
    with pytest.raises(TimeoutError):
        counts.recv(4096)
    bench.clock.t = 10.2
    with pytest.raises(TimeoutError):
        counts.recv(4096)
    counts.settimeout(None)
    assert counts.recv(4096) == b"10.300000,100,200,300\n"
