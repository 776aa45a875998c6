"""What changed between two saved runs: findings, verdicts, headroom, layers. Plain data; rendered by the command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Layer, PrecisionVerdict, Report, SubjectReport
from stabdiag.reports.parts.place import place, title
from stabdiag.reports.text import verdict_words

RANKS = {"safe": 0, "safe-with-scaling": 1, "at-risk": 2, "fails": 3}  # "not-run" is no answer and ranks nowhere
HEADROOM_BITS = 1.0  # change of the headroom worth a line: half of the range
LAYER_BITS = 1.0  # change of an RMS worth a line: a factor 2; another seed moves the RMS of a layer by a few per cent


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        kind: "error", "verdict", "new", "severity", "fixed", "moved", "headroom", "layer", "model".
        text: the difference in words.
        regression: it makes the comparison fail.
    """

    kind: str
    text: str
    regression: bool = False


def compare(old: Report, new: Report, fail_on: str = "error") -> dict[str, list[Change]]:
    """Changes by model, in the order of the new report; models without changes have an empty list.

    A regression is a finding at or above `fail_on` that is new or has become that severe, a worse verdict, a bit of headroom
    lost, or a model that could be scanned and no longer can.
    """
    before = {title(run): run for run in old.runs}
    after = {title(run): run for run in new.runs}
    changes = {
        name: list(_changes(before[name], run, fail_on)) if name in before else [_added(run, fail_on)]
        for name, run in after.items()
    }
    gone = {name: [Change("model", "no longer scanned")] for name in before if name not in after}
    return changes | gone


def _added(run: SubjectReport, fail_on: str) -> Change:
    failing = run.error is not None or any(_fails(finding, fail_on) for finding in _shown(run))
    return Change("model", f"new, with {len(_shown(run))} findings", failing)


def _shown(run: SubjectReport) -> list[Finding]:
    return [finding for finding in run.findings if finding.status != "suppressed"]


def _fails(finding: Finding, fail_on: str) -> bool:
    return fail_on != "never" and finding.weight.rank >= Severity(fail_on).rank


def _changes(old: SubjectReport, new: SubjectReport, fail_on: str) -> Iterator[Change]:
    if new.error:
        yield Change("error", f"not scanned: {new.error.message}", old.error is None)
        return
    if old.error:
        yield Change("error", "can be scanned again")
    verdicts = {p.name: p for p in old.precisions}
    for p in new.precisions:
        if p.name in verdicts:
            yield from _precision(verdicts[p.name], p)
    yield from _findings(old, new, fail_on)
    yield from _layers(old.layers, new.layers)


def _precision(old: PrecisionVerdict, new: PrecisionVerdict) -> Iterator[Change]:
    if old.verdict != new.verdict:
        worse = RANKS.get(new.verdict, -1) > RANKS.get(old.verdict, 3)
        yield Change("verdict", f"{new.name}: {verdict_words(old)} → {verdict_words(new)}", worse)
    if old.headroom_bits is not None and new.headroom_bits is not None:
        lost = old.headroom_bits - new.headroom_bits
        if abs(lost) >= HEADROOM_BITS:
            text = f"{new.name}: {old.headroom_bits:.1f} → {new.headroom_bits:.1f} bits of headroom"
            yield Change("headroom", text, lost > 0)


def _findings(old: SubjectReport, new: SubjectReport, fail_on: str) -> Iterator[Change]:
    left = _shown(old)
    fresh = []
    for finding in _shown(new):
        same = next((f for f in left if f.fingerprint == finding.fingerprint), None)
        if same is None:
            fresh.append(finding)
            continue
        left.remove(same)
        if same.severity is not finding.severity:
            worse = finding.severity.rank > same.severity.rank and _fails(finding, fail_on)
            yield Change("severity", f"{finding.code} {place(new, finding)}: {same.severity} → {finding.severity}", worse)
    for finding in fresh:
        # What left one place and came up at another is the same defect after a renaming.
        twin = next((f for f in left if _kind(f) == _kind(finding)), None)
        if twin is not None:
            left.remove(twin)
            yield Change("moved", f"{finding.code} {_at(old, twin)} → {_at(new, finding)}")
        else:
            yield Change(
                "new", f"{finding.severity}[{finding.code}] {place(new, finding)} {finding.message}", _fails(finding, fail_on)
            )
    for finding in left:
        yield Change("fixed", f"{finding.severity}[{finding.code}] {place(old, finding)} {finding.message}")


def _kind(finding: Finding) -> tuple[object, ...]:
    return (finding.code, finding.op, finding.phase, finding.precisions, finding.severity)


def _at(run: SubjectReport, finding: Finding) -> str:
    return " ".join(part for part in (place(run, finding), finding.module) if part)


def _layers(old: list[Layer], new: list[Layer]) -> Iterator[Change]:
    before = _by_name(old)
    for name, layer in _by_name(new).items():
        if name not in before:
            continue
        for what in ("forward_rms", "gradient_rms"):
            was, now = getattr(before[name], what), getattr(layer, what)
            if was and now and abs(log2(now / was)) >= LAYER_BITS:
                label = what.removesuffix("_rms")
                yield Change(
                    "layer",
                    f"{' '.join(filter(None, name[:2]))}: {label} RMS {was:.2g} → {now:.2g} ({log2(now / was):+.1f} bits)",
                )
            elif was and now == 0:
                yield Change("layer", f"{' '.join(filter(None, name[:2]))}: {what.removesuffix('_rms')} RMS {was:.2g} → 0")


def _by_name(layers: list[Layer]) -> dict[tuple[str, str, int], Layer]:
    found: dict[tuple[str, str, int], Layer] = {}
    for layer in layers:
        call = sum(key[:2] == (layer.module, layer.op) for key in found)
        found[layer.module, layer.op, call] = layer
    return found
