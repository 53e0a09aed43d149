"""Every alarm that the daemon can raise (ITU-T X.733; names of probable causes from X.733 8.1.2.1 and M.3100).

One kind for what a person does one thing about. A kind whose `because_of` names another stays silent while that one is
wrong, so that a cut fibre or a missing device is one alarm. The receiver speaks for the link; the transmitter stays
silent about what the receiver tells.
"""

from __future__ import annotations

from collections.abc import Mapping

from qmodd.monitoring.alarms import EventType, Kind, Severity, catalogue

# Where the page of a kind is, below the project's root.
RUNBOOK = "docs/runbook/{id}.md"
# A session that fails is tried again within 15 s; coming up so far that the cause is known to be gone takes longer.
AFTER_RETRY_S = 10.0

_EQUIPMENT, _LINK = EventType.EQUIPMENT, EventType.COMMUNICATIONS
_SERVICE, _PROCESSING = EventType.QUALITY_OF_SERVICE, EventType.PROCESSING_ERROR
_AROUND = EventType.ENVIRONMENTAL

# What ends a session, root causes first.
FAILURES = (
    Kind(
        "cover-open",
        Severity.CRITICAL,
        _AROUND,
        "enclosureDoorOpen",
        "The cover is open",
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "interlock-open",
        Severity.CRITICAL,
        _AROUND,
        "enclosureDoorOpen",
        "The interlock loop is open",
        ("cover-open",),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "device-fault",
        Severity.CRITICAL,
        _EQUIPMENT,
        "replaceableUnitProblem",
        "A device is missing, is another one, or does not answer",
        ("supply-fault", "module-removed"),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "over-temperature",
        Severity.CRITICAL,
        _AROUND,
        "temperatureUnacceptable",
        "A part of the module is hotter than it may be",
        ("fan-failed", "supply-fault"),
        clear_after_s=AFTER_RETRY_S,
        latched=True,
    ),
    Kind(
        "over-current",
        Severity.CRITICAL,
        _EQUIPMENT,
        "powerProblem",
        "A supply of the chip gives more current than it may",
        clear_after_s=AFTER_RETRY_S,
        latched=True,
    ),
    Kind(
        "heater-budget",
        Severity.CRITICAL,
        _EQUIPMENT,
        "thresholdCrossed",
        "The heaters take more power than the chip may have",
        ("over-current",),
        clear_after_s=AFTER_RETRY_S,
        latched=True,
    ),
    Kind(
        "cryostat-warm",
        Severity.CRITICAL,
        _AROUND,
        "heatingOrVentilationOrCoolingSystemProblem",
        "The detectors' cryostat is not cold",
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "diode-shutter",
        Severity.CRITICAL,
        _EQUIPMENT,
        "outputDeviceError",
        "The self-test diode's shutter is open while detectors are biased",
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "watchdog-tripped",
        Severity.CRITICAL,
        _EQUIPMENT,
        "equipmentMalfunction",
        "The watchdog has dropped laser and heater rails",
        ("interlock-open", "device-fault"),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "laser-dark",
        Severity.CRITICAL,
        _EQUIPMENT,
        "transmitterFailure",
        "The laser does not emit",
        ("interlock-open", "device-fault"),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "heater-open",
        Severity.CRITICAL,
        _EQUIPMENT,
        "outputDeviceError",
        "A heater of the chip is an open circuit",
        ("interlock-open", "device-fault"),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "temperature-not-held",
        Severity.MAJOR,
        _AROUND,
        "temperatureUnacceptable",
        "The chip is not kept at its temperature",
        ("interlock-open", "device-fault", "over-temperature", "fan-failed"),
        raise_after_s=10.0,
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "selftest-failed",
        Severity.CRITICAL,
        _EQUIPMENT,
        "equipmentMalfunction",
        "A check at start-up failed",
        ("interlock-open", "device-fault", "over-temperature", "over-current", "heater-budget", "supply-fault"),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "calibration-refused",
        Severity.MAJOR,
        _EQUIPMENT,
        "equipmentMalfunction",
        "A calibration that keys rest on could not be made",
        (
            "device-fault",
            "laser-dark",
            "heater-open",
            "temperature-not-held",
            "no-light",
            "peer-not-ready",
            "heater-budget",
        ),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "loop-failed",
        Severity.MAJOR,
        _PROCESSING,
        "applicationSubsystemFailure",
        "A control loop failed again after its restart",
        (
            "interlock-open",
            "device-fault",
            "laser-dark",
            "heater-open",
            "temperature-not-held",
            "over-current",
            "heater-budget",
            "cryostat-warm",
        ),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "internal-error",
        Severity.CRITICAL,
        _PROCESSING,
        "softwareProgramError",
        "The daemon met an error of its own",
        clear_after_s=AFTER_RETRY_S,
    ),
)

SAFETY = (
    Kind(
        "supply-fault",
        Severity.MAJOR,
        _EQUIPMENT,
        "powerProblem",
        "The power supply reports a fault",
        raise_after_s=2.0,
    ),
    Kind(
        "fan-failed",
        Severity.MAJOR,
        _EQUIPMENT,
        "heatingOrVentilationOrCoolingSystemProblem",
        "The fan turns too slowly or not at all",
        ("supply-fault",),
        raise_after_s=5.0,
        recover_s=120.0,
    ),
    Kind(
        "module-latched",
        Severity.CRITICAL,
        _EQUIPMENT,
        "equipmentMalfunction",
        "The module stays dark until a person clears a latch",
        (
            "cover-open",
            "over-temperature",
            "over-current",
            "heater-budget",
            "watchdog-tripped",
            "output-not-safe",
        ),
    ),
    Kind(
        "output-not-safe",
        Severity.CRITICAL,
        _EQUIPMENT,
        "outputDeviceError",
        "An output could not be confirmed at its safe value",
        ("device-fault",),
    ),
)

