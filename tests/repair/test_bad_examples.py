"""Every rule's own Bad example is repaired: the finding is gone, proven by a second scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.finding import Severity
from stabdiag.repair.search import prove
from stabdiag.rule import all_rules
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from tests.rule_examples import example

SOURCE_EDITS = {
    "SD103": "straight-through",
    "SD202": "standardise-data",
    "SD301": "non-empty-reduction",
    "SD303": "float32-island",
    "SD304": "float32-island",
    "SD305": "integer-positions",
    "SD403": "unmask-one-key",
    "SD501": "float32-phases",
    "SD503": "direct-difference",
    "SD505": "larger-epsilon",
    "SD601": "log-softmax",
    "SD602": "bce-with-logits",
    "SD603": "softmax",
    "SD604": "softplus",
    "SD605": "clamp-exponent",
    "SD606": "vector-norm",
    "SD607": "sanitise-input",
    "SD608": "guarded-division",
    "SD609": "two-pass-variance",
    "SD610": "scale-before",
    "SD611": "small-argument",
    "SD612": "sigmoid-for-softmax",
    "SD703": "scale-pixels",
}


@pytest.mark.long
@pytest.mark.parametrize(("code", "remedy"), SOURCE_EDITS.items())
def test_the_bad_example_of_a_rule_is_repaired_by_an_edit(code: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(example(all_rules()[code], "Bad"))
    outcome = prove(ScanRequest(str(path)), scan_here, lambda finding: finding.code == code)
    assert [a.fix.name for a in outcome.accepted][:1] == [remedy], [(a.fix.name, a.fix.note) for a in outcome.attempts]
    assert not [f for f in outcome.after.findings if f.code == code and f.severity is not Severity.INFO]
    fixed = tmp_path / "fixed.py"
    fixed.write_text(outcome.state.texts[str(path.resolve())])
    assert code not in {f.code for f in scan_here(ScanRequest(str(fixed))).findings if f.severity is not Severity.INFO}
