"""What to scan and how, in plain data: made by the command line, the configuration or the API, read by the pipeline.

It crosses the process boundary to the worker, so it holds nothing that JSON cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

DEFAULT_PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(slots=True)
class ScanRequest:
    """One subject and everything that decides how it is scanned.

    Attributes:
        target: `FILE.py`, `FILE.py:Name` or `package.module:name`.
        arguments: constructor or factory arguments by name (`--arg key=value`), already Python values.
        inputs: input specifications as typed, in order: "8x3x32x32", "ids=4x128:int64<1000".
        data: file to take the inputs from (.pt, .npz, .safetensors); None when there is none.
        weights: state_dict file to load (.pt, .safetensors); None for the model as built.
        device: "auto", "cpu" or "cuda" ("cuda:1").
        precisions: names from `stabdiag.trace.formats.PRECISIONS`, in the order of the report; empty for those that the file
            declares, else `DEFAULT_PRECISIONS`.
        batches: how many different batches; None lets the budget decide.
        seeds: how many initialisations; None lets the budget decide.
        steps: optimizer steps to take and watch (SD8); 0 takes only those that the two-time test needs.
        optimizer: "sgd", "adam", "adamw", …; None for the author's own or Adam.
        lr, momentum: None for the optimizer's default.
        clip: norm to which gradients are clipped during the steps; None for no clipping.
        clip_value: magnitude to which gradient elements are clipped during the steps; None for no clipping.
        eps, weight_decay: of the optimizer; None for what it has.
        warm_up: steps over which the learning rate rises linearly from 0; 0 for none.
        loss_scale: a loss scaler's first scale for float16, by cast and by autocast; None for that of the file's `make_scaler`,
            without one for no scaler when cast.
        loss_factor: what the loss is multiplied by, as an author would write it in the loss.
        stochastic_rounding: weights stored in 16 bits are rounded up or down at random, right on average.
        budget: how much may be spent, in bare float32 training steps of the subject.
        timeout: wall-clock limit in seconds, 0 for none.
        memory_limit: address space of the worker in bytes; None for no limit.
        select, extend_select, ignore: rule selectors: codes, prefixes, names, "ALL". Empty `select` means all rules.
        severity: rule code -> severity that replaces the rule's own.
        thresholds: rule code -> {threshold name: value}.
        try_fixes: prove the suggested fixes by applying each to a copy and probing again.
        edited: absolute path -> text that imports see instead of the file's own (a fix on trial).
        after_build: statements about `model` to run once it is built (a fix on trial).
        states: values of inputs, parameters and results to run the model with (what broke the original of a fix on trial).
        descent: optimizer steps in float32 whose losses are noted (a fix on trial that changes the function).
        verbose: keep the scanned code's own output and full tracebacks.
        script: run the target as a script with these arguments, and probe a step that it takes; None to import the target.
        at: which step, from 1; keep_going: let the script run on when that step was probed.
    """

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    data: str | None = None
    weights: str | None = None
    device: str = "auto"
    precisions: list[str] = field(default_factory=list)
    batches: int | None = None
    seeds: int | None = None
    steps: int = 0
    optimizer: str | None = None
    lr: float | None = None
    momentum: float | None = None
    clip: float | None = None
    clip_value: float | None = None
    eps: float | None = None
    weight_decay: float | None = None
    warm_up: int = 0
    loss_scale: float | None = None
    loss_factor: float = 1.0
    stochastic_rounding: bool = False
    budget: float = 12.0
    timeout: float = 600.0
    memory_limit: int | None = None
    select: list[str] = field(default_factory=list)
    extend_select: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    severity: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, dict[str, Any]] = field(default_factory=dict)
    try_fixes: bool = False
    edited: dict[str, str] = field(default_factory=dict)
    after_build: list[str] = field(default_factory=list)
    descent: int = 0
    states: list[list[dict[str, Any]]] = field(default_factory=list)
    verbose: bool = False
    script: list[str] | None = None
    at: int = 1
    keep_going: bool = False

    def with_declared(self, training: Mapping[str, Any]) -> ScanRequest:
        """The request with what the file declares (`SubjectFacts.training`), else the defaults, where it asks for nothing."""
        precisions = self.precisions or list(training.get("precisions", DEFAULT_PRECISIONS))
        loss_scale = training.get("loss_scale") if self.loss_scale is None else self.loss_scale
        clip = training.get("clip") if self.clip is None else self.clip
        clip_value = training.get("clip_value") if self.clip_value is None else self.clip_value
        return replace(self, precisions=precisions, loss_scale=loss_scale, clip=clip, clip_value=clip_value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScanRequest:
        """The request again; a key that no field has raises TypeError."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise TypeError(f"a scan request has no {', '.join(unknown)}")
        return cls(**data)


@dataclass(slots=True)
class RunOptions:
    """What concerns a run as a whole.

    Attributes:
        models: what `stabdiag scan` scans without a target: targets, or tables with `target` and its own settings.
        format: the format on stdout.
        fail_on: least severity that makes the exit code 1; "never" for none.
        min_severity: least severity that is reported at all.
        baseline: file with accepted findings; None for none.
        jobs: subjects scanned at the same time.
        exit_zero: exit 0 although there are findings.
        strict: exit 1 where a loss was guessed although the file has its own.
    """

    models: list[Any] = field(default_factory=list)
    format: str = "text"
    fail_on: str = "error"
    min_severity: str = "info"
    baseline: str | None = None
    jobs: int = 1
    exit_zero: bool = False
    strict: bool = False
