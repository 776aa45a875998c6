"""Leave every query at least one key.

A softmax over nothing but -inf is 0 / 0. Rows without a key are not masked at all; what they attend to is ignored behind the
softmax, as padding is, but it is finite, and so is the gradient of everything else.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import constant, matches
from stabdiag.repair.editing.rewrite import nearby
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head, spell

REPAIRS = ("SD403", "SD301")
KEEPS_FUNCTION = True

_DROPS = ("masked_fill(x, m, c)", "where(m, c, x)")
_KEEPS = ("where(m, x, c)", "scaled_dot_product_attention(q, k, v, attn_mask=m)", "scaled_dot_product_attention(q, k, v, m)")


_PADDING = ("key_padding_mask", "src_key_padding_mask", "tgt_key_padding_mask", "memory_key_padding_mask")


def edit(source: Source, finding: Finding) -> str | None:
    """Take fully masked rows out of the mask; a mask that has no name gets one."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for argument in node.args if isinstance(node, cst.Call) else ():
            if argument.keyword is not None and argument.keyword.value in _PADDING:
                return _opened(source, argument.value, drops=True)
        for pattern in (*_DROPS, *_KEEPS):
            for match in matches(source, pattern, node):
                value = constant(source, match.bound["c"]) if "c" in match.bound else float("-inf")
                if value is not None and value < -1e3:
                    return _opened(source, match.bound["m"], pattern in _DROPS)
        for match in matches(source, "softmax(s + m, ...)", node):
            both = source.code(match.bound["s"]), source.code(match.bound["m"])
            if isinstance(match.bound["s"], cst.Name) and head(source, match.root) is not None:
                least = spell(source, f"torch.finfo({both[0]}.dtype).min")
                operand = head(source, match.root)
                assert operand is not None
                return source.replaced((operand.operands[0], f"({' + '.join(both)}).clamp_min({least})"))
    return None


def _opened(source: Source, mask: cst.BaseExpression, drops: bool) -> str | None:
    code = source.code(mask)
    if ".all(" in code or ".any(" in code:
        return None
    if isinstance(mask, cst.Name):
        return source.replaced((mask, _without_full_rows(code, drops)))
    line = source.statement(mask)
    if line is None:
        return None
    name = next(
        n for n in (("masked", "hidden", "dropped") if drops else ("kept", "visible", "allowed")) if not source.named(n)
    )
    return source.spliced([source.before(line, [f"{name} = {code}"]), (*source.span(mask), _without_full_rows(name, drops))])


def _without_full_rows(mask: str, drops: bool) -> str:
    return f"{mask} & ~{mask}.all(-1, keepdim=True)" if drops else f"{mask} | ~{mask}.any(-1, keepdim=True)"
