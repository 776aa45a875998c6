"""What a loss scale multiplies in the backward pass: hand-made traces."""

from __future__ import annotations

from stabdiag.evidence.numbers.poison import Birth, carriers, overflowed
from stabdiag.trace import Op, Run, Stats, Value
from stabdiag.trace.counterpart import Counterparts
from stabdiag.trace.formats import format_of


def backward(precision: str, scale: float, largest: float) -> Run:
    """loss → ones → scaled; h → h² (a factor of a derivative); scaled · h²."""
    run = Run(precision, loss_scale=scale)
    run.values = [Value("parameter", "h", None, precision, (4,)), Value("result", "", 0, precision, ())]
    run.ops = [Op(0, "mean", "loss", "", "", 0, "", None, [0], [1])]
    for name, inputs in (("ones_like", [1]), ("full_like", [2]), ("pow", [0]), ("mul", [3, 4])):
        index, value = len(run.ops), len(run.values)
        stats = Stats(count=4, posinf=1) if largest > 65504 and precision == "float16" else Stats(count=4, max_abs=largest)
        run.values.append(Value("result", "", index, precision, (4,), stats=stats))
        run.ops.append(Op(index, name, "backward", "", "", 0, "", None, inputs, [value]))
    return run


def test_factors_of_derivatives_carry_no_gradient() -> None:
    run = backward("float16", 4096.0, 1.0)
    assert carriers(run) == {2, 3, 5}


def test_a_scale_multiplies_what_carries_the_gradient_only() -> None:
    half, double = backward("float16", 4096.0, 9.3e6), backward("float64", 1.0, 9.3e6)
    there, format = Counterparts(half, double), format_of("float16")
    sizes = {op.name: overflowed(half, Birth(op, half.values[op.outputs[0]]), there, format) for op in half.phase("backward")}
    assert sizes["pow"] == 9.3e6
    assert sizes["mul"] == 9.3e6 * 4096
