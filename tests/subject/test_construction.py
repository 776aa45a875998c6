"""Which line of the author's made the content of a tensor."""

import copy

import torch
from torch import nn

from stabdiag.recording.source import callers
from stabdiag.subject.construction import Construction, recording
from stabdiag.trace import Location, Parameter


def located(construction: Construction, tensor: torch.Tensor) -> Parameter:
    parameter = Parameter("w", "", "", tuple(tensor.shape), True)
    construction.locate(parameter, tensor)
    return parameter


def source(at: Location | None) -> str:
    return "" if at is None else at.source.strip()


def bias(value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((4,), value))


def test_a_factory_counts_as_writing_and_its_caller_is_known() -> None:
    with recording() as construction:
        low = bias(-2.0)
    found = located(construction, low)
    assert "torch.full" in source(found.initialised_at)
    assert "low = bias" in source(found.initialised_for)


def test_a_view_is_no_writing_and_the_last_write_wins() -> None:
    with recording() as construction:
        weight = nn.Parameter(torch.randn(4, 3))
        weight.t()
        assert "randn" in source(located(construction, weight).initialised_at)
        nn.init.ones_(weight)
    assert "ones_" in source(located(construction, weight).initialised_at)


def test_a_copy_keeps_where_its_content_is_from() -> None:
    with recording() as construction:
        layer = nn.Linear(3, 4)
        other = copy.deepcopy(layer)
    found = located(construction, other.weight)
    assert "nn.Linear" in source(found.initialised_at)
    assert "deepcopy" in source(found.copied_at)
    assert located(construction, layer.weight).copied_at is None


def test_the_line_of_the_function_that_was_asked_for_data() -> None:
    def table() -> torch.Tensor:
        columns = torch.randn(8, 2)
        columns[:, 1] = 1e6
        return columns

    with recording() as construction:
        rows = table()
        whole = rows.double()
    for tensor in (rows, whole):
        assert "table()" in source(construction.written[tensor.untyped_storage().data_ptr()][1])


def test_frames_of_the_author_come_innermost_first() -> None:
    frames = callers()
    assert frames and "callers()" in source(frames[0])
