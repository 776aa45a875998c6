"""First guesses: what each argument of forward wants, from its name, the model's configuration and its first layers.

A guess need not be right: `repair.py` corrects it from what a trial forward says. Names are read as conventions of the field
(`edge_index`, `input_ids`, `timesteps`), never as facts: every guess is tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from stabdiag.subject.specification import Specification

SAMPLES = 2
"""Samples in a trial forward: few, and unlike the other sizes, so that a size in an error message tells its dimension."""

TOKENS, STEPS, IMAGE, VOLUME, SIGNAL, NODES = 24, 24, 32, 32, 128, 22

_CONVOLUTIONS: dict[type[nn.Module], int] = {
    nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3, nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3,
}  # fmt: skip
_NORMS: dict[type[nn.Module], int] = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}


def arguments_of(model: nn.Module) -> list[inspect.Parameter]:
    """The parameters of forward, without *args and **kwargs; one unnamed positional for `forward(*inputs)`."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not any(p.default is p.empty for p in named) and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY), *named]
    return named


def first_plan(model: nn.Module, parameters: list[inspect.Parameter]) -> tuple[Specification, ...]:
    """The first guess for every argument that must be given."""
    main = getattr(model, "main_input_name", None)
    names = [p.name for p in parameters if p.default is p.empty]
    if not names and main in {p.name for p in parameters}:
        names = [main]
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            names += [p.name for p in parameters if p.name == "decoder_input_ids" and main != "decoder_input_ids"]
    if not names and parameters:
        names = [parameters[0].name]
    by_name = {p.name: p for p in parameters}
    return tuple(next(guesses(by_name[name], model, names.index(name), len(names))) for name in names)


def guesses(parameter: inspect.Parameter, model: nn.Module, position: int = 0, count: int = 1) -> Iterator[Specification]:
    """Specifications worth trying for one argument, the likeliest first, without end repeats."""
    seen = set()
    for guess in _guesses(parameter, model, position, count):
        if (key := (guess.shape, guess.dtype, guess.values, guess.high)) not in seen:
            seen.add(key)
            yield replace(guess, name=parameter.name)


def _guesses(parameter: inspect.Parameter, model: nn.Module, position: int, count: int) -> Iterator[Specification]:
    yield from _by_configuration(parameter.name, model)
    consumers = list(_consumers(model))
    branches = [first for child in model.children() if (first := next(_consumers(child), None)) is not None]
    likely = _by_layer_name(parameter.name, model) or (branches[position : position + 1] if position else []) or consumers[:1]
    yield from _by_convention(parameter, model, likely, position, count)
    integers = [c for c in consumers if c.values == "integers"]
    if position and count > 1 and likely == consumers[:1] == integers[:1]:
        yield integers[0]
    yield from likely
    yield from consumers[:8]
    yield from _by_parameters(model)
    for rank in (2, 3, 4, 5):
        yield Specification("", (SAMPLES, 16, *((IMAGE,) * (rank - 2))), why="a tensor of the usual rank")
    yield Specification("", (SAMPLES,), why="one number per sample")
    yield Specification("", (SAMPLES, TOKENS), torch.int64, "integers", _vocabulary(model), why="token ids")
    yield Specification("", (SAMPLES,), torch.int64, "integers", 2, why="one index per sample")
    yield Specification("", (), values="none", batch=None, why="nothing")


