"""What each value of a record means, for the reference pages: by calibration, then by the pattern of the value's name.

The first pattern that fits the whole name counts; `{0}` stands for the part's name in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What is the same wherever it appears.
COMMON: tuple[tuple[str, str], ...] = (
    (r"p_pi_w", "heater power for half a turn of the phase"),
    (r"phi0_rad", "phase with the heater off"),
    (r"power_w", "power of the set point, the other heaters at theirs"),
    (r"visibility", "fringe visibility"),
    (r"offset_a", "mean photocurrent of the fringe"),
    (r"v_pi_v", "voltage for half a turn of the phase"),
    (r"null_v", "bias of the minimum of light"),
    (r"peak_v", "bias of the maximum of light"),
    (r"extinction", "light at the minimum over light at the maximum"),
    (r"rf_v", "drive amplitude asked of the symbol source"),
    (r"margin", "distance of the set point from the nearer rail, in units of the range"),
    (r"long_transmission", "light through the long arm over that through the short one"),
    (r"with_(\w+)_w", "power of heater {0} meanwhile"),
    (r"efficiency_ratio", "efficiency of the detector at one output over that at the other"),
    (r"reduced_chi2", "chi-square of the fit per degree of freedom; near 1 when model and noise are right"),
    (r"order", "which of the set points, whole turns apart, was taken"),
    (r"ratio", "mean of the fringe, relative to the monitor before it"),
    (r"log_slope_per_w", "relative change of light with heater power at the set point"),
)

BY_NAME: Mapping[str, tuple[tuple[str, str], ...]] = {
    "photodiode_zero": (
        (r"(p[ab]\d)_dark_a", "dark current of {0} with its amplifier's offset"),
        (r"(p[ab]\d)_dark_noise_a", "scatter of single conversions in the dark, {0}"),
        (r"(p[ab]\d)_noise", "scatter of single conversions, relative, {0}"),
    ),
    "tec_plant": (
        (r"slope_k_per_a_s", "how fast the object cools for each ampere at the set point"),
        (r"leak_per_s", "inverse time constant of the plant; near 0: it integrates"),
        (r"dead_s", "dead time"),
        (r"lag_s", "lag of the thermistor; with the dead time it is the delay that the gains go by"),
        (r"kp_a_per_k", "proportional gain of the controller"),
        (r"ti_s", "integral time of the controller"),
        (r"clamp_a", "largest current that regulation may use: 0.7 of the optimum, or the configured limit"),
        (r"element_ohm", "resistance of the Peltier element"),
        (r"seebeck_v_per_k", "Seebeck coefficient of the element"),
        (r"optimum_a", "current from which on more would heat"),
        (
            r"pumped_w_per_a",
            "heat that each ampere more pumps at the set point, for the feed-forward of the heaters' power",
        ),
    ),
    "heater_iv": (
        (r"(\w+?)_r0_ohm", "resistance of heater {0} at zero power"),
        (r"(\w+?)_rho_per_w", "relative rise of its resistance with power, heater {0}"),
        (r"monitor_noise", "scatter of single conversions of the voltage monitor, relative"),
    ),
    "laser": (
        (r"set_frequency_hz", "frequency that was asked for"),
        (r"set_power_dbm", "power that was asked for"),
        (r"frequency_hz", "frequency as the laser reads it back"),
        (r"power_dbm", "power as the laser reads it back"),
        (r"tap_a", "photocurrent of the laser's own tap on the chip"),
    ),
    "filter_peak": ((r"through", "light after the filter over light before it, at the set point"),),
    "amzi_split": (
        (r"early", "mean light of the early pulse, relative to the monitor before it"),
        (r"late", "mean light of the late pulse, relative to the monitor before it"),
        (r"(early|late)_visibility", "fringe visibility of the {0} pulse"),
        (r"long_transmission", "light through the long arm over that through the short one"),
    ),
    "amzi_phase": ((r"die_rad_per_w", "turn of the phase with the heat of the whole die, beyond the heater's own"),),
    "crosstalk": (
        (r"theta_(\w+?)_(\w+)", "turn of {0} while {1} turns itself by one"),
        (r"common_(\w+?)_rad_per_w", "turn of {0} with the heat of the whole die"),
        (r"p_pi_(\w+?)_w", "power for half a turn of {0}, the die settled"),
        (r"phi0_(\w+?)_rad", "phase of {0} with every heater off"),
        (r"hop_prompt_(\w+)_w", "step of heater {0} for two pi of the phase alone, the heater sum kept by the ballast"),
        (r"hop_(\w+)_w", "step of heater {0} for two pi of the phase alone, the die settled"),
        (r"(arm|port|basis)_imbalance", "logarithm of the two paths' ratio that is left at the {0} splitter"),
        (r"phase_rad", "phase of the interferometer at the set point"),
        (r"(filter|split|phase|basis|combine)_w", "power of the set point of {0}, crosstalk taken into account"),
        (r"(bar|cross)_w", "power of the shutter's {0} state, crosstalk taken into account"),
        (r"log_balance", "logarithm of early over late light at the set point"),
        (r"cross_share", "share of light that the closed shutter still lets through"),
    ),
    "state_bias": ((r"decoy_coarse_v", "bias of the decoy modulator at which it lets light through"),),
    "shutter": (
        (r"(bar|cross)_margin", "distance of that power from the nearer rail, {0}"),
        (r"bar_w", "heater power at which the shutter lets light through"),
        (r"cross_w", "heater power at which it blocks"),
        (r"unpowered_transmission", "share of light that passes with its heater off"),
    ),
    "state_trim": ((r"null_slope_per_v", "change of the X states' imbalance with bias"),),
    "decoy": (
        (r"ratio", "decoy over signal intensity that was reached"),
        (r"wanted_ratio", "decoy over signal intensity that was asked for"),
        (r"background", "light that does not follow the modulator, relative to the signal"),
        (r"ratio_slope_per_v", "change of the ratio with bias"),
    ),
    "mean_photon": (
        (r"voa_v", "voltage of the attenuator"),
        (r"voa_db", "its attenuation by the factory's table"),
        (r"wanted_mu", "mean photon number of a signal that was asked for"),
        (r"mu_(signal|decoy)", "mean photon number of a {0} symbol at the module's output"),
        (r"mu_(signal|decoy)_low", "lower end of its interval, {0}; the key's bound is taken over it"),
        (r"mu_(signal|decoy)_high", "upper end of its interval, {0}"),
        (r"decoy_ratio", "decoy over signal"),
        (r"mu_([zx][01])_(signal|decoy)", "mean photon number of state {0}, {1}"),
        (r"i_([zx][01])_(signal|decoy)_a", "monitor current with state {0}, {1}, repeated"),
    ),
    "log_tia": ((r"(p[ab]\d)_slope_v_per_decade", "slope of the logarithmic amplifier of {0}"),),
    "voa": (
        (r"db_(\d+)", "attenuation at {0} mV against that of the working point's calibration"),
        (r"constant_db", "first coefficient of the attenuation over voltage"),
        (r"linear_db", "second coefficient, per volt"),
        (r"square_db", "third coefficient, per volt squared"),
    ),
    "detector_bias": (
        (r"scale", "what the transmitter's light was multiplied by"),
        (r"(dz|dx\d)_bias_a", "bias of the working point, {0}"),
        (r"(dz|dx\d)_dark_hz", "dark count rate there, {0}"),
        (r"(dz|dx\d)_top_hz", "count rate on the plateau, {0}"),
        (r"(dz|dx\d)_centre_a", "bias at which half of the plateau's rate is reached, {0}"),
        (r"(dz|dx\d)_width_a", "width of that rise, {0}"),
    ),
    "detector_delay": (
        (r"clock_offset", "receiver's clock over the transmitter's, less one"),
        (r"delay_(dz|dx\d)_ps", "arrival of a pulse after the beginning of its slot, {0}"),
    ),
    "basis_split": (
        (r"wanted_share", "share of light for the X arm that was asked for"),
        (r"x_over_z", "clicks of both X detectors over those of DZ at an even splitter"),
    ),
    "arm_phase": (
        (r"xi_rad", "half of what the phase between the X states is off half a turn"),
        (r"order", "which of the set points, whole turns apart, was taken"),
        (r"ballast", "1 where a ballast kept the heater sum, 0 where the die warmed along"),
        (r"(basis|split|combine)_w", "power of heater {0}, held by the crosstalk matrix"),
    ),
    "arm_split": ((r"step_log", "logarithm of the ratio before the last step"),),
    "combiner": ((r"step_log", "logarithm of the ratio before the last step"),),
    "crosstalk_trim": (
        (r"(arm|port)_imbalance", "logarithm of the two paths' ratio after the trim, {0}"),
        (r"(\w+?)_step_log", "logarithm of the ratio that the trim of {0} took off"),
        (r"(\w+?)_w", "power of heater {0} with crosstalk taken into account"),
    ),
    "dead_time": (
        (r"(dz|dx\d)_dead_s", "time after a click in which nothing is counted, {0}"),
        (r"(dz|dx\d)_recovery_s", "time constant of the recovery after that, {0}"),
        (r"(dz|dx\d)_tau_s", "both together, by which rates are corrected, {0}"),
    ),
    "efficiency_balance": (
        (r"x_over_z", "counts of both X detectors over those of DZ, dead time and darks taken off"),
        (r"rate_imbalance", "logarithm of the rate of DX0 over that of DX1"),
        (r"(dz|dx\d)_hz", "rate without dead time, {0}"),
    ),
    "frame_sync": (
        (r"clock_offset", "receiver's clock over the transmitter's, less one"),
        (r"code_peak", "correlation with the public string, in standard deviations of chance"),
        (r"superframe_peak", "correlation with its superframe, in standard deviations of chance"),
        (r"peak_limit", "least of both that is accepted"),
        (r"clicks", "clicks of DZ that were taken"),
        (r"(dx\d)_shift_ps", "delay of {0} by the public string less that of its record"),
    ),
    "attenuator_check": (
        (r"step_(\d)_db", "step {0} by the transmitter's table, more light is positive"),
        (r"step_(\d)_deviation_db", "counts at step {0} over what the table says"),
        (r"scale", "light of the reference step over normal light"),
    ),
    "path_loss": (
        (r"(filter|interferometer|modulators|shutter)_db", "loss of the {0} on the way of the light"),
        (r"(carver|state|decoy|shutter)_extinction_db", "light blocked over light let through, {0}"),
        (r"link_db", "transmitter's output to clicks of DZ, the splitter's share taken off"),
        (r"fibre_db", "what usual losses of the receiver leave of that for the fibre"),
        (r"x_over_z_db", "loss of the X arm beyond that of the Z arm"),
        (r"long_over_short_db", "loss of the long arm beyond that of the short one"),
        (r"scale", "light over normal light"),
        (r"mu", "mean photon number of normal light, as announced"),
    ),
}


def meaning(calibration: str, name: str) -> str:
    """In words; empty when nothing is known of it."""
    for pattern, text in (*BY_NAME.get(calibration, ()), *COMMON):
        if match := re.fullmatch(pattern, name):
            return text.format(*match.groups())
    return ""


def unknown(calibration: str, names: Iterable[str]) -> list[str]:
    """Values that have no meaning here."""
    return [n for n in names if not meaning(calibration, n)]