FIELD = (
    Kind(
        "module-removed",
        Severity.CRITICAL,
        _EQUIPMENT,
        "replaceableUnitMissing",
        "The photonic module is out",
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "fru-damaged",
        Severity.WARNING,
        _EQUIPMENT,
        "corruptData",
        "What the photonic module says of itself is damaged",
    ),
)

LINK = (
    Kind(
        "uplink-away",
        Severity.MINOR,
        _PROCESSING,
        "softwareProgramAbnormallyTerminated",
        "The uplink process is not connected to core",
        raise_after_s=10.0,
    ),
    Kind(
        "broker-away",
        Severity.MINOR,
        _LINK,
        "lANError",
        "The MQTT broker is not reached",
        ("uplink-away",),
        raise_after_s=10.0,
    ),
    Kind(
        "peer-away",
        Severity.MAJOR,
        _LINK,
        "communicationsSubsystemFailure",
        "No session with the far module over the service channel",
        ("uplink-away",),
        raise_after_s=15.0,
    ),
    Kind(
        "peer-not-ready",
        Severity.MINOR,
        _LINK,
        "remoteNodeTransmissionError",
        "The transmitter does not give the light that a calibration needs",
        ("peer-away",),
        clear_after_s=AFTER_RETRY_S,
    ),
    Kind(
        "no-light",
        Severity.CRITICAL,
        _LINK,
        "lossOfSignal",
        "The receiver counts nothing of the transmitter's light",
        ("peer-away", "cryostat-warm"),
        raise_after_s=10.0,
    ),
    Kind(
        "phase-fault",
        Severity.CRITICAL,
        _LINK,
        "lossOfSynchronisation",
        "The phase lock has given up and waits for a person",
    ),
    Kind(
        "phase-lost",
        Severity.MAJOR,
        _LINK,
        "lossOfSynchronisation",
        "The interferometers are not in phase",
        ("phase-fault", "no-light", "temperature-not-held", "detectors-latching"),
        raise_after_s=30.0,
        recover_s=60.0,
    ),
    Kind(
        "detectors-latching",
        Severity.MAJOR,
        _EQUIPMENT,
        "receiverFailure",
        "Detectors latch again and again",
        ("cryostat-warm",),
        clear_after_s=60.0,
    ),
    Kind(
        "qber-high",
        Severity.MAJOR,
        _LINK,
        "excessiveBER",
        "Blocks are dropped for their error rate",
        ("phase-lost", "detectors-latching", "no-light"),
        recover_s=300.0,
    ),
)

KEYS = (
    Kind(
        "upkeep-degraded",
        Severity.MINOR,
        _SERVICE,
        "performanceDegraded",
        "A calibration cannot be renewed",
        ("no-light", "phase-lost", "peer-away", "temperature-not-held", "detectors-latching"),
        raise_after_s=10.0,
        recover_s=600.0,
    ),
    Kind(
        "pool-low",
        Severity.MINOR,
        _SERVICE,
        "resourceAtOrNearingCapacity",
        "Few rounds of authentication key are left",
        clear_after_s=30.0,
    ),
    Kind(
        "pools-differ",
        Severity.CRITICAL,
        _SERVICE,
        "corruptData",
        "The two modules' authentication pools are not the same",
    ),
    Kind(
        "key-store-full",
        Severity.MAJOR,
        _PROCESSING,
        "storageCapacityProblem",
        "Keys wait for delivery, and their store is nearly full",
        ("broker-away", "keys-refused"),
        clear_after_s=30.0,
        recover_s=300.0,
    ),
    Kind(
        "keys-refused",
        Severity.MAJOR,
        _SERVICE,
        "invalidMessageReceived",
        "A recipient refuses keys",
    ),
    Kind(
        "no-keys",
        Severity.MAJOR,
        _SERVICE,
        "performanceDegraded",
        "Keys are wanted and none are made",
        (
            "no-light",
            "phase-lost",
            "peer-away",
            "qber-high",
            "upkeep-degraded",
            "pool-low",
            "pools-differ",
            "key-store-full",
            "detectors-latching",
            "temperature-not-held",
        ),
        raise_after_s=120.0,
        recover_s=180.0,
    ),
)

HOST = (
    Kind(
        "clock-unsynchronised",
        Severity.WARNING,
        _PROCESSING,
        "timingProblem",
        "The clock is not known to be right",
        raise_after_s=600.0,
        clear_after_s=30.0,
    ),
    Kind(
        "disk-filling",
        Severity.MAJOR,
        _PROCESSING,
        "storageCapacityProblem",
        "Little room is left where the module keeps its state",
        clear_after_s=60.0,
    ),
    Kind(
        "outbox-backlog",
        Severity.MINOR,
        _PROCESSING,
        "queueSizeExceeded",
        "Events and keys wait to be sent",
        ("broker-away",),
        raise_after_s=60.0,
        clear_after_s=30.0,
        recover_s=300.0,
    ),
)

CATALOGUE: Mapping[str, Kind] = catalogue((*FAILURES, *SAFETY, *FIELD, *LINK, *KEYS, *HOST))
