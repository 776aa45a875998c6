"""Guards under test: faults put into a copy of the code, one at a time, and whether the tests of that area notice.

    python -m benchmarks.mutations [--only TEXT] [--jobs N]

Each fault is data: a file, a text in it that occurs once, what stands there instead, and the tests that must fail. A guard
whose removal no test notices is not there. Prints a line per fault and the share that was noticed; exits 1 below 95 %, or when
the text of a fault is no longer found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTICED = 0.95


@dataclass(frozen=True)
class Fault:
    """One fault: in `file` below `stabdiag/`, `old` becomes `new`; `tests` are paths below `tests/`."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def fault(name: str, file: str, old: str, new: str, tests: str) -> Fault:
    """A fault, with the arguments in the order in which the list below reads."""
    return Fault(name, file, old, new, tests)


FAULTS = [
    # a guest's manners
    fault(
        "requires_grad is not restored",
        "probe/guest.py",
        "parameter.requires_grad_(requires_grad)",
        "pass",
        "guards probe/test_guest.py",
    ),
    fault("gradients are not restored", "probe/guest.py", "parameter.grad = gradient", "pass", "guards probe/test_guest.py"),
    fault(
        "parameters keep the copy",
        "probe/guest.py",
        "                parameter.data = data\n",
        "                pass\n",
        "guards probe/test_guest.py",
    ),
    fault(
        "attributes stay changed",
        "probe/guest.py",
        "                _put_back(module, before)",
        "                pass",
        "guards probe/test_guest.py",
    ),
    fault("random state moves on", "probe/guest.py", "        torch.set_rng_state(state)\n", "", "guards probe/test_guest.py"),
    fault(
        "the default dtype stays",
        "probe/guest.py",
        "        torch.set_default_dtype(dtype)\n",
        "",
        "guards probe/test_guest.py",
    ),
    # the tracer's memory
    fault(
        "siblings of written memory inverted",
        "recording/tracer.py",
        "and not _siblings(written[1], key)",
        "and _siblings(written[1], key)",
        "guards probe/test_tracer.py",
    ),
    fault(
        "a written view hides nothing",
        "recording/tracer.py",
        "                return written[0]\n",
        "                return known\n",
        "guards probe/test_tracer.py",
    ),
    # merging batches
    fault(
        "facts of further batches are dropped",
        "probe/merge.py",
        "            op.facts[name] = add(op.facts[name], fact) if name in op.facts else fact",
        "            pass",
        "guards probe",
    ),
    fault(
        "statistics of further batches are dropped",
        "probe/merge.py",
        "                a.stats = a.stats + b.stats",
        "                pass",
        "guards probe",
    ),
    fault("a broken batch is merged", "probe/merge.py", "    if more.error is not None:\n        return\n", "", "guards"),
    fault(
        "gradients of further batches are dropped",
        "probe/merge.py",
        "parameter.gradient = there.gradient if parameter.gradient is None else parameter.gradient + there.gradient",
        "pass",
        "guards",
    ),
    # triage
    fault(
        "triage ignores formats on a line",
        "judging/triage.py",
        "            return _formats(symptom) <= _formats(cause) or not cause.precisions",
        "            return True",
        "guards test_verdict.py",
    ),
    fault(
        "triage ignores formats of the whole model",
        "judging/triage.py",
        "        return _formats(symptom) <= _formats(cause)\n    reached",
        "        return True\n    reached",
        "guards",
    ),
    fault("autocast is another format", "judging/triage.py", 'precision.removeprefix("amp-")', "precision", "guards"),
    fault(
        "the milder severity stays",
        "judging/triage.py",
        "        if finding.severity.rank > first.severity.rank:",
        "        if finding.severity.rank < first.severity.rank:",
        "guards",
    ),
    fault(
        "a consequence does not raise its cause",
        "judging/triage.py",
        "        if finding.severity.rank > cause.severity.rank:",
        "        if False:",
        "guards",
    ),
    # verdicts
    fault(
        "an error does not fail the precision",
        "judging/verdict.py",
        '(fatal, "fails")',
        '(fatal, "at-risk")',
        "test_verdict.py guards",
    ),
    fault(
        "errors that do not block count for nothing",
        "judging/verdict.py",
        "f.severity is Severity.ERROR and verdict.name in f.precisions and not rule_of(f).blocks",
        "False",
        "test_verdict.py guards",
    ),
    fault(
        "a loss that is not finite is fine",
        "judging/verdict.py",
        '"the loss" if run.loss is None or not isfinite(run.loss) else gradient',
        "gradient",
        "test_verdict.py guards",
    ),
    fault(
        "a gradient that is not finite is fine",
        "judging/verdict.py",
        "    gradient = run.nonfinite_gradient\n",
        "    gradient = None\n",
        "test_verdict.py guards",
    ),
    fault(
        "the row names no line",
        "judging/verdict.py",
        "            if blamed.location is not None:\n                verdict.where",
        "            if False:\n                verdict.where",
        "test_verdict.py guards",
    ),
    fault(
        "descent needs a twentieth",
        "evidence/numbers/descent.py",
        "DESCENDS = 0.5",
        "DESCENDS = 0.05",
        "evidence/test_descent.py guards",
    ),
    fault(
        "doubt ten times later", "evidence/numbers/descent.py", "DOUBT = 0.25", "DOUBT = 2.5", "evidence/test_descent.py guards"
    ),
    fault(
        "noise is never too much",
        "evidence/numbers/descent.py",
        "noisy = outputs is not None or error > (1.0 if sampling is None else sampling)",
        "noisy = False",
        "evidence/test_descent.py guards",
    ),
    fault(
        "a vanished gradient descends",
        "evidence/numbers/descent.py",
        "    if length < GONE:",
        "    if False:",
        "evidence/test_descent.py guards",
    ),
    fault(
        "a rough loss is relied on",
        "evidence/numbers/descent.py",
        "found.actual >= DESCENDS * found.predicted > 0",
        "True",
        "evidence/test_descent.py guards",
    ),
    # loss scale
    fault(
        "no headroom above the scaled gradient",
        "evidence/numbers/loss_scale.py",
        "HEADROOM_BITS = 3",
        "HEADROOM_BITS = 0",
        "guards",
    ),
    fault(
        "a scale for every format",
        "evidence/numbers/loss_scale.py",
        'if format.name != "float16" or base is None:',
        "if base is None:",
        "guards",
    ),
    fault("a float16 loss beyond its range", "evidence/numbers/loss_scale.py", "else 2.0**15", "else 2.0**24", "guards"),
    # persistence
    fault(
        "what fades stays an error",
        "judging/persistence.py",
        "            finding.severity = finding.fades",
        "            pass",
        "test_persistence.py",
    ),
    fault(
        "what is gone is reported",
        "judging/persistence.py",
        "                continue\n",
        "                pass\n",
        "test_persistence.py",
    ),
    fault(
        "as bad as where it is worst",
        "judging/persistence.py",
        "min((finding.severity, *known)",
        "max((finding.severity, *known)",
        "test_persistence.py",
    ),
    fault(
        "broken runs are asked",
        "judging/persistence.py",
        'run.precision == "float32" and run.error is None',
        'run.precision == "float32"',
        "test_persistence.py",
    ),
    fault(
        "only seeds are asked",
        "judging/persistence.py",
        " or (run.step == first and first and not run.seed)",
        "",
        "test_persistence.py",
    ),
    # units
    fault(
        "SD201's comparison inverted",
        "rules/sd201_dead_relu.py",
        "evidence.bound > error_share and",
        "evidence.bound < error_share and",
        "rules/test_units.py guards",
    ),
    fault(
        "few samples suffice",
        "rules/sd201_dead_relu.py",
        "evidence.samples < whole_samples or",
        "False or",
        "rules/test_units.py guards",
    ),
    fault(
        "few units suffice", "rules/sd201_dead_relu.py", "evidence.units < least_units", "False", "rules/test_units.py guards"
    ),
    fault(
        "SD201 asks no other run",
        "rules/sd201_dead_relu.py",
        "            finding.still, finding.fades = partial(still, key=key), Severity.INFO\n",
        "",
        "rules/test_units.py guards",
    ),
    fault(
        "SD202 asks no other run",
        "rules/sd202_saturated_activation.py",
        "        finding.still = partial(still, key=evidence.site.key, limit=limit)\n",
        "",
        "rules/test_units.py guards",
    ),
    fault(
        "positions count as samples",
        "evidence/signal/units.py",
        "batch * sqrt(per_call / batch) * calls",
        "per_call * calls",
        "evidence/test_units.py guards",
    ),
    # depth
    fault(
        "SD101 asks for no typical step",
        "rules/sd101_vanishing_gradient.py",
        "course.typical_step >= slope / 2 and ",
        "",
        "rules/test_gradients.py guards",
    ),
    fault(
        "SD101 keeps nothing of its limits",
        "rules/sd101_vanishing_gradient.py",
        "kept: float = 2 / 3",
        "kept: float = 0.0",
        "rules/test_gradients.py guards",
    ),
    fault(
        "SD101 needs no slope",
        "rules/sd101_vanishing_gradient.py",
        "course.decades <= -decades and course.slope >= slope and",
        "course.decades <= -decades and",
        "rules/test_gradients.py guards",
    ),
    # symmetry
    fault("twins may differ by a third", "evidence/signal/twins.py", "TOLERANCE = 1e-3", "TOLERANCE = 0.3", "guards"),
    # blame
    fault(
        "the blame walk stops at once",
        "evidence/numbers/blame.py",
        "        if heaviest is None or heaviest[1] < max(limit / 2, found[1] / 16):",
        "        if True:",
        "guards",
    ),
    fault(
        "the blame walk never stops early",
        "evidence/numbers/blame.py",
        "heaviest[1] < max(limit / 2, found[1] / 16)",
        "False",
        "guards",
    ),
    fault(
        "a choice that fell differently is rounding",
        "evidence/numbers/blame.py",
        "            if _chosen_differently(run, value_id):\n                return None\n",
        "",
        "guards",
    ),
    fault(
        "code that asks for the dtype is rounding",
        "evidence/numbers/blame.py",
        "        if _another_computation(trace, run, lambda r: r.output_error):",
        "        if False:",
        "guards",
    ),
    fault("κ of one perturbation", "evidence/numbers/blame.py", "max([1.0, own, *before])", "own", "guards"),
    # prediction
    fault(
        "autocast's float32 ops are narrow",
        "evidence/numbers/prediction.py",
        "    if autocast and op.name in AUTOCAST_FLOAT32:\n        return False\n",
        "",
        "guards",
    ),
    fault(
        "a written constant overflows",
        "evidence/numbers/prediction.py",
        "largest <= limit or op.name in WRITES_A_CONSTANT or",
        "largest <= limit or",
        "guards",
    ),
    fault(
        "what is not live overflows",
        "evidence/numbers/prediction.py",
        " or not is_live(reference, op.index):\n            continue\n        if any",
        ":\n            continue\n        if any",
        "guards",
    ),
    fault(
        "an overflow of its input overflows again",
        "evidence/numbers/prediction.py",
        "any(_largest(reference, v) > limit for v in op.inputs) or ",
        "",
        "guards",
    ),
    fault(
        "a bounded consumer absorbs nothing",
        "evidence/numbers/prediction.py",
        " or _absorbed(reference, op.outputs[0], output.stats, limit):",
        ":",
        "guards",
    ),
    # poison
    fault(
        "an intended infinity is a birth",
        "evidence/numbers/poison.py",
        "intended=not nan and (op.name in WRITES_A_CONSTANT or constant)",
        "intended=False",
        "evidence/test_poison.py guards",
    ),
    fault(
        "NaN made of an intended infinity is the mask's fault",
        "evidence/numbers/poison.py",
        "        if nan and not guilty:\n            return Birth(op, value)",
        "        if False:\n            return Birth(op, value)",
        "evidence/test_poison.py guards",
    ),
    fault(
        "a broken leaf is the op's fault",
        "evidence/numbers/poison.py",
        "    if broken is not None:\n        return Birth(op, value, leaf=broken)\n",
        "",
        "evidence/test_poison.py guards",
    ),
    fault(
        "nothing heals",
        "evidence/numbers/poison.py",
        "                birth.healed.append(op.index)",
        "                pass",
        "evidence/test_poison.py guards",
    ),
    # counterparts
    fault(
        "a value of another shape is a counterpart",
        "trace/counterpart.py",
        "return found if found.shape == value.shape else None",
        "return found",
        "guards",
    ),
    fault("all calls of a place are one", "trace/counterpart.py", "counts[site] = occurrence + 1", "pass", "guards"),
    # proofs
    fault(
        "a finding that stays is proven",
        "repair/proof.py",
        "if len(still) >= len(like(before, finding)):",
        "if False:",
        "repair",
    ),
    fault(
        "a new finding is no matter",
        "repair/proof.py",
        "    return Refused(Reason.NEW_FINDING, found.code, finding=found) if found is not None else None",
        "    return None",
        "repair",
    ),
    fault(
        "not run is proven",
        "repair/proof.py",
        "    if missing:\n        return Refused(Reason.NOT_RUN, missing[0])\n",
        "",
        "repair",
    ),
    fault(
        "fewer probes are proven",
        "repair/proof.py",
        "            return Refused(Reason.LESS_PROBED, key)",
        "            pass",
        "repair",
    ),
    fault(
        "a worse verdict is proven",
        "repair/proof.py",
        "            return Refused(Reason.WORSE_VERDICT, row.name)",
        "            pass",
        "repair",
    ),
    fault(
        "a state that breaks is proven",
        "repair/proof.py",
        "            return Refused(Reason.BREAKS_AGAIN, state.broken, finding=next(there, None))",
        "            pass",
        "repair",
    ),
    fault(
        "a loss that falls less is proven",
        "repair/proof.py",
        "    if min(after) > lowest + SLACK * (before[0] - lowest):",
        "    if False:",
        "repair",
    ),
    # the gate
    fault(
        "a baseline accepts all of a kind", "gate/baseline.py", "                left[finding.fingerprint] -= 1\n", "", "gate"
    ),
    fault("stale entries are not reported", "gate/baseline.py", "or fingerprint in occurred or", "or True or", "gate"),
]


