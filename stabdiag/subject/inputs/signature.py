"""First guesses: what each argument of forward wants, from its name, the model's configuration and its first layers.

A guess need not be right: `repair.py` corrects it from what a trial forward says. Names are read as conventions of the field
(`edge_index`, `input_ids`, `timesteps`), never as facts: every guess is tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from stabdiag.subject.attributes import attribute
from stabdiag.subject.inputs.configuration import by_configuration, vocabulary
from stabdiag.subject.inputs.layers import by_layer_name, by_parameters, wanted_by_layers
from stabdiag.subject.inputs.specification import IMAGE, NODES, SAMPLES, TOKENS, Specification


def arguments_of(model: nn.Module) -> list[inspect.Parameter]:
    """The parameters of forward, without *args and **kwargs; one unnamed positional for `forward(*inputs)`."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not any(p.default is p.empty for p in named) and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY), *named]
    return named


def first_plan(model: nn.Module, parameters: list[inspect.Parameter]) -> tuple[Specification, ...]:
    """The first guess for every argument that must be given."""
    main = attribute(model, "main_input_name")
    names = [p.name for p in parameters if p.default is p.empty]
    if not names and main in {p.name for p in parameters}:
        names = [main]
        if getattr(attribute(model, "config"), "is_encoder_decoder", False):
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
    yield from by_configuration(parameter.name, model)
    consumers = list(wanted_by_layers(model))
    branches = [first for child in model.children() if (first := next(wanted_by_layers(child), None)) is not None]
    likely = by_layer_name(parameter.name, model) or (branches[position : position + 1] if position else []) or consumers[:1]
    yield from _by_convention(parameter, model, likely, position, count)
    integers = [c for c in consumers if c.values == "integers"]
    if position and count > 1 and likely == consumers[:1] == integers[:1]:
        yield integers[0]
    yield from likely
    yield from consumers[:8]
    yield from by_parameters(model)
    for rank in (2, 3, 4, 5):
        yield Specification("", (SAMPLES, 16, *((IMAGE,) * (rank - 2))), why="a tensor of the usual rank")
    yield Specification("", (SAMPLES,), why="one number per sample")
    yield Specification("", (SAMPLES, TOKENS), torch.int64, "integers", vocabulary(model), why="token ids")
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
    if name in ("adj", "adjacency", "adj_matrix", "a_hat", "adj_t", "laplacian", "support") or (
        parameter.name == "A" and count > 1
    ):
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
        features = all(len(layer.shape) == 2 and layer.dtype.is_floating_point for layer in wanted_by_layers(model))
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
    if position and name in (
        "y",
        "label",
        "labels",
        "c",
        "cond",
        "class_labels",
        "classes",
        "target",
        "targets",
        "user",
        "item",
    ):
        own = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
        if own:
            yield Specification("", (SAMPLES,), torch.int64, "integers", min(own), why=f"{name}: one class per sample")
    if name in ("z", "noise", "latent", "latents", "eps"):
        for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
            yield Specification("", (SAMPLES, layer.in_features), why=f"{name}: a latent vector for Linear")
            break
    if count > 1 and name in ("x", "x1", "features", "feat", "feats", "node_features") and _is_graph(parameter, model):
        for guess in (*(g for g in likely if len(g.shape) == 2 and g.dtype.is_floating_point), *by_parameters(model)):
            yield Specification("", (NODES, guess.shape[1]), why=f"{name}: nodes × features ({guess.why})", batch=None)
    if any(word in name for word in ("token", "ids", "idx", "src", "tgt", "trg", "text", "caption", "sentence", "words")):
        own = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
        if own:
            yield Specification("", (SAMPLES, TOKENS), torch.int64, "integers", vocabulary(model), why=f"{name}: token ids")


def _is_graph(parameter: inspect.Parameter, model: nn.Module) -> bool:
    names = {p.name.lower() for p in arguments_of(model)}
    return bool(
        names & {"edge_index", "adj", "adjacency", "a", "adj_matrix", "a_hat", "edges", "edge_list", "laplacian", "support"}
    )
