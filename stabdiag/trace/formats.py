"""Floating-point formats as plain numbers, so that rules can judge without importing torch.

Sources: IEEE 754-2019 for float64, float32 and float16; Intel's bfloat16 definition; for FP8, Micikevicius et al. 2022,
"FP8 Formats for Deep Learning" (arXiv:2209.05433), Table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, log2


@dataclass(frozen=True, slots=True)
class Format:
    """One floating-point format.

    Attributes:
        name: torch's spelling.
        digits: significand bits, the hidden one included.
        max: largest finite value.
        tiny: smallest positive normal value.
        smallest: smallest positive subnormal value.
    """

    name: str
    digits: int
    max: float
    tiny: float
    smallest: float

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding to nearest: 2^-digits."""
        return 2.0**-self.digits

    def spacing(self, magnitude: float) -> float:
        """Distance between neighbouring numbers at a magnitude."""
        return 2.0 ** (frexp(max(magnitude, self.tiny))[1] - self.digits)

    @property
    def max_exponent(self) -> int:
        """floor(log2(max))."""
        return int(log2(self.max)) if self.name != "float64" else 1023


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("float64", 53, 1.7976931348623157e308, 2.0**-1022, 2.0**-1074),
        Format("float32", 24, 3.4028234663852886e38, 2.0**-126, 2.0**-149),
        Format("float16", 11, 65504.0, 2.0**-14, 2.0**-24),
        Format("bfloat16", 8, 3.3895313892515355e38, 2.0**-126, 2.0**-133),
        Format("float8_e4m3fn", 4, 448.0, 2.0**-6, 2.0**-9),
        Format("float8_e5m2", 3, 57344.0, 2.0**-14, 2.0**-16),
    )
}

PRECISIONS: tuple[str, ...] = (
    *("float64", "float32", "float16", "bfloat16", "amp-float16", "amp-bfloat16"),
    *("float8_e4m3fn", "float8_e5m2"),  # predicted, never run
)


def format_of(precision: str) -> Format:
    """The format that limits a precision: `amp-float16` computes in float16 wherever autocast casts."""
    return FORMATS[precision.removeprefix("amp-")]