def _by_convention(
    parameter: inspect.Parameter, model: nn.Module, likely: list[Specification], position: int, count: int
) -> Iterator[Specification]:
    name = parameter.name.lower()
    if parameter.annotation in (int, float, bool, "int", "float", "bool"):
        yield Specification("", (), values="number", high=1, batch=None, why="annotated as a number")
    if name in ("edge_index", "edges", "edge_list"):
        yield Specification("", (2, 3 * NODES), torch.int64, "integers", NODES, None, f"{name}: pairs of nodes")
    if name in ("edge_weight", "edge_weights"):
        yield Specification("", (3 * NODES,), torch.float32, "normal", 0, None, f"{name}: one per edge")
    if name in ("batch", "batch_index"):
        yield Specification("", (NODES,), torch.int64, "integers", 1, None, f"{name}: graph of each node")
    if name in ("adj", "adjacency", "adj_matrix", "a_hat", "adj_t", "laplacian", "support") or (parameter.name == "A" and count > 1):
        yield Specification("", (NODES, NODES), torch.float32, "adjacency", 0, None, f"{name}: an adjacency matrix")
        yield Specification("", (SAMPLES, NODES, NODES), torch.float32, "adjacency", 0, 0, f"{name}: adjacency matrices")
    if "mask" in name or "padding" in name or name == "pad":
        yield Specification("", (), values="none", batch=None, why=f"{name}: nothing is masked")
        # In a padding mask True means "leave out", in most others 1 means "keep".
        free = "zeros" if "pad" in name else "ones"
        for dtype in (torch.bool, torch.float32, torch.int64):
            yield Specification("", (SAMPLES, TOKENS), dtype, free, why=f"{name}: nothing is masked")
        yield Specification("", (TOKENS, TOKENS), torch.float32, "zeros", 0, None, f"{name}: nothing is masked")
        yield Specification("", (SAMPLES, 1, 1, TOKENS), torch.bool, free, why=f"{name}: nothing is masked")
    if "length" in name or name in ("lens", "seq_len", "seq_lens", "x_len", "x_lens"):
        yield Specification("", (SAMPLES,), torch.int64, "lengths", TOKENS, why=f"{name}: full length")
    if name in ("batch_size", "bsz", "num_samples", "n_samples"):
        yield Specification("", (), values="batched", high=SAMPLES, batch=None, why=f"{name}: the number of samples")
    if position and (name in ("t", "time", "timestep", "timesteps", "time_step", "time_steps", "ts", "step", "noise_level")):
        times = [
            Specification("", (SAMPLES,), torch.int64, "steps", 1000, why=f"{name}: diffusion steps"),
            Specification("", (SAMPLES,), torch.float32, "steps", 2, why=f"{name}: times in 0 … 1"),
            Specification("", (SAMPLES, 1), torch.float32, "normal", why=f"{name}: times"),
        ]
        features = all(len(layer.shape) == 2 and layer.dtype.is_floating_point for layer in _consumers(model))
        yield from reversed(times) if features else times
    if position and name in ("h", "hidden", "state", "hx", "h0", "prev_state", "hidden_state", "hc", "states"):
        yield Specification("", (), values="none", batch=None, why=f"{name}: starts empty")
        for cell in (m for m in model.modules() if isinstance(m, nn.RNNBase)):
            shape = (cell.num_layers * (2 if cell.bidirectional else 1), SAMPLES, cell.proj_size or cell.hidden_size)
            pair = isinstance(cell, nn.LSTM)
            yield Specification("", shape, torch.float32, "pair" if pair else "normal", 0, 1, f"{name}: the recurrent state")
        for size in (vars(model).get(key) for key in ("hidden_size", "hidden_dim", "nhid", "n_hidden", "d_hidden")):
            if isinstance(size, int):
                yield Specification("", (SAMPLES, size), why=f"{name}: the recurrent state")
        for single in (m for m in model.modules() if isinstance(m, nn.RNNCellBase)):
            pair = isinstance(single, nn.LSTMCell)
            yield Specification("", (SAMPLES, single.hidden_size), values="pair" if pair else "normal", why=f"{name}: state")
    if position and name in ("y", "label", "labels", "c", "cond", "class_labels", "classes", "target", "targets", "user", "item"):
        own = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
        if own:
            yield Specification("", (SAMPLES,), torch.int64, "integers", min(own), why=f"{name}: one class per sample")
    if name in ("z", "noise", "latent", "latents", "eps"):
        for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
            yield Specification("", (SAMPLES, layer.in_features), why=f"{name}: a latent vector for Linear")
            break
    if count > 1 and name in ("x", "x1", "features", "feat", "feats", "node_features") and _is_graph(parameter, model):
        for guess in (*(g for g in likely if len(g.shape) == 2 and g.dtype.is_floating_point), *_by_parameters(model)):
            yield Specification("", (NODES, guess.shape[1]), why=f"{name}: nodes × features ({guess.why})", batch=None)
    if any(word in name for word in ("token", "ids", "idx", "src", "tgt", "trg", "text", "caption", "sentence", "words")):
        own = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
        if own:
            yield Specification("", (SAMPLES, TOKENS), torch.int64, "integers", _vocabulary(model), why=f"{name}: token ids")


def _is_graph(parameter: inspect.Parameter, model: nn.Module) -> bool:
    names = {p.name.lower() for p in arguments_of(model)}
    return bool(names & {"edge_index", "adj", "adjacency", "a", "adj_matrix", "a_hat", "edges", "edge_list", "laplacian", "support"})


