"""Outcomes in words."""

from __future__ import annotations

from math import isnan

from stabdiag.repair.outcome import STEPS, Proof, Proven, Reason, Refused, Untested


def words(proof: Proof) -> str:
    """What an author wants to know about an outcome, one clause or two."""
    if isinstance(proof, Untested):
        return f"not tried: {proof.limit} others were"
    return _refused(proof) if isinstance(proof, Refused) else "; ".join(_proven(proof))


def _proven(proof: Proven) -> list[str]:
    said = ["an error before, a warning now"] if proof.weakened else []
    if proof.outside:
        said.append("the model is built outside this file: call this once it is built")
    if proof.descent is not None:
        before, after = proof.descent
        if isnan(before):
            said.append(f"the loss was not finite before, and falls to {after:.4g} in {STEPS} steps")
        else:
            said.append(
                f"changes the function by design: in {STEPS} steps the loss falls to {after:.4g}, before to {before:.4g}"
            )
    elif proof.logits:
        said.append("the model returns logits now; loss and gradients agree")
    elif proof.difference is not None:
        agree = f"agree within {proof.difference:.0e}" if proof.difference else "are unchanged"
        said.append(f"outputs, loss and gradients {agree}")
    if proof.uncovers:
        said.append(f"uncovers {proof.uncovers}, which was there before")
    return said


def _refused(proof: Refused) -> str:
    message = proof.finding.message if proof.finding is not None else ""
    match proof.reason:
        case Reason.NOT_SCANNED:
            return f"the edited model could not be scanned: {proof.error.message if proof.error is not None else 'no report'}"
        case Reason.NOT_RUN:
            return f"{proof.what} does not run any more"
        case Reason.LESS_PROBED:
            return f"fewer {proof.what} were scanned than before"
        case Reason.STILL_FOUND:
            return f"still found: {message}"
        case Reason.NEW_FINDING:
            return f"brings {proof.what}: {message}"
        case Reason.WORSE_VERDICT:
            return f"the verdict of {proof.what} is worse"
        case Reason.BREAKS_AGAIN:
            return f"what broke the original breaks it still: {proof.what}"
        case Reason.NOT_COMPARABLE:
            return f"nothing shows that the function is the same: {proof.what} cannot be compared"
        case Reason.OUTPUTS_DIFFER:
            return f"changes the outputs by {_share(proof.difference)}"
        case Reason.LOSS_DIFFERS:
            return f"changes the loss by {_share(proof.difference)}"
        case Reason.GRADIENTS_DIFFER:
            return f"changes the gradient of {proof.what} by {_share(proof.difference)}"
        case Reason.DESCENDS_LESS:
            return f"the loss does not get as low: {_number(proof.after)}, before {_number(proof.before)}"
        case Reason.NEEDLESS:
            return f"not needed with {proof.what}"


def _share(difference: float | None) -> str:
    return "an unknown share" if difference is None else f"{difference:.1e} of their size"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
