"""Verdicts: predicted, measured, with islands; FP8 is predicted only."""

from __future__ import annotations

import importlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import PrecisionVerdict
from stabdiag.judging.triage import triage
from stabdiag.judging.verdict import verdicts
from stabdiag.rule import all_rules
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, Op, Run, Stats, SubjectFacts, Trace, Value
from tests.rule_examples import expected_lines, scanned
from tests.rules.test_numbers import HEALTHY, SICK


def test_an_island_is_found_and_confirmed(tmp_path: Path) -> None:
    verdicts = {v.name: v for v in scanned(SICK["healed-rms-norm"], tmp_path).precisions}
    assert verdicts["float16"].verdict == "fails"
    assert verdicts["float16"].predicted == "fails"
    lines = {int(place.rpartition(":")[2]) for place in verdicts["float16"].float32_islands}
    assert lines == expected_lines(SICK["healed-rms-norm"], "SD302")
    assert verdicts["bfloat16"].verdict == "safe"


def test_no_island_where_nothing_fails(tmp_path: Path) -> None:
    assert all(not v.float32_islands for v in scanned(HEALTHY["centring"], tmp_path).precisions)


def test_fp8_is_predicted_and_never_run(tmp_path: Path) -> None:
    asked = ["float32", "float8_e4m3fn", "float8_e5m2"]
    verdicts = {v.name: v for v in scanned(HEALTHY["minimum-masks"], tmp_path, precisions=asked).precisions}
    assert [verdicts[name].mode for name in asked[1:]] == ["predicted", "predicted"]
    assert verdicts["float8_e4m3fn"].verdict == "safe-with-scaling"
    assert verdicts["float8_e4m3fn"].output_error < verdicts["float8_e5m2"].output_error


def test_a_prediction_that_is_better_than_the_measurement_is_not_told_beside_it(tmp_path: Path) -> None:
    float16 = next(v for v in scanned(SICK["normalise-padding"], tmp_path).precisions if v.name == "float16")
    assert float16.verdict == "fails" and float16.predicted == "safe"
    assert "predicted" not in float16.reason


TINY_LOSS = """
import torch
from torch import nn

def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))

def example_inputs():
    return (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)

def loss(output):
    return 1e-7 * output.square().mean()
"""


