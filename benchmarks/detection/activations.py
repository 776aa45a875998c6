"""Calibration of SD2 and SD4: what healthy and defective models measure, the threshold between, recall and alarms.

    python -m benchmarks.detection.activations HEALTHY_DIR DEFECTIVE_DIR

Folders of model files that `stabdiag scan` loads without options. A healthy file must be healthy; what a defective one has is
read from its name: `deadrelu_*`, `saturate_*`, `drift_*`, `softmax_*` (the rest is "other defects"). Every file is probed
once in float32, its two further steps and seeds included, and judged by the rules of both families. Prints Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from stabdiag.evidence.graph import main_path
from stabdiag.evidence.softmax import softmaxes
from stabdiag.evidence.units import batch_size
from stabdiag.pipeline import report_on
from stabdiag.probe.here import probe_file
from stabdiag.request import ScanRequest
from stabdiag.rules import sd201_dead_relu, sd202_saturated_activation, sd203_activation_drift, sd205_rank_collapse
from stabdiag.trace import Run, Trace

Measure = Callable[[Run], Iterator[float]]
CLASSES = {"deadrelu": ("SD201",), "saturate": ("SD202",), "drift": ("SD203", "SD205"), "softmax": ("SD4",)}


def dead_share(run: Run) -> Iterator[float]:
    """Lower bound of the share of dead units, net of those always on, of each ReLU with 16 units or more."""
    for e in sd201_dead_relu.collect(run, 0.05):
        if e.units >= 16:
            yield 1.0 if e.whole else e.bound


def silent_share(run: Run) -> Iterator[float]:
    """Share of units that never fired: what a count without evidence says."""
    for e in sd201_dead_relu.collect(run, 0.05):
        yield e.silent / e.units


def saturated_share(run: Run) -> Iterator[float]:
    """Lower bound of the saturated share of each bounded nonlinearity."""
    for e in sd202_saturated_activation.collect(run, 2.0):
        yield e.bound


def drift(run: Run) -> Iterator[float]:
    """Decades of variance over the main path, where it is long enough and the second half goes on."""
    found = sd203_activation_drift.drift_of(main_path(run))
    if found is not None and len(found.logs) >= 8:
        yield abs(found.decades) if found.slope and found.later / found.slope >= 0.5 else 0.0


def distance_left(run: Run) -> Iterator[float]:
    """log10 of the nearest-neighbour distance at the last station over that at the first, where that was above 0.05."""
    path = sd205_rank_collapse.ranks(run)
    if len(path) >= 4 and path[0][1]["nearest"] > 0.05:
        from math import log10

        yield log10(max(path[-1][1]["nearest"], 1e-12) / path[0][1]["nearest"])


def entropy(run: Run) -> Iterator[float]:
    """Largest head entropy over its maximum, of each attention."""
    for softmax in softmaxes(run):
        heads = softmax.head_entropies(batch_size(run))
        if heads and softmax.scores is not None:
            yield max(heads)


def logit(run: Run) -> Iterator[float]:
    """Largest attention logit."""
    for softmax in softmaxes(run):
        stats = run.values[run.behind_views(softmax.logits)].stats
        if stats is not None and softmax.scores is not None and not stats.nan:
            yield stats.max


def one_hot(run: Run) -> Iterator[float]:
    """Share of one-hot rows of each softmax."""
    for softmax in softmaxes(run):
        if softmax.rows >= 16:
            yield softmax.site.facts["one_hot"] / softmax.rows


MEASURES: dict[str, tuple[Measure, str, str, bool]] = {
    "SD201 dead share (bound)": (dead_share, "deadrelu", "0.5", True),
    "SD201 silent share (naive)": (silent_share, "deadrelu", "none", True),
    "SD202 saturated share (bound)": (saturated_share, "saturate", "0.5", True),
    "SD203 drift, decades": (drift, "drift", "6", True),
    "SD205 log10 distance left": (distance_left, "drift", "-4", False),
    "SD402 one-hot share": (one_hot, "softmax", "0.5", True),
    "SD404 largest logit": (logit, "softmax", "1e4", True),
    "SD405 head entropy": (entropy, "softmax", "0.05", False),
}


def traces(folder: Path) -> dict[str, Trace]:
    """Each model file of a folder, probed in float32."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        try:
            found[path.stem] = probe_file(ScanRequest(str(path), precisions=["float32"]), lambda what, share: None)
        except Exception as error:  # a file that does not load is told, not hidden
            print(f"not scanned: {path.name}: {error}", file=sys.stderr)
    return found


def worst(trace: Trace, measure: Measure, largest: bool) -> float | None:
    """The most suspicious value of a model; None where the measure does not apply."""
    run = trace.run("float32")
    values = list(measure(run)) if run is not None else []
    return (max if largest else min)(values) if values else None


def quantiles(values: list[float]) -> str:
    """Number of models, minimum, quartiles and maximum."""
    if not values:
        return "0 |  |  |  |  | "
    ordered = sorted(values)
    at = [ordered[round(q * (len(ordered) - 1))] for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return f"{len(ordered)} | " + " | ".join(f"{v:.3g}" for v in at)


def codes(trace: Trace) -> dict[str, str]:
    """Code -> worst severity among SD2 and SD4, information left out."""
    report = report_on(trace, ScanRequest("", precisions=["float32"], select=["SD2", "SD4"]))
    found: dict[str, str] = {}
    for finding in report.findings:
        if finding.severity != "info" and found.get(finding.code) != "error":
            found[finding.code] = finding.severity.value
    return found


def main(healthy_folder: str, defective_folder: str) -> None:
    """Print the tables."""
    healthy, defective = traces(Path(healthy_folder)), traces(Path(defective_folder))
    print(
        "| measure | error at | population | models | min | 25 % | median | 75 % | max |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, (measure, family, threshold, largest) in MEASURES.items():
        populations = {
            "healthy": healthy,
            f"{family}_*": {n: t for n, t in defective.items() if n.startswith(family)},
            "other defects": {n: t for n, t in defective.items() if not n.startswith(family)},
        }
        for population, models in populations.items():
            values = [v for t in models.values() if (v := worst(t, measure, largest)) is not None]
            print(f"| {name} | {threshold} | {population} | {quantiles(values)} |")
    print("\n| family | models | caught | as error |\n|---|---|---|---|")
    for family, accepted in CLASSES.items():
        found = [codes(t) for n, t in defective.items() if n.startswith(family)]
        hits = [[s for code, s in each.items() if code.startswith(accepted)] for each in found]
        print(f"| {family} | {len(found)} | {sum(map(bool, hits))} | {sum('error' in h for h in hits)} |")
    alarms = {n: c for n, t in healthy.items() if (c := codes(t))}
    errors = sum("error" in c.values() for c in alarms.values())
    print(f"\nhealthy: {len(healthy)} models, {errors} with an error, {len(alarms)} with any finding {alarms or ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
