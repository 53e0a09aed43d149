"""Registers of an ITLA laser (OIF-ITLA-MSA-01.3, table 9.2) and this module's values."""

from __future__ import annotations

from enum import IntEnum


class ItlaError(IntEnum):
    """Error field of NOP."""

    OK = 0
    RNI = 1  # register not implemented
    RNW = 2  # register not writable
    RVE = 3  # value out of range
    CIP = 4  # command ignored, operation pending
    CII = 5  # command ignored while initialising
    ERE = 6  # extended address range exceeded
    ERO = 7  # extended address read only
    EXF = 8  # execution failed
    CIE = 9  # command ignored while emitting
    IVC = 10  # invalid configuration
    VSE = 15  # vendor specific


NOP, DEVICE_TYPE, MANUFACTURER, MODEL, SERIAL, DATE, RELEASE, BACK_COMPATIBILITY = range(8)
GENCFG, AEA_EAR, IOCAP, EAC, EA, EAR, LSTRESP, DLCONFIG = 0x08, 0x0B, 0x0D, 0x0E, 0x0F, 0x10, 0x13, 0x14
STATUS_F, STATUS_W, FPOWER_THRESHOLD, WPOWER_THRESHOLD, FFREQ, WFREQ, FTHERM, WTHERM = range(0x20, 0x28)
SRQT, FATALT, ALMT = 0x28, 0x29, 0x2A
CHANNEL, POWER, RESENA, MCB, GRID, FCF1, FCF2 = range(0x30, 0x37)
LF1, LF2, OOP, CTEMP = range(0x40, 0x44)
FTFR, POWER_LOW, POWER_HIGH, LFL1, LFL2, LFH1, LFH2, LGRID, CURRENTS, TEMPERATURES = range(0x4F, 0x59)
DITHER_ENABLE, DITHER_RATE, DITHER_F, DITHER_A = range(0x59, 0x5D)
AGE, FTF, FCF3, LF3 = 0x61, 0x62, 0x67, 0x68

STATUS_SRQ, STATUS_ALM, STATUS_FATAL, STATUS_DIS = 0x8000, 0x4000, 0x2000, 0x1000
STATUS_VSF, STATUS_FREQ, STATUS_THERM, STATUS_PWR = 0x0800, 0x0400, 0x0200, 0x0100
STATUS_XEL, STATUS_CEL, STATUS_MRL, STATUS_CRL = 0x80, 0x40, 0x20, 0x10

POWER_RANGE = (600, 1600)
"""dBm·100."""
DARK_CENTI_DBM = -6000
FCF1_RANGE = (191, 196)
FREQUENCY_RANGE_HZ = (191.5e12, 196.25e12)

STRINGS = {
    DEVICE_TYPE: "CW ITLA",
    MANUFACTURER: "QMODD",
    MODEL: "ITLA-C-16",
    SERIAL: "",
    DATE: "01-JAN-2025",
    RELEASE: "1.3.0:1.0",
    BACK_COMPATIBILITY: "1.0",
}

DEFAULTS = {
    GENCFG: 0,
    IOCAP: 0x0004,
    STATUS_F: 0,
    STATUS_W: 0,
    FPOWER_THRESHOLD: 300,
    WPOWER_THRESHOLD: 100,
    FFREQ: 50,
    WFREQ: 25,
    FTHERM: 1000,
    WTHERM: 500,
    SRQT: 0x1FBF,
    FATALT: 0x0F0F,
    ALMT: 0x0D0D,
    CHANNEL: 1,
    POWER: 1000,
    RESENA: 0,
    MCB: 0x0002,
    GRID: 500,
    FCF1: 193,
    FCF2: 4145,
    FCF3: 0,
    LF1: 0,
    LF2: 0,
    LF3: 0,
    OOP: 0,
    CTEMP: 3500,
    FTFR: 6000,
    POWER_LOW: POWER_RANGE[0],
    POWER_HIGH: POWER_RANGE[1],
    LFL1: 191,
    LFL2: 5000,
    LFH1: 196,
    LFH2: 2500,
    LGRID: 1,
    DITHER_ENABLE: 0,
    DITHER_RATE: 0,
    DITHER_F: 0,
    DITHER_A: 0,
    AGE: 0,
    FTF: 0,
}

_THRESHOLDS = (FPOWER_THRESHOLD, WPOWER_THRESHOLD, FFREQ, WFREQ, FTHERM, WTHERM)
_DITHER = (DITHER_ENABLE, DITHER_RATE, DITHER_F, DITHER_A)
PLAIN = frozenset([GENCFG, *_THRESHOLDS, SRQT, FATALT, ALMT, MCB, *_DITHER])
"""Registers that only keep what is written."""

TUNING = frozenset([CHANNEL, POWER, RESENA, GRID, FCF1, FCF2, FCF3, FTF])
"""Registers whose writes are refused while an operation is pending."""