def test_what_a_loss_scale_brings_back_is_safe_with_it(tmp_path: Path) -> None:
    report = scanned(TINY_LOSS, tmp_path)
    assert [f.severity for f in report.findings if f.code == "SD104"] == ["error"]
    float16 = next(v for v in report.precisions if v.name == "float16")
    assert float16.verdict == float16.predicted == "safe-with-scaling"
    assert float16.loss_scale > 1 and float16.gradient_error < 0.1


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}
ARCHITECTURES = {
    "Bert": ("BertConfig", "BertModel", SMALL),
    "Roberta": ("RobertaConfig", "RobertaModel", SMALL),
    "Electra": ("ElectraConfig", "ElectraModel", {**SMALL, "embedding_size": 32}),
    "Llama": ("LlamaConfig", "LlamaModel", SMALL),
    "Mistral": ("MistralConfig", "MistralModel", {**SMALL, "num_key_value_heads": 2}),
    "Qwen2": ("Qwen2Config", "Qwen2Model", {**SMALL, "num_key_value_heads": 2}),
    "Phi": ("PhiConfig", "PhiModel", SMALL),
    "GPTNeoX": ("GPTNeoXConfig", "GPTNeoXModel", SMALL),
    "GPT2": ("GPT2Config", "GPT2Model", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "OPT": ("OPTConfig", "OPTModel", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "Bloom": ("BloomConfig", "BloomModel", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "DistilBert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99},
    ),
    "MPNet": ("MPNetConfig", "MPNetModel", SMALL),
}
FILE = """
import torch
from transformers import {config}, {model}


def build_model():
    torch.manual_seed(0)
    return {model}({config}(**{options}))


def example_inputs():
    return {{"input_ids": torch.randint(3, 99, (3, 24), generator=torch.Generator().manual_seed(0))}}


def loss(output):
    hidden = output.last_hidden_state
    return torch.nn.functional.cross_entropy(hidden.flatten(0, 1), torch.arange(72) % hidden.shape[-1])
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prediction_agrees_with_measurement_on_real_architectures(name: str, tmp_path: Path) -> None:
    config, model, options = ARCHITECTURES[name]
    importlib.import_module("transformers")
    path = tmp_path / "model.py"
    path.write_text(FILE.format(config=config, model=model, options=options))
    report = scan_here(ScanRequest(target=str(path), seeds=1, batches=1))
    assert [f.message for f in report.findings if f.severity == "error"] == []
    for verdict in report.precisions:
        assert verdict.verdict in ("safe", "safe-with-scaling"), verdict
        assert verdict.predicted == verdict.verdict, verdict


def test_gradients_that_are_not_finite_fail_although_the_loss_is(tmp_path):
    from stabdiag.scanning.pipeline import scan_here
    from stabdiag.settings.request import ScanRequest

    path = tmp_path / "model.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = nn.Linear(4, 4)\n\n    def forward(self, x):\n        y = self.fc(x)\n"
        "        return torch.sqrt((y[:, None] - y[None]).square().sum(-1))\n\n"
        "def example_inputs():\n    return torch.randn(6, 4)\n\ndef loss(out):\n    return out.mean()\n"
    )
    report = scan_here(ScanRequest(target=str(path)))
    assert {v.name: v.verdict for v in report.precisions}["float32"] == "fails"


def trace_of(*runs: Run) -> Trace:
    """A trace whose reference run is one finite op."""
    reference = run_of("float64", 1.0)
    return Trace(SubjectFacts("model.py", "Net", 0, "", ""), runs=[reference, *runs])


def run_of(precision: str, largest: float, loss: float = 1.0, infinite: int = 0, **more: Any) -> Run:
    """One op of the forward pass whose result reaches `largest` and is the output and the loss."""
    stats = Stats(count=4, max_abs=largest, max=largest, min=-largest, posinf=infinite, sampled=4, sum_sq=4 * largest**2)
    run = Run(precision, loss=loss, outputs=[1], loss_value=1, **more)
    run.values = [Value("input", "x", None, precision, (4,)), Value("result", "", 0, precision, (4,), stats=stats)]
    run.ops = [Op(0, "mul", "forward", "", "", 0, "", Location("model.py", 7), [0], [1])]
    return run


def row(trace: Trace, *findings: Finding, precision: str = "float16") -> PrecisionVerdict:
    return verdicts(trace, list(findings), [precision])[0]


def finding(code: str, severity: Severity, *precisions: str, line: int = 12) -> Finding:
    return all_rules()[code].finding(severity, "told", precisions=list(precisions), location=Location("model.py", line))


def test_nothing_is_safe_above_an_error_of_the_precision() -> None:
    trace = trace_of(run_of("float16", 1.0))
    dead = finding("SD201", Severity.ERROR, "float32", "float16")
    assert (row(trace, dead).verdict, row(trace, dead).where) == ("at-risk", "model.py:12")
    assert row(trace, finding("SD201", Severity.ERROR, "float32")).verdict == "safe"
    assert row(trace, finding("SD201", Severity.WARNING, "float16")).verdict == "safe"


def test_what_blocks_a_precision_fails_it() -> None:
    trace = trace_of(run_of("float16", 1.0))
    assert row(trace, finding("SD301", Severity.ERROR, "float16")).verdict == "fails"
    assert row(trace, finding("SD301", Severity.WARNING, "float16")).verdict == "at-risk"


def test_a_finding_fails_no_precision_in_which_it_is_mild() -> None:
    single, half = finding("SD501", Severity.WARNING, "float32"), finding("SD501", Severity.ERROR, "float16")
    for order in ([single, half], [half, single]):
        merged = triage([deepcopy(f) for f in order])
        assert [f.precisions for f in merged] == [["float32", "float16"]]
        trace = trace_of(run_of("float16", 1.0), run_of("float32", 1.0))
        assert row(trace, *merged).verdict == "fails"
        assert row(trace, *merged, precision="float32").verdict == "at-risk"


def test_the_numbers_decide_where_they_are_worse_than_the_findings() -> None:
    trace = trace_of(run_of("float16", 1.0, gradient_error=1.0, gradient_projection=0.0))
    told = row(trace, finding("SD303", Severity.WARNING, "float16"))
    assert (told.verdict, told.where) == ("fails", "model.py:12")


def test_noise_that_is_less_than_that_of_samples_is_told_and_safe() -> None:
    trace = trace_of(run_of("float32", 1.0, gradient_error=0.13, gradient_projection=0.99))
    told = row(trace, precision="float32")
    assert told.verdict == "safe" and "13%" in told.reason
    trace = trace_of(run_of("float32", 1.0, gradient_error=0.01, gradient_projection=0.99))
    assert row(trace, precision="float32").reason == ""


def test_headroom_is_negative_where_values_overflow() -> None:
    trace = trace_of(run_of("float16", 3e4, infinite=1))
    trace.runs[0] = run_of("float64", 4 * 65504.0)
    assert row(trace).headroom_bits == pytest.approx(-2.0)
    inside = trace_of(run_of("float16", 3e4, infinite=1))  # what overflowed inside a kernel is not in the reference
    assert row(inside).headroom_bits is None
    assert row(trace_of(run_of("float16", 65504 / 4))).headroom_bits == pytest.approx(2.0)
