"""The tracer sees every op, says where it came from, and follows values and gradients."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import file as trace_file
from tests.probe.recording import names, record, subject_of


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first(x))
        return self.second(hidden) @ torch.ones(3, 3)


def line_of(cls: type, text: str) -> int:
    lines, start = inspect.getsourcelines(cls)
    return start + next(i for i, line in enumerate(lines) if text in line)


def test_functional_calls_are_seen_with_their_line_and_column() -> None:
    run = record(Functional(), torch.randn(5, 4))
    relu = next(op for op in run.ops if op.name == "relu")
    assert relu.location is not None
    assert relu.location.line == line_of(Functional, "F.relu")
    assert relu.location.source[relu.location.column : relu.location.end_column] == "F.relu(self.first(x))"
    assert relu.location.function == "Functional.forward"
    assert relu.layer == "first"


def test_backward_ops_lead_back_to_their_forward_op() -> None:
    run = record(Functional(), torch.randn(5, 4))
    backward = next(op for op in run.ops if op.name == "threshold_backward")
    assert backward.forward is not None
    assert run.ops[backward.forward].name == "relu"
    assert backward.location is not None
    assert backward.location.line == line_of(Functional, "F.relu")


def test_gradients_of_values_match_autograd() -> None:
    model, x = Functional(), torch.randn(5, 4)
    run = record(model, x)
    hidden = F.relu(model.first(x)).detach().requires_grad_()
    (model.second(hidden) @ torch.ones(3, 3)).square().mean().backward()
    relu = next(op for op in run.ops if op.name == "relu")
    gradient = run.values[relu.outputs[0]].gradient
    assert gradient is not None and hidden.grad is not None
    assert gradient.norm == pytest.approx(float(hidden.grad.norm()), rel=1e-5)
    weight = next(p for p in run.parameters if p.name == "second.weight")
    assert weight.gradient is not None and weight.gradient.count == 18


def test_values_flow_through_views_and_in_place_ops() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            y.mul_(2.0)
            return y.view(-1).exp()

    run = record(InPlace(), torch.randn(2, 4))
    exp = next(op for op in run.ops if op.name == "exp")
    source = run.producer(run.behind_views(exp.inputs[0]))
    assert source is not None and source.name == "mul"
    assert source.attributes["other"] == 2.0
    addmm = run.producer(source.inputs[0])
    assert addmm is not None and addmm.name == "addmm"


def test_recurrent_gates_are_seen() -> None:
    model = nn.LSTM(3, 5, batch_first=True)
    run = record(model, torch.randn(2, 4, 3), loss=lambda out: out[0].square().mean())
    assert names(run, "forward").count("sigmoid") == 4 * 3
    assert names(run, "forward").count("tanh") == 4 * 2


def test_attention_is_seen_inside_scaled_dot_product_attention() -> None:
    class Attention(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    run = record(Attention(), torch.randn(1, 2, 4, 8, requires_grad=True))
    assert any("softmax" in name for name in names(run, "forward"))


def test_a_shared_module_is_told_apart_by_call_and_a_shared_activation_by_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = self.act(layer(x))
            return x

    run = record(Twice(), torch.randn(2, 4))
    relus = [op for op in run.ops if op.name == "relu"]
    assert [op.call for op in relus] == [0, 1, 2]
    assert [op.layer for op in relus] == ["layers.0", "layers.1", "layers.2"]
    assert len({op.site for op in relus}) == 3


def test_time_steps_of_one_cell_are_one_site() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = torch.tanh(self.cell(x))
            return x

    run = record(Loop(), torch.randn(2, 4))
    assert len({op.site for op in run.ops if op.name == "tanh"}) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_models_run(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(checkpoint(lambda t: torch.tanh(self.a(t)), x, use_reentrant=reentrant))

    run = record(Checkpointed(), torch.randn(2, 4, requires_grad=True))
    assert run.error is None
    assert all(p.gradient is not None for p in run.parameters)


def test_parametrised_weights_belong_to_their_module() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU())
    run = record(model, torch.randn(2, 4))
    assert next(op for op in run.ops if op.name == "relu").layer == "0"
    assert {p.module for p in run.parameters} == {"0"}


def test_gradient_penalty_inside_forward() -> None:
    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.requires_grad_()
            score = torch.tanh(self.fc(x)).sum()
            (gradient,) = torch.autograd.grad(score, x, create_graph=True)
            return gradient.square().sum(1)

    run = record(Penalty(), torch.randn(2, 4))
    assert run.error is None and run.loss is not None


def test_outputs_in_dicts_and_dataclasses_are_found() -> None:
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor
        extra: object = None

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"out": Output(self.fc(x)), "flag": x > 0, "name": "text"}

    run = record(Wrapped(), torch.randn(2, 4), loss=lambda out: out["out"].logits.square().mean())
    assert [run.values[i].shape for i in run.outputs] == [(2, 2)]


def test_an_exception_in_forward_ends_the_run_with_one_sentence() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2) @ torch.ones(7, 7)

    run = record(Broken(), torch.randn(2, 4))
    assert run.error is not None and "\n" not in run.error
    assert "mul" in names(run, "forward")


def test_unit_dimension_is_followed_through_layouts() -> None:
    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv1d(3, 6, 3), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x).relu()  # N, 6, T
            return self.fc(y.transpose(1, 2)).sigmoid()  # N, T, 5

    run = record(Conv(), torch.randn(2, 3, 9))
    relu, sigmoid = (next(op for op in run.ops if op.name == n) for n in ("relu", "sigmoid"))
    assert run.values[relu.outputs[0]].unit_dim == 1
    assert run.values[relu.inputs[0]].unit_dim == 1
    assert run.values[sigmoid.outputs[0]].unit_dim == 2


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_outputs_that_wrap_other_tensors_are_left_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.fc(x)
            return y, torch.nested.nested_tensor([y[0], y[1]], layout=torch.jagged)

    request = ScanRequest("model.py")
    trace = probe(subject_of(Net(), torch.randn(16, 8), loss=lambda out: out[0].square().mean()), request)
    assert all(run.error is None for run in trace.runs)
    assert trace_file.loads(trace_file.dumps(trace)).run("float32") is not None


def test_a_weight_without_elements_is_recorded() -> None:
    model = Functional()
    model.unused = nn.Parameter(torch.empty(0, 4))
    run = record(model, torch.randn(5, 4))
    assert run.error is None
    assert [p.fan_in for p in run.parameters if p.name == "unused"] == [None]
