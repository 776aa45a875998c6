"""Stable forms of differences, norms and variances: the same on paper, without digits that cancel or slopes that are infinite.

Each entry is a table of (pattern, template); see `stabdiag.repair.editing.pattern` for how they are written.
"""

from __future__ import annotations

from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, guarded
from stabdiag.repair.editing.source import Source
from stabdiag.repair.remedy import Remedy, Rewrite

_SMALL_ARGUMENT: list[Rule] = [
    ("log(1 + x)", "torch.log1p(x)"),
    ("log(1 - x)", "torch.log1p(-x)"),
    ("log(1 - exp(x))", "torch.log(-torch.expm1(x))"),
    ("log1p(-exp(x))", "torch.log(-torch.expm1(x))"),
    ("exp(x) - 1", "torch.expm1(x)"),
    ("1 - exp(x)", "-torch.expm1(x)"),
    ("1 - cos(x)", "2 * torch.sin(x / 2).square()"),
    ("cos(x) - 1", "-2 * torch.sin(x / 2).square()"),
    ("1 - sigmoid(z)", "torch.sigmoid(-z)"),
    ("sqrt(1 + x) - 1", "x / (torch.sqrt(1 + x) + 1)"),
    ("1 - sqrt(1 - x)", "x / (1 + torch.sqrt(1 - x))"),
]
_EXP_OF_HALF: list[Rule] = [(f"sqrt({e})", "torch.exp(0.5 * v)") for e in guarded("exp(v)")]
_SLOGDET: list[Rule] = [
    *((f"log({d})", "torch.linalg.slogdet(w)[1]") for d in guarded("abs(det(w))")),
    *((f"log({d})", "torch.linalg.slogdet(w)[1]") for d in guarded("det(w)")),
    ("logdet(w)", "torch.linalg.slogdet(w)[1]"),
]


def _norm(source: Source, match: Match) -> str:
    rest = [source.code(arg).strip(", ") for arg in match.rest or ()]
    if rest and "=" not in rest[0]:
        rest[0] = f"dim={rest[0]}"  # the second argument of `vector_norm` is the order
    if len(rest) > 1 and "=" not in rest[1]:
        rest[1] = f"keepdim={rest[1]}"
    return f"torch.linalg.vector_norm({', '.join(['x', *rest])})"


def _p_norm(source: Source, match: Match) -> str | None:
    inner = _norm(source, match)
    return inner.replace("vector_norm(x", "vector_norm(x, ord=p")


_VECTOR_NORM: list[Rule] = [
    ("sqrt(sum(square(x), ...))", _norm),
    ("pow(sum(pow(abs(x), p), ...), 1 / p)", _p_norm),
]
_VARIANCE: list[Rule] = [("mean(square(x), ...) - square(mean(x, ...))", "x.var(..., correction=0)")]


def _centred(source: Source, match: Match) -> str:
    dim = "" if not match.rest else source.code(match.rest[0].value)
    mean = f"x.mean({dim}, keepdim=True)" if dim else "x.mean()"
    return f"(x - {mean}).square().mean(...)"


_CENTRED: list[Rule] = [("mean(square(x), ...) - square(mean(x, ...))", _centred)]


def _shaped(norm: str) -> list[str]:
    return [norm, f"index({norm})", f"unsqueeze({norm}, *any)", f"transpose({norm}, *any)"]


_DIFFERENCE: list[Rule] = [
    (form.format(a=a, b=b, ab=ab), "(x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)")
    for a in _shaped("sum(square(x), *any)")
    for b in _shaped("sum(square(y), *any)")
    for ab in ("2 * (x @ transpose(y, *any))", "2 * x @ transpose(y, *any)", "x @ transpose(y, *any) * 2")
    for form in ("{a} + {b} - {ab}", "{a} - {ab} + {b}")
]
_ANGLE: list[Rule] = [
    (
        f"{name}(cosine_similarity(a, b, dim=d))",
        "2 * torch.atan2((F.normalize(a, dim=d) - F.normalize(b, dim=d)).norm(dim=d), (F.normalize(a, dim=d) + F.normalize(b, "
        "dim=d)).norm(dim=d))",
    )
    for name in ("acos", "arccos")
]

REMEDIES = (
    Remedy(
        "small-argument",
        "Use the function made for small arguments",
        Rewrite(_SMALL_ARGUMENT),
        "1 + x and exp(x) lose every digit of an x below u; `log1p`, `expm1` and half-angle forms keep them.",
        keeps_function=True,
    ),
    Remedy(
        "exp-of-half",
        "Halve the exponent instead of taking the root",
        Rewrite(_EXP_OF_HALF),
        "sqrt(exp(v)) has an infinite slope where exp(v) is 0 and overflows twice as early as exp(v / 2).",
        keeps_function=True,
    ),
    Remedy(
        "slogdet",
        "Take the logarithm of the determinant in one step",
        Rewrite(_SLOGDET),
        "A determinant of n rows is a product of n factors and leaves the range early; `slogdet` adds their logarithms.",
        keeps_function=True,
    ),
    Remedy(
        "vector-norm",
        "Use a norm instead of the root of a sum of powers",
        Rewrite(_VECTOR_NORM),
        "The gradient of `vector_norm` at 0 is 0; that of the root is infinite there, and 0 · inf is NaN.",
        keeps_function=True,
    ),
    Remedy(
        "two-pass-variance",
        "Let torch compute the variance",
        Rewrite(_VARIANCE),
        "E[x²] - E[x]² cancels every digit when the mean is large against the spread; `var` subtracts the mean first.",
        keeps_function=True,
    ),
    Remedy(
        "centre-first",
        "Subtract the mean before squaring",
        Rewrite(_CENTRED),
        "The squares are of the size of the spread then, and nothing cancels.",
        keeps_function=True,
    ),
    Remedy(
        "direct-difference",
        "Take the difference of the points, not of their squares",
        Rewrite(_DIFFERENCE),
        "|a|² + |b|² - 2ab of two points that are close loses all digits and may be negative; (a - b)² does neither, at the "
        "price of a tensor with one more dimension.",
        keeps_function=True,
    ),
    Remedy(
        "angle-by-atan2",
        "Take the angle from the sum and the difference of the unit vectors",
        Rewrite(_ANGLE),
        "acos has infinite slopes at ±1, where parallel vectors are; 2 · atan2(|a - b|, |a + b|) is the same angle, without "
        'them (Kahan 2006, "How futile are mindless assessments of roundoff in floating-point computation?", section 12).',
        keeps_function=True,
    ),
)
