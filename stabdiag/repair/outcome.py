"""What became of an attempt, as types. Control flow reads these; the sentences for people are made of them in `wording`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from stabdiag.errors import ScanError
from stabdiag.finding import Finding

STEPS = 20
"""Optimizer steps over which the losses of a model that changed by design are compared."""


class Reason(Enum):
    """Why an attempt is not proven."""

    NOT_SCANNED = auto()
    """The edited model cannot be loaded or run."""
    NOT_RUN = auto()
    """A precision, the reference included, ran before and does not run any more: not running is no proof."""
    LESS_PROBED = auto()
    """Fewer batches or seeds were scanned than before."""
    STILL_FOUND = auto()
    """The finding is there as often as before."""
    NEW_FINDING = auto()
    """An error or a warning that was not there."""
    WORSE_VERDICT = auto()
    """A precision is further from usable than before."""
    BREAKS_AGAIN = auto()
    """The state that broke the original breaks the edited model, too."""
    NOT_COMPARABLE = auto()
    """Nothing says whether the function is the same: other outputs, or none that differ from 0."""
    OUTPUTS_DIFFER = auto()
    LOSS_DIFFERS = auto()
    GRADIENTS_DIFFER = auto()
    DESCENDS_LESS = auto()
    """The loss does not get as low over the same steps."""
    NEEDLESS = auto()
    """Another attempt made it unnecessary."""


@dataclass(frozen=True)
class Refused:
    """Not proven.

    Attributes:
        reason: why; what: the precision, parameter or fix that it is about.
        finding: the one that stands in the way; error: of the scan.
        difference: relative, to the original's own size.
        before, after: the compared losses.
    """

    reason: Reason
    what: str = ""
    finding: Finding | None = None
    error: ScanError | None = None
    difference: float | None = None
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Proven:
    """All conditions of `stabdiag.repair.proof` hold.

    Attributes:
        difference: largest relative difference of outputs, loss and gradients; None where the function changes by design, or
            nothing of the original was finite.
        logits: what the model returns has changed together with the loss, which is the same.
        descent: (lowest loss before, lowest loss after) over the same steps, where these were compared.
        outside: the model is built outside the files that can be edited.
        weakened: an error before, a warning now.
        uncovers: code of a finding about the function itself that the original's numbers had hidden; "" for none.
    """

    difference: float | None = None
    logits: bool = False
    descent: tuple[float, float] | None = None
    outside: bool = False
    weakened: bool = False
    uncovers: str = ""


@dataclass(frozen=True)
class Untested:
    """Not tried, because `limit` attempts for the finding were."""

    limit: int


Proof = Proven | Refused | Untested
