"""Normalisation: layers that bring a signal to unit size, and reparametrised weights that keep it there."""

from __future__ import annotations

from collections.abc import Callable

from stabdiag.evidence.graph.structure import Weight
from stabdiag.repair.editing.built import attribute
from stabdiag.repair.editing.statements import each, replace_each
from stabdiag.repair.remedies.initialisation import is_off_scale
from stabdiag.repair.remedy import Case, Remedy, Statements
from stabdiag.rule import rule_of

_SLIDES = {"Linear": 0, "Conv1d": 1, "Conv2d": 2, "Conv3d": 3, "ConvTranspose1d": 1, "ConvTranspose2d": 2, "ConvTranspose3d": 3}
"""Layers that map one tensor to one tensor, and over how many dimensions each slides."""
_CHANNELS = {f"{kind}Norm{d}d": "num_features" for kind in ("Instance", "Batch") for d in (1, 2, 3)} | {
    "GroupNorm": "num_channels"
}
_OF_THE_BATCH = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")


def _behind_layers(norm: Callable[[Weight], str | None]) -> Statements:
    """Put a normalisation behind every hidden layer that needs one.

    Args:
        norm: the normalisation as code for a layer's output, None where it does not fit.
    """

    def statements(case: Case) -> list[str] | None:
        layers = [w for w in case.report.weights if w.units and not w.recurrent and not w.normalised and w.nonlinearity]
        layers = [w for w in layers if w.kind in _SLIDES]
        if rule_of(case.finding).level == "layer":  # the others are about the whole depth
            layers = [w for w in layers if w.module == case.finding.module]
        elif not _may_be_their_doing(case):
            return None
        by_norm: dict[str, list[str]] = {}
        for layer in layers:
            code = norm(layer)
            if code is not None:
                by_norm.setdefault(code, []).append(layer.module)
        found: list[str] = []
        for code, paths in by_norm.items():
            found += replace_each(paths, case.report.modules, lambda layer, code=code: f"nn.Sequential({layer}, {code})")  # type: ignore[misc]
        return found or None

    return Statements(statements)


def _may_be_their_doing(case: Case) -> bool:
    """What leaves a format's range in a model whose weights are of the right size does not come from its layers."""
    return rule_of(case.finding).kind != "range" or any(is_off_scale(w) for w in case.report.weights)


def _batch(layer: Weight) -> str | None:
    """Behind convolutions, and behind linear layers of samples × features."""
    dims = _SLIDES[layer.kind]
    return f"nn.BatchNorm{dims or 1}d({layer.units})" if dims or layer.input_dims == 2 else None


def _layer(layer: Weight) -> str | None:
    """Over the features of a linear layer; over all channels and positions behind a convolution. A few units carry sizes that
    mean something (coordinates, a pair of moments), and a normalisation over them would fix their sum and spread."""
    if layer.units < FEW_UNITS:
        return None
    return f"nn.LayerNorm({layer.units})" if _SLIDES[layer.kind] == 0 else f"nn.GroupNorm(1, {layer.units})"


FEW_UNITS = 8
"""Below so many elements a mean and a variance over them take much of what they say (1/8 of their freedom each)."""


def _rms(layer: Weight) -> str | None:
    return f"nn.RMSNorm({layer.units})" if _SLIDES[layer.kind] == 0 and layer.units >= FEW_UNITS else None


def _instance(layer: Weight) -> str | None:
    dims = _SLIDES[layer.kind]
    return f"nn.InstanceNorm{dims}d({layer.units}, affine=True)" if dims else None


def _parametrised(kind: str) -> Statements:
    """The recurrent weights where the finding is about time, else every layer's."""

    def statements(case: Case) -> list[str] | None:
        over_time = "decades_per_step" in case.finding.evidence
        if not _may_be_their_doing(case):
            return None
        weights = [w for w in case.report.weights if (w.recurrent or not over_time) and not w.loaded]
        found: list[str] = []
        for leaf in dict.fromkeys(w.name.removeprefix(w.module).lstrip(".") for w in weights):
            named = "" if leaf == "weight" else f', "{leaf}"'
            found += each(
                [w.module for w in weights if w.name.endswith(f".{leaf}")],
                case.report.modules,
                lambda layer, named=named: f"nn.utils.parametrizations.{kind}({layer}{named})",  # type: ignore[misc]
            )
        return found or None

    return Statements(statements)


def _group(case: Case) -> list[str] | None:
    """Every batch normalisation of the model; up to 32 groups, as many as divide the channels, where there are positions."""
    found: list[str] = []
    for kind in _OF_THE_BATCH:
        paths = [path for path, of in case.report.modules.items() if of == kind]
        groups = "1" if kind == "BatchNorm1d" else "math.gcd(32, {0}.num_features)"
        found += replace_each(paths, case.report.modules, f"nn.GroupNorm({groups}, {{0}}.num_features)".format) if paths else []
    return found or None


def _wider(case: Case) -> list[str] | None:
    """The module of the finding."""
    path, modules = case.finding.module, case.report.modules
    kind = modules.get(path, "")
    if kind == "LayerNorm":
        return replace_each([path], modules, lambda layer: "nn.Identity()")
    if (channels := _CHANNELS.get(kind)) is None:
        return None
    return replace_each([path], modules, lambda layer: f"nn.GroupNorm(1, {layer}.{channels})")