def main() -> int:
    """Apply, test, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose name or file contains this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [f for f in FAULTS if options.only in f.name or options.only in f.file]
    stale = [f for f in chosen if (ROOT / "stabdiag" / f.file).read_text(encoding="utf-8").count(f.old) != 1]
    for f in stale:
        print(f"stale      {f.file}: {f.name}: its text does not occur once")
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(noticed, (f for f in chosen if f not in stale)))
    share = sum(outcomes) / len(outcomes) if outcomes else 1.0
    print(f"{sum(outcomes)} of {len(outcomes)} noticed ({share:.0%}), {len(stale)} stale")
    return int(share < NOTICED or bool(stale))


def noticed(f: Fault) -> bool:
    """Whether the tests fail on a copy with this fault."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for part in ("stabdiag", "tests", "sample_models", "pyproject.toml"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / part)
        path = copy / "stabdiag" / f.file
        path.write_text(path.read_text(encoding="utf-8").replace(f.old, f.new), encoding="utf-8")
        tests = [f"tests/{name}" for name in f.tests.split()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=900, check=False)
    failed = done.returncode == 1
    print(
        f"{'noticed ' if failed else 'SURVIVED'}   {f.file}: {f.name}"
        + ("" if done.returncode in (0, 1) else f" (pytest exit {done.returncode})"),
        flush=True,
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
