"""Every check of the power-on level sees at least one fault, and the right part is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.selftest.power_on import examined, names

Fault = tuple[str, str, dict[str, Any]]
# side, fault, part, a finding that must be among those that failed
CASES: list[tuple[str, Fault, str, str]] = [
    ("alice", ("ina228", "reset", {}), "heater_rail", "registers.heater_rail"),
    ("bob", ("ads131m08", "reset", {}), "monitor_adc", "registers.monitor_adc"),
    ("alice", ("pmbus", "reset", {}), "supply", "registers.supply"),
    ("bob", ("snspd", "reset", {}), "detectors", "registers.detectors"),
    ("alice", ("ltc2672", "echo", {}), "heater_dac", "registers.heater_dac"),
    ("bob", ("ltc2672", "flags", {}), "heater_dac", "errors.heater_dac"),
    ("alice", ("ltc2668", "echo", {}), "bias_dac", "bias_echo"),
    ("bob", ("eeprom24c64.100", "flipped", {}), "fru_eeprom", "fru_checksums"),
    ("alice", ("eeprom24c64.1100", "flipped", {}), "fru_eeprom", "factory_slots_broken"),
    ("alice", ("pmbus", "sagging", {}), "supply", "supply_output"),
    ("bob", ("pmbus", "rising", {}), "supply", "supply_output"),
    ("alice", ("pmbus", "input", {}), "supply", "supply_input"),
    ("bob", ("pmbus", "hot", {}), "supply", "supply_temperature"),
    ("alice", ("pmbus", "slow", {}), "fan", "fan_speed"),
    ("bob", ("pmbus", "slow", {"value": 0.0}), "fan", "fan_speed"),
    ("alice", ("ina228", "offset", {}), "heater_rail", "rail_off_current"),
    ("bob", ("ina228", "voltage", {}), "heater_rail", "rail_voltage"),
    ("alice", ("ina228", "frozen", {}), "heater_rail", "rail_off_voltage"),
    ("bob", ("ads131m08.0", "stuck", {}), "monitor_adc", "adc_test_positive"),
    ("alice", ("ads131m08.3", "offset", {}), "monitor_adc", "adc_internal_short"),
    ("bob", ("ads131m08.2", "gain", {}), "monitor_adc", "adc_test_negative"),
    ("alice", ("ads131m08.5", "noisy", {}), "monitor_adc", "adc_noise"),
    ("bob", ("ads131m08", "reference", {}), "monitor_adc", "monitor_reference"),
    ("alice", ("tmp117", "offset", {}), "submount", "rest.submount"),
    ("bob", ("tmp117", "noisy", {}), "submount", "submount_noise"),
    ("alice", ("tmp117", "frozen", {}), "submount", "chip_sensors_apart"),
    ("bob", ("tmp117", "unready", {}), "submount", "temperatures.answers"),
    ("alice", ("tec", "offset", {}), "thermistor", "rest.chip"),
    ("alice", ("pca9535.3", "high", {}), "platform", "line.led"),
    ("bob", ("pca9535.3", "floating", {}), "platform", "line.led"),
    ("alice", ("pca9535.1", "low", {}), "platform", "line.laser_enable"),
    ("alice", ("pca9535.2", "high", {}), "platform", "line.heater_enable_off"),
    ("bob", ("pca9535.2", "floating", {}), "platform", "line.heater_enable"),
    ("bob", ("pca9535.12", "low", {}), "detectors", "input.detectors_unbiased"),
    ("alice", ("tec", "error", {}), "tec", "tec_error"),
    ("bob", ("tec", "stale", {}), "tec", "tec_readings_move"),
    ("alice", ("laser", "fatal", {}), "laser", "laser_faults"),
    ("alice", ("laser", "alarm", {}), "laser", "laser_faults"),
    ("alice", ("source.basis", "stuck", {}), "symbol_source", "symbols.basis.run"),
    ("alice", ("source.decoy", "biased", {"value": 0.05}), "symbol_source", "symbols.chi_square"),
    ("alice", ("source", "randomiser", {}), "symbol_source", "randomiser_rms"),
    ("alice", ("source", "unlocked", {}), "symbol_source", "reference_locked"),
    ("alice", ("source", "health", {}), "symbol_source", "generator_healthy"),
    ("bob", ("tagger.1", "noisy", {}), "time_tagger", "tagger_silence.DX0"),
    ("bob", ("tagger", "unlocked", {}), "time_tagger", "tagger_reference_locked"),
    ("bob", ("snspd", "frozen", {}), "detectors", "detectors.answers"),
    ("bob", ("cryostat", "open", {}), "cryostat", "cryostat.answers"),
    ("bob", ("cryostat", "heater", {}), "cryostat", "cryostat_heater"),
    ("bob", ("cryostat", "warm", {"value": 2.0}), "cryostat", "cryostat_temperature"),
]


@pytest.mark.parametrize(("side", "fault", "part", "finding"), CASES)
def test_the_part_is_named(side: str, fault: Fault, part: str, finding: str) -> None:
    report = examined(side, fault)
    assert finding in names(report)
    assert report.suspects == (part,)
    assert report.seconds <= 10.0
