"""Unstable expressions: found, at which line, how far what feeds them had to move, and what the confirmation costs.

    python -m benchmarks.detection.expressions            the table over the models of tests/expressions/zoo.py
    python -m benchmarks.detection.expressions --trained  how large the logits of small trained classifiers become

The second is the measurement behind `stabdiag.evidence.expressions.plausible.REACHED`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from stabdiag.evidence.expressions.plausible import SPECIAL
from stabdiag.probe.here import probe_file
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from tests.evidence.expressions.zoo import STABLE, UNSTABLE, model_file

FORMATS = ("float32", "bfloat16", "float16")


def main() -> None:
    """Print the table."""
    rows = {kind: scans(kind, styles) for kind, styles in UNSTABLE.items()}
    print(
        f"{'kind':30} models found  error  line " + " ".join(f"{f + ' value/gradient':>26}" for f in FORMATS) + "  cost (max)"
    )
    for kind, found in rows.items():
        numbers = [sum(bool(row[key]) for row in found) for key in ("found", "error", "line")]
        limits = " ".join(f"{span(found, f, 'value') + ' / ' + span(found, f, 'gradient'):>26}" for f in FORMATS)
        costs = [row["cost"] for row in found]
        counts = f"{len(found):6} {numbers[0]:5} {numbers[1]:6} {numbers[2]:5}"
        print(f"{kind:30} {counts} {limits}  {median(costs):4.1f} ({max(costs):.1f})")
    noisy = [style for style, text in STABLE.items() if any(f.code.startswith("SD6") for f in scanned(text)[0])]
    print(f"guarded forms: {len(STABLE)}, with a finding: {len(noisy)} {noisy or ''}")


def scans(kind: str, styles: dict[str, tuple[str, str]]) -> list[dict[str, object]]:
    """One row per model of a kind."""
    rows = []
    for text in styles.values():
        findings, cost = scanned(text)
        lines = model_file(*text).splitlines()
        expected = {(n, code) for n, line in enumerate(lines, 1) for code in re.findall(r"# expect: (SD\d+)", line)}
        loud = [f for f in findings if f.severity != "info" and f.code in {code for _, code in expected}]
        hit = [f for f in loud if f.location and (f.location.line, f.code) in expected]
        limits = defaultdict(list)
        for f in hit:
            for format, kinds in f.evidence.get("breaks", {}).items():
                for what, where in kinds.items():
                    if where["how"] not in (*SPECIAL, "observed"):
                        limits[format, what].append(where["moved"])
        rows.append(
            {
                "found": loud,
                "error": any(f.severity == "error" for f in loud),
                "line": hit,
                "limits": limits,
                "cost": cost,
            }
        )
    return rows


def scanned(text: tuple[str, str]) -> tuple[list, float]:
    """Findings of one model, and the forward passes that its confirmation cost."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.py"
        path.write_text(model_file(*text))
        request = ScanRequest(target=str(path), select=["SD6"])
        trace = probe_file(request, lambda what, share: None)
    return report_on(trace, request).findings, trace.experiments.confirmation.get("cost", 0.0)


def span(rows: list[dict], format: str, kind: str) -> str:
    """Smallest value at which one of the models of a kind breaks."""
    values = [limit for row in rows for limit in row["limits"].get((format, kind), [])]
    return f"{min(values):.4g}" if values else "-"


def trained() -> None:
    """Train three small classifiers on data with classes that can be told apart, and print what their logits reach."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    centres, patterns = 2 * torch.randn(10, 20, generator=generator), torch.randn(10, 1, 12, 12, generator=generator)
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    binary = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
    convolution = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
    )
    for name, model, prototypes in (("mlp", mlp, centres), ("binary", binary, centres), ("convolution", convolution, patterns)):
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for step in range(2001):
            g = torch.Generator().manual_seed(step)
            y = torch.randint(0, 10, (64,), generator=g)
            x = prototypes[y] + torch.randn(64, *prototypes.shape[1:], generator=g)
            z = model(x)
            loss = F.cross_entropy(z, y) if name != "binary" else F.binary_cross_entropy_with_logits(z[:, 0], (y > 4).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step in (0, 100, 500, 1000, 2000):
                spread = (z.amax(1) - z.amin(1)).max().item()
                reached = f"largest spread {spread:5.1f} magnitude {z.abs().max():5.1f}"
                print(f"{name:12} step {step:4} loss {loss.item():.4f} {reached}")


if __name__ == "__main__":
    trained() if "--trained" in sys.argv else main()
