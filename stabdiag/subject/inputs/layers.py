"""What layers take: the inputs that fit an Embedding, a convolution, a Linear, a recurrent or attention layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from stabdiag.subject.inputs.specification import IMAGE, SAMPLES, SIGNAL, STEPS, TOKENS, VOLUME, Specification

_CONVOLUTIONS: dict[type[nn.Module], int] = {
    nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3, nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3,
}  # fmt: skip

_NORMS: dict[type[nn.Module], int] = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}


def wanted_by_layers(model: nn.Module) -> Iterator[Specification]:
    """What the model's layers take, in the order of their definition; a recurrent or attention layer counts as one."""
    inside: set[int] = set()
    for layer in model.modules():
        if id(layer) in inside:
            continue
        guess = _wanted_by(layer)
        if guess is not None:
            inside |= {id(part) for part in layer.modules()}
            yield guess


def _wanted_by(layer: nn.Module) -> Specification | None:
    kind = type(layer).__name__
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        why = f"token ids below {layer.num_embeddings} for {kind}"
        return Specification("", (SAMPLES, TOKENS), torch.int64, "integers", layer.num_embeddings, why=why)
    for convolution, rank in _CONVOLUTIONS.items():
        if isinstance(layer, convolution):
            assert isinstance(layer.in_channels, int)
            size = (SIGNAL, IMAGE, VOLUME)[rank - 1]
            if convolution in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
                size = 1
            return Specification("", (SAMPLES, layer.in_channels or 3, *(size,) * rank), why=f"channels of {kind}")
    if isinstance(layer, nn.Linear):
        return Specification("", (SAMPLES, layer.in_features or 16), why=f"features of {kind}")
    if isinstance(layer, nn.RNNBase):
        batch = 0 if layer.batch_first else 1
        shape = (SAMPLES, STEPS, layer.input_size) if layer.batch_first else (STEPS, SAMPLES, layer.input_size)
        return Specification("", shape, batch=batch, why=f"input size of {kind}")
    if isinstance(layer, nn.RNNCellBase):
        return Specification("", (SAMPLES, layer.input_size), why=f"input size of {kind}")
    if isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        layer = layer.self_attn
    if isinstance(layer, nn.MultiheadAttention):
        shape = (SAMPLES, TOKENS, layer.embed_dim) if layer.batch_first else (TOKENS, SAMPLES, layer.embed_dim)
        return Specification("", shape, batch=0 if layer.batch_first else 1, why="width of the attention")
    for norm, rank in _NORMS.items():
        if isinstance(layer, norm):
            assert isinstance(layer.num_features, int)
            return Specification("", (SAMPLES, layer.num_features, *(IMAGE,) * rank), why=f"channels of {kind}")
    if isinstance(layer, nn.BatchNorm1d):
        return Specification("", (SAMPLES, layer.num_features), why=f"features of {kind}")
    if isinstance(layer, nn.LayerNorm):
        return Specification("", (SAMPLES, TOKENS, *layer.normalized_shape), why="width of LayerNorm")
    return None


def by_layer_name(name: str, model: nn.Module) -> list[Specification]:
    """The layer that carries the argument's name: `user` goes to `user_embedding`."""
    if len(name) < 3:
        return []
    for path, layer in model.named_modules():
        if name.lower().rstrip("s_0123456789") in path.lower().split(".")[0].split("_") and (guess := _wanted_by(layer)):
            return [guess]
    return []


def by_parameters(model: nn.Module) -> Iterator[Specification]:
    """What a hand-written layer takes: features as many as its first matrix has rows, or columns."""
    matrix = next((p for p in model.parameters() if p.dim() == 2), None)
    for size in () if matrix is None else matrix.shape:
        yield Specification("", (SAMPLES, size), why="a side of the first matrix of parameters")
