"""Calibration of SD101 to SD105 and SD701 to SD703: what healthy and defective models measure, recall, alarms, near misses.

    python -m benchmarks.detection.gradients                      the models of tests/rules/gradient_zoo.py, two sizes each
    python -m benchmarks.detection.gradients HEALTHY DEFECTIVE    folders of model files that need no option

A defective file says what it has by its name: `vanish_*`, `explode_*`, `init_*`, `input_*`, `fp16under_*`; others are left out.
Prints Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite, log2
from pathlib import Path

import torch

from stabdiag.evidence.depth import most_precise, over_depth, over_time
from stabdiag.evidence.scale import scale_of_tensors
from stabdiag.finding import Finding
from stabdiag.formats import FORMATS
from stabdiag.probe.here import probe_file
from stabdiag.probe.runner import probe
from stabdiag.request import ScanRequest
from stabdiag.rule import all_rules
from stabdiag.rules import sd104_gradient_underflow as underflow
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts, Trace
from tests.rules.gradient_zoo import DEFECTIVE, HEALTHY, Case

RULES = ("SD101", "SD102", "SD103", "SD104", "SD105", "SD701", "SD702", "SD703")
CLASSES = {
    "vanish": ("SD101",),
    "explode": ("SD102",),
    "init": ("SD701", "SD103"),
    "input": ("SD703",),
    "fp16under": ("SD104",),
}
SIZES = ((0, 32, 32), (5, 48, 24))  # seed, width, batch


@dataclass
class Row:
    """What one model measured and what was said about it."""

    name: str
    codes: tuple[str, ...]
    warns: tuple[str, ...]
    measured: dict[str, float]
    findings: list[Finding] = field(default_factory=list)

    def severities(self, *codes: str) -> set[str]:
        return {f.severity.value for f in self.findings if f.code in codes}


def probed(case: Case) -> Trace:
    """Probe a live case; it can be rebuilt with other seeds."""

    def rebuild(k: int) -> torch.nn.Module:
        torch.manual_seed(1000 + k)
        with torch.random.fork_rng():
            return case.build().train()

    facts = SubjectFacts("model.py", "Net", 0, "", "", declared=["inputs", "loss"], rebuildable=True)
    subject = Subject(
        case.build().train(), lambda k: Inputs(case.inputs), lambda out, _: case.loss(out), facts, rebuild=rebuild
    )
    return probe(subject, ScanRequest("model.py", precisions=["float32", "float16"]))


def measure(trace: Trace) -> dict[str, float]:
    """The numbers that the rules compare with their thresholds."""
    run, base = most_precise(trace), trace.run("float32")
    found: dict[str, float] = {}
    if run is None or base is None:
        return found
    course = over_depth(run)
    if course is not None and len(course.norms) >= 4:
        found |= {"decades": course.decades, "slope": course.slope, "spread": course.spread_decades}
    courses = over_time(run)
    if courses:
        found["time_slope"] = max((c.slope for c in courses), key=abs)
    trained = underflow._trained(trace, base)
    format = FORMATS["float16"]
    found["lost_unscaled"] = underflow._unscaled(trace, "float16", {p.name for p in trained})
    found["lost_best"] = underflow._share(trained, format, scale_of_tensors(base, format))
    found["lost_first"] = underflow._share(trained, format, 2.0**16)
    twins = [p.facts["twins"] for p in base.parameters if "twins" in p.facts and p.facts["twins"]["units"] >= 4]
    if twins:
        found["twins"] = max(t["twins"] / t["units"] for t in twins)
    for op in base.phase("forward"):
        for name, fact in op.facts.items():
            if name.startswith("entry_") and fact["elements"]:
                scales = [(s / fact["rows"]) ** 0.5 for s in fact["sum_sq"] if s > 0]
                spread = max(scales) / min(scales) if scales else 1.0
                found["input_ratio"] = max(found.get("input_ratio", 1.0), spread)
                found["input_mean_square"] = max(found.get("input_mean_square", 0.0), fact["all_sum_sq"] / fact["elements"])
    return found


def judged(trace: Trace) -> list[Finding]:
    """Findings of these rules, before triage."""
    rules = all_rules()
    return [finding for code in RULES for finding in rules[code].check(trace)]


def zoo() -> Iterator[Row]:
    for makers in (HEALTHY, DEFECTIVE):
        for name, make in makers.items():
            for seed, width, batch in SIZES:
                case = make(seed, width, batch)
                trace = probed(case)
                yield Row(f"{name}/{width}", case.codes, case.warns, measure(trace), judged(trace))
                print(".", end="", file=sys.stderr, flush=True)


def folders(healthy: str, defective: str) -> Iterator[Row]:
    for folder, ill in ((healthy, False), (defective, True)):
        for path in sorted(Path(folder).glob("*.py")):
            codes = CLASSES.get(path.stem.partition("_")[0], ())
            if ill and not codes:
                continue
            request = ScanRequest(str(path), precisions=["float32", "float16"])
            trace = probe_file(request, lambda what, share: None)
            yield Row(path.stem, codes if ill else (), (), measure(trace), judged(trace))
            print(".", end="", file=sys.stderr, flush=True)


def percentiles(values: list[float]) -> str:
    """0, 5, 50, 95 and 100 per cent."""
    if not values:
        return "- | - | - | - | -"
    ordered = sorted(values)
    return " | ".join(f"{ordered[round(q * (len(ordered) - 1))]:.3g}" for q in (0, 0.05, 0.5, 0.95, 1))


DEFECT_OF = {
    "decades": ("SD101", "SD102"),
    "slope": ("SD101", "SD102"),
    "spread": ("SD101", "SD102"),
    "time_slope": ("SD101", "SD102"),
    "lost_unscaled": ("SD104",),
    "lost_best": ("SD104",),
    "lost_first": ("SD104",),
    "twins": ("SD701",),
    "input_ratio": ("SD703",),
    "input_mean_square": ("SD703",),
}


def report(rows: list[Row]) -> None:
    """Recall and alarms per rule, percentiles per measured fact, and the models nearest to another verdict."""
    healthy, ill = [r for r in rows if not r.codes], [r for r in rows if r.codes]
    print("\n| class | caught | as error |\n|---|---|---|")
    for codes in sorted({r.codes for r in ill}):
        mine = [r for r in ill if r.codes == codes]
        caught = sum(bool(r.severities(*codes) & {"error", "warning"}) for r in mine)
        errors = sum("error" in r.severities(*codes) for r in mine)
        print(f"| {' '.join(codes)} | {caught}/{len(mine)} | {errors}/{len(mine)} |")
    print("\n| rule | errors on healthy | warnings on healthy |\n|---|---|---|")
    for code in RULES:
        counts = [sum(word in r.severities(code) for r in healthy) for word in ("error", "warning")]
        print(f"| {code} | {counts[0]}/{len(healthy)} | {counts[1]}/{len(healthy)} |")
    print("\n| measured | models | n | 0 % | 5 % | 50 % | 95 % | 100 % |\n|---|---|---|---|---|---|---|---|")
    for fact, codes in DEFECT_OF.items():
        for who, group in (("healthy", healthy), *((code, [r for r in ill if code in r.codes]) for code in codes)):
            values = [r.measured[fact] for r in group if fact in r.measured and isfinite(r.measured[fact])]
            print(f"| {fact} | {who} | {len(values)} | {percentiles(values)} |")
    print("\nwrong verdicts:")
    for r in rows:
        said = {(f.code, f.severity.value) for f in r.findings if f.severity.value != "info"}
        missed = r.codes and not r.severities(*r.codes) & {"error", "warning"}
        alarm = not r.codes and any(s == "error" or c not in r.warns for c, s in said)
        if missed or alarm:
            measured = {k: round(v, 3) for k, v in r.measured.items()}
            print(f"- {r.name}: {'missed' if missed else 'alarm'} {sorted(said)} {measured}")
    print("\nnearest to another verdict (distance to the threshold in bits):")
    for distance, name, what in sorted(margins(rows))[:3]:
        print(f"- {name}: {what}, {distance:.2f} bits")


def margins(rows: list[Row]) -> Iterator[tuple[float, str, str]]:
    """|log2(measured / threshold)| where it is the number that decides."""
    for r in rows:
        m = r.measured
        deciding = [("lost_unscaled", m.get("lost_unscaled", 0.0), 0.2), ("twins", m.get("twins", 0.0), 0.5)]
        deciding.append(("input_ratio", m.get("input_ratio", 0.0), 1000.0))
        if "decades" in m:
            both = min(-m["decades"] / 2, m["slope"] / 0.15)
            deciding += [
                ("min(-D/2, s/0.15)", both, 1.0),
                ("min(D/3, -s/0.10)", min(m["decades"] / 3, -m["slope"] / 0.10), 1.0),
            ]
        for what, value, threshold in deciding:
            if value > 0:
                yield abs(log2(value / threshold)), r.name, f"{what} = {value:.3g}, threshold {threshold:g}"


def main() -> None:
    """Probe, judge, print."""
    report(list(folders(*sys.argv[1:3]) if len(sys.argv) > 2 else zoo()))


if __name__ == "__main__":
    main()
