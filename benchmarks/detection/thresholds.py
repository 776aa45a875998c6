"""Calibration of SD1, SD2, SD4 and SD7: recall, alarms, what healthy and defective models measure, the threshold between.

    python -m benchmarks.detection.thresholds                                     models of tests/rules/gradient_zoo.py
    python -m benchmarks.detection.thresholds HEALTHY[,…] DEFECTIVE[,…] [STORE]   folders of model files that need no option

A defective file says what it has by its name (`vanish_*`, `deadrelu_*`, …: `FAMILIES`). With a STORE the traces are kept, and a
second run judges them without probing. Prints Markdown.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log2
from pathlib import Path

from benchmarks.detection.measures import MEASURES
from benchmarks.detection.traces import traces
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from tests.rules.gradient_zoo import DEFECTIVE, HEALTHY, probed

FAMILIES = {
    "vanish": ("SD101",),
    "explode": ("SD102",),
    "init": ("SD701", "SD103"),
    "input": ("SD703",),
    "fp16under": ("SD104", "SD106"),
    "deadrelu": ("SD201",),
    "saturate": ("SD202", "SD703"),
    "drift": ("SD203", "SD205", "SD102"),
    "softmax": ("SD401", "SD402", "SD404", "SD405", "SD601"),
}
SIZES = ((0, 32, 32), (5, 48, 24))  # seed, width, batch


@dataclass
class Row:
    """One model: the codes of which one must be reported (none for a healthy one), what was said, what it measures."""

    name: str
    codes: tuple[str, ...]
    said: dict[str, str]
    measured: dict[str, float]


def row(name: str, codes: tuple[str, ...], trace: Trace) -> Row:
    said: dict[str, str] = {}
    for finding in report_on(trace, ScanRequest("")).findings:  # worst first
        if finding.severity != "info":
            said.setdefault(finding.code, finding.severity.value)
            for folded in finding.evidence.get("consequences", ()):
                said.setdefault(folded, finding.severity.value)
    measured = {m.name: value for m in MEASURES if (value := m.worst(trace)) is not None}
    return Row(name, codes, said, measured)


def zoo() -> Iterator[Row]:
    for makers in (HEALTHY, DEFECTIVE):
        for name, make in makers.items():
            for seed, width, batch in SIZES:
                case = make(seed, width, batch)
                yield row(f"{name}/{width}", case.codes, probed(case))


def folders(healthy: str, defective: str, store: Path) -> Iterator[Row]:
    for names, ill in ((healthy, False), (defective, True)):
        for folder in names.split(","):
            for name, trace in traces(Path(folder), store):
                codes = FAMILIES.get(name.partition("_")[0], ()) if ill else ()
                if codes or not ill:
                    yield row(name, codes, trace)


def verdicts(rows: list[Row]) -> None:
    """Recall by what must be reported, alarms by rule."""
    healthy, ill = [r for r in rows if not r.codes], [r for r in rows if r.codes]
    print("| one of | models | caught | as error |\n|---|---|---|---|")
    for codes in sorted({r.codes for r in ill}):
        found = [[r.said[code] for code in codes if code in r.said] for r in ill if r.codes == codes]
        print(f"| {' '.join(codes)} | {len(found)} | {sum(map(bool, found))} | {sum('error' in f for f in found)} |")
    alarms = Counter((code, severity) for r in healthy for code, severity in r.said.items())
    print(f"\nalarms on {len(healthy)} healthy models: {dict(alarms) or 'none'}")
    for r in healthy:
        if r.said:
            print(f"- {r.name}: {r.said}")
    for r in ill:
        if not set(r.codes) & set(r.said):
            print(f"- missed: {r.name}, said {r.said}")


def quantiles(values: list[float]) -> str:
    """How many, then 0, 5, 50, 95 and 100 per cent."""
    ordered = sorted(v for v in values if isfinite(v))
    if not ordered:
        return "0 | | | | | "
    at = (ordered[round(q * (len(ordered) - 1))] for q in (0, 0.05, 0.5, 0.95, 1))
    return f"{len(ordered)} | " + " | ".join(f"{value:.3g}" for value in at)


def populations(rows: list[Row]) -> None:
    """What separates the healthy from the ill, measure by measure; `!` marks the side on which a value is suspicious."""
    print("\n| measure | threshold | models | n | 0 % | 5 % | 50 % | 95 % | 100 % |\n|---|---|---|---|---|---|---|---|---|")
    for m in MEASURES:
        limit = f"{'>' if m.larger else '<'} {m.threshold:g}"
        for who, group in (("healthy", [r for r in rows if not r.codes]), ("ill", [r for r in rows if m.code in r.codes])):
            values = [r.measured[m.name] for r in group if m.name in r.measured]
            print(f"| {m.code} {m.name} | {limit} | {who} | {quantiles(values)} |")


def nearest(rows: list[Row], most: int = 5) -> None:
    """The models whose worst value is nearest to the threshold of the other verdict, in factors of two."""
    print("\nnearest to the other verdict:")
    found: list[tuple[float, str]] = []
    for r in rows:
        for m in MEASURES:
            value = r.measured.get(m.name, 0.0)
            if value > 0 and m.decides and (m.code in r.codes or not r.codes):
                wrong = m.beyond(value) != bool(r.codes)
                distance = abs(log2(value / m.threshold))
                found.append((-distance if wrong else distance, f"{r.name}: {m.code} {m.name} {value:.3g} of {m.threshold:g}"))
    for distance, text in sorted(found, key=lambda f: abs(f[0]))[:most]:
        print(
            f"- {text}: {abs(distance):.2f} bits" + (", on the other side: another condition decides" if distance < 0 else "")
        )


def main() -> None:
    """Probe, judge, print."""
    if len(sys.argv) > 2:
        store = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(tempfile.mkdtemp(prefix="stabdiag-traces-"))
        rows = list(folders(sys.argv[1], sys.argv[2], store))
    else:
        rows = list(zoo())
    verdicts(rows)
    populations(rows)
    nearest(rows)


if __name__ == "__main__":
    main()
