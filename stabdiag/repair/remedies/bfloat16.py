"""Use bfloat16 instead of float16.

bfloat16 has the range of float32: what overflows or flushes to zero in float16 does not, at the price of three bits of
precision.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD104", "SD105", "SD302", "SD303", "SD304", "SD305", "SD505", "SD610")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """Scan bfloat16 in place of float16, cast and autocast alike; only for findings that float32 and bfloat16 do not show."""
    if any(p.removeprefix("amp-") != "float16" for p in finding.precisions) or not finding.precisions:
        return None
    names = [p.replace("float16", "bfloat16") if p.removeprefix("amp-") == "float16" else p for p in request.precisions]
    return {"precisions": list(dict.fromkeys(names))}
