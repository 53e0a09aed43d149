"""A report as JUnit XML, as build servers and test managers read it: a suite a level, a case a finding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qmodd.selftest.model import Finding, Report, Verdict
from qmodd.selftest.words import allowed, by_level, shown

# What XML 1.0 cannot hold, even escaped.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The whole file. An unusual value (a warning) is a case that passed, with its reason in `system-out`."""
    root = Element("testsuites", name=f"qmodd selftest {report.serial}", time=f"{report.seconds:.3f}")
    _count(root, report.findings)
    for number, (level, findings) in enumerate(by_level(report.findings).items()):
        root.append(_suite(report, number, level, findings))
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _count(element: Element, findings: Sequence[Finding]) -> None:
    element.set("tests", str(len(findings)))
    element.set("failures", str(sum(f.verdict is Verdict.FAILED for f in findings)))
    element.set("errors", "0")


def _suite(report: Report, number: int, level: str, findings: Sequence[Finding]) -> Element:
    seconds = report.level_seconds.get(level, 0.0)
    suite = Element("testsuite", id=str(number), name=level, package=f"qmodd.selftest.{report.side}")
    _count(suite, findings)
    suite.set("skipped", str(sum(f.verdict is Verdict.SKIPPED for f in findings)))
    suite.set("time", f"{seconds:.3f}")
    # The schema wants local time without a zone; ours is UTC.
    suite.set("timestamp", report.taken[:19])
    suite.set("hostname", report.serial)
    properties = SubElement(suite, "properties")
    for name, value in _properties(report):
        SubElement(properties, "property", name=name, value=_text(value))
    for finding in findings:
        suite.append(_case(level, finding))
    return suite


def _properties(report: Report) -> list[tuple[str, str]]:
    out = [("serial", report.serial), ("side", report.side), ("level", report.level.value), ("taken", report.taken)]
    out.append(("suspects", ", ".join(report.suspects)))
    if report.mahalanobis is not None:
        out.append(("mahalanobis_t2", f"{report.mahalanobis:.4g}"))
    return out


def _case(level: str, f: Finding) -> Element:
    case = Element("testcase", name=_text(f.name), classname=_text(f"{level}.{f.part}"), time="0")
    told = f"value {shown(f)}; allowed: {allowed(f)}"
    if f.golden_z is not None:
        told += f"; golden z {f.golden_z:+.2f}"
    if f.verdict is Verdict.SKIPPED:
        SubElement(case, "skipped", message=_text(f.skipped))
    elif f.verdict is Verdict.FAILED:
        failure = SubElement(case, "failure", message=_text(f.why), type="limit")
        failure.text = _text(told)
    else:
        SubElement(case, "system-out").text = _text(f"{told}\n{f.why}".strip())
    return case


def _text(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