def _final(case: Case) -> list[str] | None:
    """Only behind a residual stream, in front of a linear layer that reads its features last."""
    weights = case.report.weights
    if not any(w.ends_branch for w in weights) or weights[-1].kind != "Linear" or not weights[-1].module:
        return None
    layer = attribute(weights[-1].module)
    return [f"{layer} = nn.Sequential(nn.LayerNorm({weights[-1].input_channels}), {layer})"]


def _epsilon(case: Case) -> list[str] | None:
    """Only where the line of the finding reads `self.eps`: every module of that class gets the epsilon."""
    kind, at = case.report.modules.get(case.finding.module, ""), case.finding.location
    if not kind or at is None or "self.eps" not in at.source:
        return None
    paths = [path for path, of in case.report.modules.items() if of == kind and path]
    return [line for path in paths for line in each([path], case.report.modules, lambda layer: f"{layer}.eps = 1e-5")] or None


def _input(case: Case) -> list[str] | None:
    """In front of every layer that reads the model's input; of that layer alone where the finding is about a layer."""
    first = [w for w in case.report.weights if w.reads_input and w.input_channels and _SLIDES.get(w.kind, -1) >= 0]
    first = [w for w in first if not w.kind.startswith("ConvTranspose")]
    rule = rule_of(case.finding)
    if rule.level != "model":
        own = [w for w in first if w.module == case.finding.module]
        first = own or (first if rule.kind == "training" else [])
    found: list[str] = []
    for w in first:
        found += replace_each([w.module], case.report.modules, lambda layer, w=w: f"nn.Sequential({_standard(w)}, {layer})")  # type: ignore[misc]
    return found or None


def _standard(layer: Weight) -> str:
    dims = _SLIDES[layer.kind]
    if dims or layer.input_dims == 2:
        return f"nn.BatchNorm{dims or 1}d({layer.input_channels}, affine=False)"
    return f"nn.LayerNorm({layer.input_channels}, elementwise_affine=False)"


REMEDIES = (
    Remedy(
        "batch-norm",
        "Normalise behind every layer with the statistics of the batch (BatchNorm)",
        _behind_layers(_batch),
        "Each unit gets mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015, arXiv:1502.03167), so that it is on one "
        "side of its nonlinearity for some samples and on the other for the rest. Needs batches of 16 and more.",
    ),
    Remedy(
        "layer-norm",
        "Normalise behind every layer (LayerNorm; over all channels, GroupNorm with one group, behind a convolution)",
        _behind_layers(_layer),
        "Every layer then gets inputs of mean 0 and variance 1, whatever the layers before it do (Ba, Kiros & Hinton 2016, "
        "arXiv:1607.06450). Needs no batch statistics.",
    ),
    Remedy(
        "rms-norm",
        "Normalise the size behind every layer, not the mean (RMSNorm)",
        _behind_layers(_rms),
        "Keeps the scale through depth at half the cost of LayerNorm (Zhang & Sennrich 2019, arXiv:1910.07467).",
    ),
    Remedy(
        "instance-norm",
        "Normalise every channel of every sample behind a convolution (InstanceNorm)",
        _behind_layers(_instance),
        "Independent of the batch and of the other channels (Ulyanov et al. 2016, arXiv:1607.08022); it drops each channel's "
        "mean, which generators do not need and classifiers may.",
    ),
    Remedy(
        "spectral-norm",
        "Bound the largest singular value of the weights (spectral normalisation)",
        _parametrised("spectral_norm"),
        "No layer can stretch its input, nor the gradient, by more than 1 (Miyato et al. 2018, arXiv:1802.05957).",
    ),
    Remedy(
        "weight-norm",
        "Learn length and direction of the weights apart (weight normalisation)",
        _parametrised("weight_norm"),
        "Each unit's weight keeps a length of its own, so that its direction is learned at a scale that does not drift "
        "(Salimans & Kingma 2016, arXiv:1602.07868). The function is the same at the start, its parameters are not.",
    ),
    Remedy(
        "group-norm",
        "Use GroupNorm in place of BatchNorm",
        Statements(_group),
        "GroupNorm takes its statistics over groups of channels of one sample, so it does not degenerate when few elements "
        "share a channel (Wu & He 2018, arXiv:1803.08494).",
    ),
    Remedy(
        "wider-normalisation",
        "Normalise over all channels of a sample instead of a few elements",
        Statements(_wider),
        "A mean and variance over one or two elements leave nothing of the input: x - x is 0, and two elements become ±1. "
        "Over all channels and positions (GroupNorm with one group) they are statistics (Wu & He 2018, arXiv:1803.08494). A "
        "LayerNorm over one feature has nothing wider beside it in its layer, and goes.",
    ),
    Remedy(
        "final-norm",
        "Normalise in front of the output layer",
        Statements(_final),
        "A residual stream grows with every block that adds to it; a LayerNorm behind the last block gives the head, and the "
        "blocks on the way back, a signal of unit size (Xiong et al. 2020, arXiv:2002.04745).",
    ),
    Remedy(
        "module-epsilon",
        "Give the normalisation module an epsilon that the format holds",
        Statements(_epsilon),
        "1e-8 and 1e-12 are 0 in float16; 1e-5 is torch's own default and 167 times its smallest number.",
        keeps_function=True,
    ),
    Remedy(
        "standardise-input",
        "Standardise the input with a normalisation in front of the first layer",
        Statements(_input),
        "Weights are initialised for inputs of mean 0 and variance 1. A BatchNorm without weights of its own does per feature "
        "what `(x - mean) / std` with the statistics of the training set does in the data loader, which is as good.",
    ),
)