def _by_layer_name(name: str, model: nn.Module) -> list[Specification]:
    """The layer that carries the argument's name: `user` goes to `user_embedding`."""
    if len(name) < 3:
        return []
    for path, layer in model.named_modules():
        if name.lower().rstrip("s_0123456789") in path.lower().split(".")[0].split("_") and (guess := _wanted_by(layer)):
            return [guess]
    return []


def _consumers(model: nn.Module) -> Iterator[Specification]:
    """What the model's layers take, in the order of their definition; a recurrent or attention layer counts as one."""
    inside: set[int] = set()
    for layer in model.modules():
        if id(layer) in inside:
            continue
        guess = _wanted_by(layer)
        if guess is not None:
            inside |= {id(part) for part in layer.modules()}
            yield guess


def _by_parameters(model: nn.Module) -> Iterator[Specification]:
    """What a hand-written layer takes: features as many as its first matrix has rows, or columns."""
    matrix = next((p for p in model.parameters() if p.dim() == 2), None)
    for size in () if matrix is None else matrix.shape:
        yield Specification("", (SAMPLES, size), why="a side of the first matrix of parameters")


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


def _vocabulary(model: nn.Module) -> int:
    """Ids that every table of the first kind takes: the configured vocabulary, else the largest embedding."""
    configured = _configured(model, "vocab_size")
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return configured if isinstance(configured, int) and configured > 1 else max(sizes, default=2)


def _configured(model: nn.Module, *names: str) -> Any:
    """The first of the named values in the model's configuration, or in a nested one (text, vision, encoder …)."""
    config = getattr(model, "config", None)
    nested = [value for key, value in getattr(config, "__dict__", {}).items() if hasattr(value, "__dict__")]
    for name in names:
        for place in (config, *nested):
            value = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
            if value is not None and value != []:
                return value
    return None


def _by_configuration(name: str, model: nn.Module) -> Iterator[Specification]:
    """Arguments whose sizes a configuration object tells, by the names in use for models of text, images and sound."""
    if not hasattr(model, "config"):
        return
    vocabulary = _configured(model, "vocab_size")
    if name in ("input_ids", "decoder_input_ids", "inputs", "idx", "tokens") and isinstance(vocabulary, int) and vocabulary > 1:
        limits = ("max_position_embeddings", "block_size", "max_seq_len", "n_positions", "context_length", "max_target_positions")
        limit = _configured(model, *limits)
        length = min(TOKENS, limit) if isinstance(limit, int) and limit > 0 else TOKENS
        why = f"token ids below the configured vocabulary of {vocabulary}"
        yield Specification("", (SAMPLES, length), torch.int64, "integers", vocabulary, why=why)
    if name in ("pixel_values", "pixel_values_videos", "sample", "inputs"):
        channels = _configured(model, "num_channels", "in_channels", "in_chans") or 3
        size = _configured(model, "image_size", "sample_size", "img_size", "input_size") or 64
        sides = tuple(size)[-2:] if isinstance(size, list | tuple) else (size, size)
        if isinstance(channels, int) and all(isinstance(side, int) for side in sides):
            frames = _configured(model, "num_frames")
            if frames:
                yield Specification("", (SAMPLES, frames, channels, *sides), why="the configured video size")
            yield Specification("", (SAMPLES, channels, *sides), why="the configured image size")
    bins = _configured(model, "num_mel_bins", "feature_size", "input_feat_per_channel", "input_dim")
    if name in ("input_features", "input_values"):
        frames = _configured(model, "max_source_positions")
        if isinstance(bins, int):
            if isinstance(frames, int):
                yield Specification("", (SAMPLES, bins, 2 * frames), why="the configured spectrogram")
            length = _configured(model, "max_length")
            length = length if isinstance(length, int) and length > 8 else 4 * TOKENS
            yield Specification("", (SAMPLES, length, bins), why="the configured spectrogram")
        yield Specification("", (SAMPLES, 4000), why="a waveform")
    if name == "past_values":
        length = _configured(model, "context_length")
        lags = _configured(model, "lags_sequence") or [0]
        if isinstance(length, int):
            channels = _configured(model, "num_input_channels", "input_size")
            more = (channels,) if isinstance(channels, int) and channels > 1 else ()
            yield Specification("", (SAMPLES, length + max(lags), *more), why="the configured context length")
