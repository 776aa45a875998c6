"""Attention: scores that a softmax can differentiate and a format can hold."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing.built import attribute
from stabdiag.repair.editing.pattern import Match, matches
from stabdiag.repair.editing.rewrite import Rule, is_inside, nearby, replacement, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import spell
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite, Statements

_MASKED = ("{0}", "masked_fill({0}, *any)", "where(m, {0}, *any)", "{0} + m", "masked_fill({0} + m, *any)")


def _norm_of_layers(case: Case) -> list[str] | None:
    """Where queries and keys come from a layer each."""
    evidence = case.finding.evidence
    width, scale, paths = evidence.get("head_width"), evidence.get("logit_scale"), evidence.get("projections")
    layers = {w.module: w for w in case.report.weights}
    if not paths or not width or not scale or any(path not in layers or not layers[path].units for path in paths):
        return None
    spread = scale * width**0.5
    found = []
    for path in paths:
        layer = attribute(path)
        found.append(f"{layer} = nn.Sequential({layer}, nn.RMSNorm({layers[path].units}))")
        if spread > 2:
            found.append(f"nn.init.constant_({layer}[1].weight, {spread**-0.5:.3g})")
    return found


def _norm_of_factors(source: Source, case: Case) -> str | None:
    """Norm both factors of the product of scores, or the first two arguments of scaled_dot_product_attention."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for pattern in ("q @ transpose(k, *any)", "scaled_dot_product_attention(q, k, v, ...)"):
            for match in matches(source, pattern, node):
                query, key = match.bound["q"], match.bound["k"]
                if isinstance(query, cst.Name) and isinstance(key, cst.Name) and (line := source.statement(query)) is not None:
                    made = [f"{n} = F.rms_norm({n}, {n}.shape[-1:])" for n in dict.fromkeys((query.value, key.value))]
                    done = source.lines[source.line(line) - 2].strip() in made
                    return None if done else source.spliced([source.before(line, [spell(source, m) for m in made])])
    return None


def _scale_of_scores(source: Source, case: Case) -> str | None:
    """Scale the product that the softmax is taken of; a query that has no name gets one."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for form in _MASKED:
            for match in matches(source, f"softmax({form.format('q @ k')}, ...)", node):
                return _scaled(source, match.bound["q"])
    return None


def _scaled(source: Source, query: cst.BaseExpression) -> str | None:
    product = source.parents[query]
    width = "shape[-1] ** -0.5"
    if isinstance(query, cst.Name):
        if isinstance(product, cst.BinaryOperation):
            return source.spliced([replacement(source, product, f"{source.code(product)} * {query.value}.{width}")])
        return source.replaced((query, f"{query.value} * {query.value}.{width}"))
    line = source.statement(query)
    if line is None or not isinstance(product, cst.BinaryOperation):
        return None
    name = next(n for n in ("query", "queries", "scaled_query") if not source.named(n))
    outer = source.code(product).replace(source.code(query), name, 1)
    lines = source.before(line, [f"{name} = {source.code(query)}"])
    return source.spliced([lines, replacement(source, product, f"{outer} * {name}.{width}")])


def _is_uncapped(source: Source, match: Match) -> bool:
    return not is_inside(source, match.root, "tanh")


_CAPPED: list[Rule] = [
    ("q @ k * s", when(_is_uncapped, "30 * torch.tanh(q @ k * s / 30)")),
    ("q @ k / s", when(_is_uncapped, "30 * torch.tanh(q @ k / s / 30)")),
    ("softmax(q @ k, ...)", "torch.softmax(30 * torch.tanh(q @ k / 30), ...)"),
]
_SCALED_FIRST: list[Rule] = [
    ("a @ b * s", "(a * s) @ b"),
    ("a @ b / s", "(a / s) @ b"),
    ("einsum(e, a, b) * s", "torch.einsum(e, a * s, b)"),
    ("einsum(e, a, b) / s", "torch.einsum(e, a / s, b)"),
]

REMEDIES = (
    Remedy(
        "scale-before",
        "Scale one factor before the product",
        Rewrite(_SCALED_FIRST),
        "(q · s) @ kᵀ is (q @ kᵀ) · s; scaled first, nothing larger than the result is ever stored. For 1/√d the factor is "
        "often a power of two, and then the result is the same to the last bit.",
        keeps_function=True,
    ),
    Remedy(
        "scale-logits",
        "Divide the attention scores by the square root of the width",
        Edit(_scale_of_scores),
        "A dot product of d terms of unit variance has variance d; softmax of it picks one key and passes no gradient on "
        "(Vaswani et al. 2017, section 3.2.1).",
    ),
    Remedy(
        "qk-norm",
        "Normalise queries and keys",
        Statements(_norm_of_layers),
        "Dot products of vectors of fixed length cannot grow while they are trained, so the softmax stays soft (Henry et al. "
        "2020, arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442). The gain starts where logits have a spread of 1, "
        "and is learned.",
    ),
    Remedy(
        "qk-norm-function",
        "Normalise queries and keys where their product is taken",
        Edit(_norm_of_factors),
        "Scores of normalised vectors are bounded by the width, whatever the weights grow to (Henry et al. 2020; Dehghani et "
        "al. 2023 need it from 8 billion parameters on).",
    ),
    Remedy(
        "soft-cap",
        "Cap the attention logits smoothly",
        Rewrite(_CAPPED),
        "30 · tanh(s / 30) leaves small scores as they are and lets none pass 30, so that the softmax keeps a gradient.",
    ),
)
