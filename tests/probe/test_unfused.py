"""What runs instead of a fused recurrent kernel computes what the kernel does, values and gradients."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from stabdiag.recording import torch_private, unfused
from tests.probe.recording import record


@pytest.fixture
def decomposed(monkeypatch):
    for name, op_by_op in unfused.decompositions(torch_private.decompositions()).items():
        monkeypatch.setattr(torch._VF, name, op_by_op, raising=False)


def same_as_fused(module, *inputs):
    outputs = module(*inputs)
    flat = torch.utils._pytree.tree_leaves(outputs)
    sum(t.square().sum() for t in flat if isinstance(t, torch.Tensor) and t.requires_grad).backward()
    return [t for t in flat if isinstance(t, torch.Tensor)], [p.grad for p in module.parameters()]


def compared(module, *inputs, request):
    torch.manual_seed(0)
    wanted = same_as_fused(module, *inputs)
    module.zero_grad(set_to_none=True)
    request.getfixturevalue("decomposed")
    for found, expected in zip(same_as_fused(module, *inputs), wanted, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "batch_first": True}, {"bias": False}])
def test_layers(kind, options, request):
    torch.manual_seed(0)
    compared(kind(3, 5, **options), torch.randn(4, 2, 3), request=request)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_packed_sequences(kind, request):
    torch.manual_seed(0)
    packed = pack_padded_sequence(torch.randn(4, 2, 3), torch.tensor([4, 2]))
    compared(kind(3, 5, nonlinearity="relu") if kind is nn.RNN else kind(3, 5), packed, request=request)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_cells(kind, request):
    torch.manual_seed(0)
    compared(kind(3, 5), torch.randn(2, 3), request=request)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(3, 5)

    def forward(self, x):
        return self.memory(x)[0]


def test_ops_of_a_decomposition_are_on_the_authors_line(decomposed):
    run = record(Tagger(), torch.randn(4, 2, 3))
    gates = [op for op in run.ops if op.name == "sigmoid"]
    assert len(gates) == 3 * 4
    assert {op.location.source.strip() for op in gates} == {"return self.memory(x)[0]"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_gates_are_seen_on_cuda(kind):
    seen = []

    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    module = kind(3, 5).cuda()
    with unfused.unfused_recurrence(), Names():
        module(torch.randn(4, 2, 3, device="cuda"))
    assert seen.count("tanh") + seen.count("sigmoid") >= 4
    assert not any("cudnn" in name or "fused" in name for name in seen)
