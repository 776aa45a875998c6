"""Inputs: declared, read, given, inferred."""

import numpy
import pytest
import torch

from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

LINEAR = "def build_model(): return nn.Linear(4, 3)\n"
TWO = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(50, 8), nn.Linear(8, 2)
    def forward(self, ids, mask=None, scale=1.0):
        h = self.tokens(ids)
        if mask is not None:
            h = h * mask[..., None]
        return self.head(h.mean(1)) * scale
"""


def same(a, b):
    pairs = zip((*a.args, *a.kwargs.values()), (*b.args, *b.kwargs.values()), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_inferred_batches_differ_and_repeat(loaded):
    subject = loaded(LINEAR)
    assert subject.batches > 1
    assert same(subject.batch(2), subject.batch(2)) and not same(subject.batch(2), subject.batch(3))


def test_every_call_is_a_fresh_copy(loaded):
    for code in (LINEAR, LINEAR + "data = torch.ones(2, 4)\ndef example_inputs(): return (data,)"):
        subject = loaded(code)
        subject.batch(0).args[0].zero_()
        assert subject.batch(0).args[0].abs().sum() > 0


def test_declared_inputs_that_draw_give_several_batches(loaded):
    drawing = loaded(LINEAR + "def example_inputs(): return {'input': torch.randn(5, 4)}")
    assert drawing.batches > 1 and not same(drawing.batch(0), drawing.batch(1))
    assert drawing.facts.declared == ["inputs"] and drawing.facts.inputs == "input 5×4"
    fixed = loaded(LINEAR + "def example_inputs(): return torch.ones(5, 4)")
    assert fixed.batches == 1 and same(fixed.batch(0), fixed.batch(1))
    seeded = loaded(LINEAR + "def example_inputs(): return (torch.randn(5, 4, generator=torch.Generator().manual_seed(1)),)")
    assert seeded.batches == 1
    ragged = loaded(LINEAR + "def example_inputs(): return (torch.randn(int(torch.randint(2, 2000, ())), 4),)")
    assert ragged.batches == 1  # draws of different shape are different things


def test_integers_stay_integers(loaded):
    subject = loaded(TWO)
    assert subject.batch(0).args[0].dtype == torch.int64 and subject.batch(0).args[0].max() < 50


@pytest.mark.parametrize(
    ("specifications", "shape", "high"),
    [(["ids=4x7:int64<10"], (4, 7), 10), (["4x7:int64<10"], (4, 7), 10), (["ids=4x7:int64<10", "mask=4x7"], (4, 7), 10)],
)
def test_given_on_the_command_line(loaded, specifications, shape, high):
    subject = loaded(TWO, input_specs=specifications)
    inputs = subject.batch(0)
    assert tuple(inputs.args[0].shape) == shape and inputs.args[0].max() < high
    assert len(inputs.args) + len(inputs.kwargs) == len(specifications)
    assert "--input" in subject.facts.how["inputs"]


def test_given_partly_the_rest_is_inferred(loaded):
    code = """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.image, self.table = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
            def forward(self, image, table): return self.image(image).mean((2, 3)) + self.table(table)
        """
    subject = loaded(code, input_specs=["image=4x3x20x24"])
    shapes = [tuple(a.shape) for a in subject.batch(0).args]
    assert shapes == [(4, 3, 20, 24), (4, 5)]


def test_read_from_files(write, tmp_path):
    path = str(write(LINEAR))
    torch.save((torch.ones(6, 4), torch.zeros(6, dtype=torch.long)), tmp_path / "pair.pt")
    numpy.savez(tmp_path / "named.npz", input=numpy.ones((6, 4)), label=numpy.zeros(6))
    numpy.save(tmp_path / "bare.npy", numpy.ones((200, 4), dtype=numpy.float32))
    from safetensors.torch import save_file

    save_file({"input": torch.ones(6, 4)}, tmp_path / "named.safetensors")
    for name in ("pair.pt", "named.npz", "named.safetensors"):
        subject = load(path, data=str(tmp_path / name))
        (tensor,) = (*subject.batch(0).args, *subject.batch(0).kwargs.values())
        assert tensor.shape == (6, 4) and tensor.dtype == torch.float32
        assert subject.facts.declared == ["inputs"] and subject.batches == 1
    large = load(path, data=str(tmp_path / "bare.npy"))
    assert large.batches == 3 and large.batch(1).args[0].shape == (64, 4)
    (tmp_path / "rubbish.pt").write_text("rubbish")
    with pytest.raises(SubjectError, match="cannot be read"):
        load(path, data=str(tmp_path / "rubbish.pt"))


def test_the_files_own_example_is_used(loaded):
    subject = loaded("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)
            def forward(self, x): return self.conv(x).mean((2, 3))
        def test():
            x = torch.randn(1, 3, 50, 70)
            print(Net()(x).shape)
        """)
    assert tuple(subject.batch(0).args[0].shape[1:]) == (3, 50, 70)
    assert "line" in subject.facts.how["inputs"]


