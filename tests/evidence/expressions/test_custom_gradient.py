"""A derivative that the author wrote is the author's: what torch's own would do there is no finding."""

from __future__ import annotations

from pathlib import Path

from tests.evidence.expressions.zoo import MEAN, model_file
from tests.rule_examples import scanned

ROOT = """
class BoundedRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sqrt(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.rsqrt((4 * x).clamp(min=1e-6))

"""


def roots_reported(root: str, folder: Path) -> list[str]:
    folder.mkdir()
    code = model_file(f"return {root}((self.a(h) ** 2).sum(1))", MEAN).replace("def safe_log", ROOT + "def safe_log")
    return [f.code for f in scanned(code, folder).findings if f.code == "SD606"]


def test_a_root_with_its_own_bounded_derivative_is_silent(tmp_path: Path) -> None:
    assert roots_reported("torch.sqrt", tmp_path / "own") == ["SD606"]
    assert roots_reported("BoundedRoot.apply", tmp_path / "bounded") == []
