"""The catalogue against X.733 and M.3100, and its pages against the catalogue."""

from __future__ import annotations

import pytest

from qmodd.monitoring.alarms import Alarms, Kind, Severity
from qmodd.monitoring.catalogue import CATALOGUE, RUNBOOK
from tests.docs.pages import DOCS, ROOT, code, rows, sections

# ITU-T X.733, 8.1.2.1, and those of M.3100 that are used here.
X733 = """
adapterError applicationSubsystemFailure bandwidthReduced callEstablishmentError communicationsProtocolError
communicationsSubsystemFailure configurationOrCustomizationError congestion corruptData cpuCyclesLimitExceeded
dataSetOrModemError degradedSignal enclosureDoorOpen equipmentMalfunction excessiveVibration fileError fireDetected
floodDetected framingError heatingOrVentilationOrCoolingSystemProblem humidityUnacceptable inputDeviceError
inputOutputDeviceError lANError leakDetected localNodeTransmissionError lossOfFrame lossOfSignal
materialSupplyExhausted multiplexerProblem outOfMemory outputDeviceError performanceDegraded powerProblem
pressureUnacceptable processorProblem pumpFailure queueSizeExceeded receiveFailure receiverFailure
remoteNodeTransmissionError resourceAtOrNearingCapacity responseTimeExcessive retransmissionRateExcessive
softwareError softwareProgramAbnormallyTerminated softwareProgramError storageCapacityProblem
temperatureUnacceptable thresholdCrossed timingProblem toxicLeakDetected transmitFailure transmitterFailure
underlyingResourceUnavailable versionMismatch
"""
M3100 = {
    "excessiveBER",
    "invalidMessageReceived",
    "lossOfSynchronisation",
    "replaceableUnitMissing",
    "replaceableUnitProblem",
}
PAGES = DOCS / "runbook"


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=list(CATALOGUE))
def test_kind_is_one_of_the_standard(kind: Kind) -> None:
    assert kind.probable_cause in {*X733.split(), *M3100}
    assert kind.severity is not Severity.CLEARED
    assert kind.clear_after_s > 0.0
    assert kind.problem == kind.problem.strip(". ")


def test_roots_lead_somewhere_and_not_in_a_circle() -> None:
    engine = Alarms(CATALOGUE)
    for id, kind in CATALOGUE.items():
        behind = engine._behind(kind)
        assert not any(id in CATALOGUE[root].because_of for root in behind), id


def test_every_kind_has_a_page_and_every_page_a_kind() -> None:
    there = {p.stem for p in PAGES.glob("*.md")} - {"README"}
    assert there == set(CATALOGUE)
    assert all((ROOT / RUNBOOK.format(id=id)).is_file() for id in CATALOGUE)


@pytest.mark.parametrize("id", CATALOGUE)
def test_a_page_says_what_a_person_needs(id: str) -> None:
    page, kind = PAGES / f"{id}.md", CATALOGUE[id]
    parts = sections(page)
    assert list(parts) == [id, "What the module has done", "What to check", "How it clears"]
    assert all(text.strip() for text in parts.values())
    ((severity, event_type, cause),) = rows(parts[id])
    assert (code(severity), code(event_type), code(cause)) == (kind.severity, kind.event_type, kind.probable_cause)
    silent = parts[id].partition("Silent while")[2]
    assert all(f"({root}.md)" in silent for root in kind.because_of)
    assert silent.count(".md)") == len(kind.because_of)


def test_the_list_of_pages() -> None:
    listed = {
        c[0].partition("]")[0].strip("["): (code(c[1]), c[2]) for c in rows(sections(PAGES / "README.md")["Runbook"])
    }
    assert listed == {id: (kind.severity, kind.problem) for id, kind in CATALOGUE.items()}