REPAIRED = {
    "concatenated": (
        """
        def __init__(self):
            super().__init__()
            self.labels, self.net = nn.Embedding(10, 10), nn.Linear(60, 20)
        def forward(self, noise, labels): return self.net(torch.cat([noise, self.labels(labels)], 1)).tanh()
        """,
        [(50,), ()],
    ),
    "pair": (
        """
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
        def forward(self, anchor, positive, negative):
            return self.net(anchor) - self.net(positive) + self.net(negative)
        """,
        [(4, 128)] * 3,
    ),
    "sequence length": (
        """
        def __init__(self):
            super().__init__()
            self.project, self.position = nn.Linear(6, 16), nn.Parameter(torch.zeros(1, 30, 16))
        def forward(self, x): return (self.project(x) + self.position).mean(1)
        """,
        [(30, 6)],
    ),
    "downsampled by 32": (
        """
        def __init__(self):
            super().__init__()
            widths = [3, 4, 4, 4, 4, 4]
            self.body = nn.Sequential(*[nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:])])
            self.head = nn.Linear(4 * 7 * 7, 10)
        def forward(self, x): return self.head(self.body(x).flatten(1))
        """,
        [(3, 224, 224)],
    ),
    "diffusion": (
        """
        def __init__(self):
            super().__init__()
            self.embed, self.conv, self.out = nn.Embedding(100, 8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        def forward(self, x, t): return self.out(self.conv(x) + self.embed(t)[:, :, None, None])
        """,
        [(3, 32, 32), ()],
    ),
    "hand-written": (
        """
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9, 5))
        def forward(self, x): return x @ self.weight
        """,
        [(9,)],
    ),
    "boolean padding": (
        """
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        def forward(self, ids, pad):
            h = self.embed(ids)
            h, _ = self.attention(h, h, h, key_padding_mask=pad)
            return self.head((h * (~pad)[..., None]).sum(1) / (~pad).sum(1, keepdim=True))
        """,
        [(24,), (24,)],
    ),
    "patches": (
        """
        def __init__(self):
            super().__init__()
            self.patch, self.mix, self.head = nn.Linear(3 * 64, 16), nn.Linear(36, 36), nn.Linear(16, 4)
        def forward(self, x):
            b, c, h, w = x.shape
            x = x.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * 64)
            return self.head(self.mix(self.patch(x).transpose(1, 2)).mean(2))
        """,
        [(3, 48, 48)],
    ),
    "split features": (
        """
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 6)
        def forward(self, x):
            a, b = x.chunk(2, 1)
            scale, shift = self.net(a).chunk(2, 1)
            return torch.cat([a, b * scale.tanh().exp() + shift], 1)
        """,
        [(6,)],
    ),
    "features before tokens": (
        """
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(90, 32), nn.LSTM(32, 48, batch_first=True)
        def forward(self, features, captions):
            return self.rnn(torch.cat([features[:, None], self.embed(captions)], 1))[0]
        """,
        [(32,), (24,)],
    ),
    "required mask": (
        """
        def __init__(self):
            super().__init__()
            self.embed, self.rnn, self.score = nn.Embedding(200, 24), nn.GRU(24, 32, batch_first=True), nn.Linear(32, 1)
        def forward(self, x, mask):
            h = self.rnn(self.embed(x))[0]
            weights = self.score(h)[..., 0].masked_fill(mask == 0, float("-inf")).softmax(1)
            return (weights[..., None] * h).sum(1)
        """,
        [(24,), (24,)],
    ),
    "differentiates inside": (
        """
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        def forward(self, x):
            x = x.requires_grad_(True)
            return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]
        """,
        [(2,)],
    ),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_found_by_trying(case, loaded):
    body, shapes = REPAIRED[case]
    subject = loaded("class Net(nn.Module):\n" + body.replace("\n        ", "\n    "))
    inputs = subject.batch(0)
    values = [*inputs.args, *inputs.kwargs.values()]
    assert [tuple(v.shape[1:]) for v in values] == shapes
    assert subject.model(*inputs.args, **inputs.kwargs).isfinite().all()


def test_a_dict_is_found_by_the_keys_it_is_asked_for(loaded):
    subject = loaded("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.image, self.table = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
            def forward(self, batch):
                return self.image(batch["image"]).mean((2, 3)) + self.table(batch["table"])
        """)
    batch = subject.batch(0).args[0]
    assert batch["image"].shape == (16, 3, 32, 32) and batch["table"].shape == (16, 5)
    batch["image"].zero_()
    assert subject.batch(0).args[0]["image"].abs().sum() > 0


def test_the_number_of_trials_is_bounded(loaded, monkeypatch):
    from stabdiag.subject.inputs import infer

    tried = []
    attempt = infer.attempt
    monkeypatch.setattr(infer, "attempt", lambda *a: tried.append(1) or attempt(*a))
    with pytest.raises(SubjectError):
        loaded("""
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(3, 3)
                def forward(self, x): return self.fc(x[..., :0])
            """)
    assert len(tried) <= infer.TRIALS + 3


def test_batchnorm_statistics_and_parameters_stay(loaded):
    subject = loaded("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.fc, self.calls = nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Parameter(torch.zeros(()))
                self.register_buffer("seen", torch.zeros(()))
            def forward(self, x):
                self.seen = self.seen + 1
                with torch.no_grad(): self.calls += 1
                return self.fc(self.norm(x))
        """)
    assert subject.model.norm.num_batches_tracked == 0 and subject.model.norm.running_var.eq(1).all()
    assert subject.model.seen == 0 and subject.model.calls == 0
