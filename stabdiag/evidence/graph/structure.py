"""What a model is made of, as the fixes need it: its weights with their scales and neighbours, and the class of each module."""

from __future__ import annotations

from dataclasses import dataclass

from stabdiag.evidence.graph.main_path import is_layer, main_path
from stabdiag.evidence.signal.depth import data_of, over_time, weights_of
from stabdiag.evidence.signal.initialisation import LayerScale, layer_scales
from stabdiag.trace import Op, Parameter, Run, Trace

_CARRIES = frozenset(["mul", "div", "add", "native_dropout", "dropout", "clone", "_to_copy"])


@dataclass(slots=True)
class Weight:
    """One weight of two or more dimensions and what stands around it, as the fixes read it. Not part of the JSON report.

    Attributes:
        name, module, kind: parameter name, path and class name of the module that owns it; shape: sizes.
        fan_in: inputs of one unit; units: size of the result's unit dimension, 0 if unknown.
        gain: std·√fan_in; wanted: the gain that the next nonlinearity wants; nonlinearity: its aten name, "" for none;
            normalised: whether a normalisation comes before it.
        recurrent: applied to its own result over time; ends_branch: the last weight of a residual branch.
        reads_input: applied to the model's input itself, which has input_channels features and input_dims dimensions.
        bias: name of the bias next to it, "" without one; bias_mean: its mean.
        loaded: the weight came from a file.
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    fan_in: int
    units: int
    gain: float
    wanted: float
    nonlinearity: str = ""
    normalised: bool = False
    recurrent: bool = False
    ends_branch: bool = False
    reads_input: bool = False
    input_channels: int = 0
    input_dims: int = 0
    bias: str = ""
    bias_mean: float = 0.0
    loaded: bool = False

    @property
    def ratio(self) -> float:
        """Gain over what is wanted; 1 is right."""
        return self.gain / self.wanted


def modules_of(trace: Trace) -> dict[str, str]:
    """Class name of every module that ran an op or owns a parameter, by path; "" is the model itself."""
    run = trace.base
    if run is None:
        return {}
    found = {op.module: op.module_type for op in run.phase("forward")}
    return found | {p.module: p.module_type for p in run.parameters}


def weights_of_model(trace: Trace) -> list[Weight]:
    """Every weight that a layer of the base run applies, in order of execution."""
    run = trace.base
    if run is None:
        return []
    recurrent = {course.weight for course in over_time(run)}
    ends = _branch_ends(run)
    vectors = {p.name: p for p in run.parameters if len(p.shape) == 1}
    return [_weight(run, scale, recurrent, ends, vectors) for scale in layer_scales(run)]


def _weight(run: Run, scale: LayerScale, recurrent: set[str], ends: set[str], vectors: dict[str, Parameter]) -> Weight:
    parameter, op = scale.parameter, scale.op
    read = run.values[run.behind_views(data_of(run, op))]
    output = run.output_of(op)
    bias = vectors.get(parameter.name.replace("weight", "bias"))
    units = output.shape[output.unit_dim] if output is not None and output.unit_dim is not None and output.shape else 0
    channels = read.shape[-1] if "conv" not in op.name and read.shape else read.shape[1] if len(read.shape) > 1 else 0
    return Weight(
        name=parameter.name,
        module=parameter.module,
        kind=parameter.module_type,
        shape=parameter.shape,
        fan_in=scale.fan_in,
        units=units,
        gain=scale.gain,
        wanted=scale.wanted,
        nonlinearity=scale.nonlinearity,
        normalised=scale.normalised,
        recurrent=parameter.name in recurrent,
        ends_branch=parameter.name in ends,
        reads_input=read.kind == "input",
        input_channels=channels,
        input_dims=len(read.shape),
        bias=bias.name if bias is not None and bias.name != parameter.name else "",
        bias_mean=bias.stats.mean if bias is not None and bias.stats is not None else 0.0,
        loaded=parameter.loaded,
    )


def _branch_ends(run: Run) -> set[str]:
    """Weights whose result is added to the main path without lying on it: the last of each residual branch."""
    stations = [s.op for s in main_path(run)]
    on_path = {op.index for op in stations}
    ends: set[str] = set()
    for op in stations:
        if op.name == "add" and len(op.inputs) == 2:
            for value_id in op.inputs:
                layer = _layer_behind(run, value_id)
                if layer is not None and layer.index not in on_path:
                    ends.update(weights_of(run, layer))
    return ends


def _layer_behind(run: Run, value_id: int, limit: int = 12) -> Op | None:
    """The layer whose result reaches a value through views, dropout and scalings only."""
    front = [value_id]
    for _ in range(limit):
        if not front:
            break
        op = run.producer(run.behind_views(front.pop(0)))
        if op is None:
            continue
        if is_layer(run, op):
            return op
        if op.name in _CARRIES:
            front.extend(op.inputs)
    return None
