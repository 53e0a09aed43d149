"""The calibrations that keys need, one file each, and the graph of each side."""

from __future__ import annotations

from calibration.graph import Graph
from calibration.procedures.amzi_phase import AmziPhase
from calibration.procedures.amzi_split import AmziSplit
from calibration.procedures.arm_phase import ArmPhase
from calibration.procedures.attenuator_check import AttenuatorCheck
from calibration.procedures.basis_split import BasisSplit
from calibration.procedures.carver_bias import CarverBias
from calibration.procedures.couplers import ArmSplit, Combiner
from calibration.procedures.crosstalk import Crosstalk
from calibration.procedures.crosstalk_receiver import ReceiverCrosstalk
from calibration.procedures.crosstalk_trim import CrosstalkTrim
from calibration.procedures.decoy import Decoy
from calibration.procedures.detector_bias import DetectorBias
from calibration.procedures.detector_dead_time import DetectorDeadTime, EfficiencyBalance
from calibration.procedures.detector_delay import DetectorDelay
from calibration.procedures.filter_peak import FilterPeak
from calibration.procedures.frame_sync import FrameSync
from calibration.procedures.heater_iv import HeaterIV
from calibration.procedures.laser import LaserOn
from calibration.procedures.log_tia import LogTia
from calibration.procedures.mean_photon import MeanPhotonNumber
from calibration.procedures.path_loss import PathLoss
from calibration.procedures.path_loss_receiver import PathLossReceiver
from calibration.procedures.photodiode_zero import PhotodiodeZero
from calibration.procedures.shutter import Shutter
from calibration.procedures.state_bias import StateBias
from calibration.procedures.state_trim import StateTrim
from calibration.procedures.tec_plant import TecPlantIdentification
from calibration.procedures.voa import AttenuatorTable


def alice_graph() -> Graph:
    """The transmitter's calibrations, in the order of the light."""
    return Graph(
        (
            PhotodiodeZero(),
            HeaterIV(),
            LaserOn(),
            FilterPeak(),
            CarverBias(),
            StateBias(),
            AmziSplit(),
            Shutter(),
            AmziPhase(),
            Crosstalk(),
            StateTrim(),
            Decoy(),
            MeanPhotonNumber(),
            LogTia(),
            AttenuatorTable(),
            PathLoss(),
            TecPlantIdentification(),
        )
    )


def bob_graph() -> Graph:
    """The receiver's calibrations; all but the first need the transmitter's light."""
    return Graph(
        (
            PhotodiodeZero(),
            HeaterIV(),
            DetectorBias(),
            DetectorDelay(),
            BasisSplit(),
            ArmSplit(),
            Combiner(),
            ReceiverCrosstalk(),
            ArmPhase(),
            CrosstalkTrim(),
            DetectorDeadTime(),
            EfficiencyBalance(),
            FrameSync(),
            AttenuatorCheck(),
            PathLossReceiver(),
            TecPlantIdentification(),
        )
    )
