"""The training steps that are measured: three small models of different kinds, written out here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Workload:
    """A model and one batch. `step()` is forward, loss and backward from cleared gradients, `precision` what it runs in."""

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    loss: Callable[[Tensor], Tensor]
    precision: str = "float32"

    @property
    def device(self) -> torch.device:
        return self.inputs[0].device

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.loss(self.model(*self.inputs)).backward()


def transformer_encoder() -> Workload:
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return Workload("TransformerEncoder 4×256 (8×128)", model, (torch.randn(8, 128, 256),), lambda out: out.square().mean())


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


def resnet18() -> Workload:
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [Residual(a, b, 2 if a != b else 1) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    target = torch.randint(1000, (8,))
    return Workload("ResNet-18 (8×3×128×128)", model, (torch.randn(8, 3, 128, 128),), lambda out: F.cross_entropy(out, target))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, layers: int = 6, width: int = 512, vocabulary: int = 50257, length: int = 256) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, width // 64) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt2() -> Workload:
    ids = torch.randint(50257, (4, 257))
    return Workload(
        "GPT-2 6×512 (4×256)",
        GPT2(),
        (ids[:, :-1],),
        lambda out: F.cross_entropy(out.flatten(0, 1), ids[:, 1:].flatten()),
    )


def gpt2_124m(batch: int = 8, length: int = 1024) -> Workload:
    """The published size, in bfloat16 on the GPU."""
    ids = torch.randint(50257, (batch, length + 1), device="cuda")
    return Workload(
        f"GPT-2 124M, bfloat16 ({batch}×{length})",
        GPT2(12, 768, 50257, 1024).to("cuda", torch.bfloat16),
        (ids[:, :-1],),
        lambda out: F.cross_entropy(out.flatten(0, 1), ids[:, 1:].flatten()),
        "bfloat16",
    )


def chain(layers: int, width: int = 64) -> Workload:
    """A net of many small ops: `layers` times Linear and tanh."""
    model = nn.Sequential(*(m for _ in range(layers) for m in (nn.Linear(width, width), nn.Tanh())))
    return Workload(f"{layers} × (Linear, Tanh)", model, (torch.randn(8, width),), lambda out: out.square().mean())


ON_CPU = {"transformer": transformer_encoder, "resnet": resnet18, "gpt2": gpt2}
ON_CUDA = {"gpt2-124m": gpt2_124m, "gpt2-124m-large-batch": lambda: gpt2_124m(32)}
ALL = ON_CPU | ON_CUDA
