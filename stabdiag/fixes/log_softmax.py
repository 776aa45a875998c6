"""Use log_softmax instead of the logarithm of a softmax.

`log_softmax` subtracts the largest logit first, so it neither underflows to log(0) nor loses the gradient. Helps wherever the
logarithm and the softmax stand in one expression, or the logarithm takes a name that is assigned a softmax in the same function.
"""

from __future__ import annotations

import libcst as cst
import libcst.matchers as m

from stabdiag.editing.source import Source
from stabdiag.finding import Finding

REPAIRS = ("SD601", "SD401")
KEEPS_FUNCTION = True

_LOG = m.Call(func=m.Attribute(attr=m.Name("log")) | m.Name("log"))
_SOFTMAX = m.Call(func=m.Attribute(attr=m.Name("softmax")) | m.Name("softmax"))


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite `torch.log(torch.softmax(x, d))` and its method spellings as `torch.log_softmax(x, d)`."""
    call = source.at(finding.location, cst.Call, lambda node: m.matches(node, _LOG))
    if call is None:
        return None
    inner = _operand(call)
    if isinstance(inner, cst.Call) and m.matches(inner, _SOFTMAX):
        return source.replaced((call, _renamed(inner)))
    return None


def _operand(call: cst.Call) -> cst.BaseExpression | None:
    """What the logarithm is taken of: the argument of `torch.log(p)`, the owner of `p.log()`."""
    if call.args:
        return call.args[0].value
    return call.func.value if isinstance(call.func, cst.Attribute) else None


def _renamed(softmax: cst.Call) -> cst.Call:
    name = cst.Name("log_softmax")
    function = softmax.func
    return softmax.with_changes(func=function.with_changes(attr=name) if isinstance(function, cst.Attribute) else name)
