"""What a configuration object tells of inputs: sizes of vocabularies, images, clips and spectrograms, by the names in use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from stabdiag.subject.attributes import attribute
from stabdiag.subject.inputs.specification import SAMPLES, TOKENS, Specification


def by_configuration(name: str, model: nn.Module) -> Iterator[Specification]:
    """Arguments whose sizes a configuration object tells, by the names in use for models of text, images and sound."""
    if attribute(model, "config") is None:
        return
    vocabulary = configured(model, "vocab_size")
    if name in ("input_ids", "decoder_input_ids", "inputs", "idx", "tokens") and isinstance(vocabulary, int) and vocabulary > 1:
        limits = (
            "max_position_embeddings",
            "block_size",
            "max_seq_len",
            "n_positions",
            "context_length",
            "max_target_positions",
        )
        limit = configured(model, *limits)
        length = min(TOKENS, limit) if isinstance(limit, int) and limit > 0 else TOKENS
        why = f"token ids below the configured vocabulary of {vocabulary}"
        yield Specification("", (SAMPLES, length), torch.int64, "integers", vocabulary, why=why)
    if name in ("pixel_values", "pixel_values_videos", "sample", "inputs"):
        channels = configured(model, "num_channels", "in_channels", "in_chans") or 3
        size = configured(model, "image_size", "sample_size", "img_size", "input_size") or 64
        sides = tuple(size)[-2:] if isinstance(size, list | tuple) else (size, size)
        if isinstance(channels, int) and all(isinstance(side, int) for side in sides):
            frames = configured(model, "num_frames")
            if frames:
                yield Specification("", (SAMPLES, frames, channels, *sides), why="the configured video size")
            yield Specification("", (SAMPLES, channels, *sides), why="the configured image size")
    bins = configured(model, "num_mel_bins", "feature_size", "input_feat_per_channel", "input_dim")
    if name in ("input_features", "input_values"):
        frames = configured(model, "max_source_positions")
        if isinstance(bins, int):
            if isinstance(frames, int):
                yield Specification("", (SAMPLES, bins, 2 * frames), why="the configured spectrogram")
            length = configured(model, "max_length")
            length = length if isinstance(length, int) and length > 8 else 4 * TOKENS
            yield Specification("", (SAMPLES, length, bins), why="the configured spectrogram")
        yield Specification("", (SAMPLES, 4000), why="a waveform")
    if name == "past_values":
        length = configured(model, "context_length")
        lags = configured(model, "lags_sequence") or [0]
        if isinstance(length, int):
            channels = configured(model, "num_input_channels", "input_size")
            more = (channels,) if isinstance(channels, int) and channels > 1 else ()
            yield Specification("", (SAMPLES, length + max(lags), *more), why="the configured context length")


def configured(model: nn.Module, *names: str) -> Any:
    """The first of the named values in the model's configuration, or in a nested one (text, vision, encoder …)."""
    config = attribute(model, "config")
    nested = [value for key, value in getattr(config, "__dict__", {}).items() if hasattr(value, "__dict__")]
    for name in names:
        for place in (config, *nested):
            value = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
            if value is not None and value != []:
                return value
    return None


def vocabulary(model: nn.Module) -> int:
    """Ids that every table of the first kind takes: the configured vocabulary, else the largest embedding."""
    size = configured(model, "vocab_size")
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return size if isinstance(size, int) and size > 1 else max(sizes, default=2)
