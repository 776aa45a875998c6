"""What torch does not promise is looked up once; what one lacks is said, and the rest works."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from stabdiag.recording import torch_private


def test_nothing_is_missing_in_the_torch_that_is_tested() -> None:
    assert torch_private.MISSING == []


def test_what_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "MISSING", [])
    assert torch_private._find("_C._gone._at_all", "gradients are not attributed to lines") is None
    assert torch_private._find("_also_gone") is None
    (sentence,) = torch_private.MISSING
    assert sentence == (
        f"torch {torch.__version__} has no torch._C._gone._at_all, so that gradients are not attributed to lines; "
        "torch>=2.6,<2.14 has it"
    )


@pytest.mark.parametrize(
    "name", ["_sequence_number", "_running_node", "_onednn", "_kernels", "_warn_of_loops", "_scale", "_norms"]
)
def test_all_works_without_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch_private, name, None)
    weight = torch.ones(2, requires_grad=True)
    out = weight * 3
    assert torch_private.last_node() in (torch_private.number_of(out.grad_fn), -2)
    assert torch_private.running_node() is None
    with torch_private.without_onednn(), torch_private.kernels_replaced(lambda name, fused: fused, ["lstm"]):
        torch.nn.LSTM(2, 2)(torch.ones(1, 1, 2))
    torch_private.loops_unannounced()
    tensors = [torch.tensor([3.0, 4.0])]
    torch_private.scale_(tensors, 2.0)
    assert [float(n) for n in torch_private.norms(tensors, torch.float64)] == [10.0]


def test_onednn_is_as_before_afterwards() -> None:
    before = torch._C._get_mkldnn_enabled()
    with torch_private.without_onednn():
        assert not torch._C._get_mkldnn_enabled()
    assert torch._C._get_mkldnn_enabled() == before


def test_what_is_replaced_is_put_back_and_what_was_not_there_is_gone() -> None:
    owner = SimpleNamespace(kept=1)
    with pytest.raises(KeyError), torch_private.replaced(owner, kept=2, new=3):
        assert (owner.kept, owner.new) == (2, 3)
        raise KeyError
    assert vars(owner) == {"kept": 1}


def test_kernels_are_called_by_torch_while_they_are_replaced() -> None:
    seen = []

    def noted(name: str, fused: object) -> object:
        return lambda *arguments: seen.append(name) or fused(*arguments)  # type: ignore[operator]

    layer = torch.nn.GRU(2, 2)
    with torch_private.kernels_replaced(noted, ["gru", "no_such_kernel"]):
        layer(torch.ones(1, 1, 2))
    layer(torch.ones(1, 1, 2))
    assert seen == ["gru"] and "gru" not in vars(torch._VF)


def test_a_scaler_is_made_as_if_there_were_a_gpu() -> None:
    with torch_private.as_on_a_gpu():
        assert torch.amp.GradScaler().is_enabled()
