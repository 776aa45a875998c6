"""What `stabdiag fix` proves on a folder of model files: `python benchmarks/fixes.py FOLDER WRITTEN`.

For every file: the finding, the remedy, before → after, and whether the written file scans clean, in a process of its own. Then
per remedy how often it was tried and proven, and what was not proven, with the reason. Where a file says what repairs it
(`TRUTH["fix"]`), that stands beside the remedies, to compare their kinds.
"""

from __future__ import annotations

import ast
import sys
import time
from collections import Counter
from pathlib import Path

from stabdiag.finding import Severity
from stabdiag.repair.search import Outcome, prove
from stabdiag.scanning.pipeline import scan
from stabdiag.settings.request import ScanRequest


def told(path: Path) -> str:
    """The repair that a file names itself, "" where it names none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TRUTH":
            truth = ast.literal_eval(node.value)
            return str((truth or {}).get("fix", ""))
    return ""


def left_in(path: Path) -> str:
    """Errors of the written file, "clean" when there are none."""
    report = scan(ScanRequest(str(path)))
    if report.error is not None:
        return report.error.message
    return ", ".join(f.code for f in report.findings if f.severity is Severity.ERROR) or "clean"


def row(path: Path, outcome: Outcome, written: Path) -> str:
    proven = [a for a in outcome.attempts if a.fix.proven]
    remedies = "; ".join(f"{a.finding.code} {a.fix.name}" for a in proven) or "none proven"
    change = f"{proven[0].fix.before} → {proven[0].fix.after}" if proven else ""
    return f"| {path.stem} | {remedies} | {change} | {left_in(written)} | {told(path)} |"


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    tried, proven, failed = Counter[str](), Counter[str](), list[str]()
    print("| model | proven | before → after of the first | written file | the file's own word |\n|---|---|---|---|---|")
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        start = time.monotonic()
        outcome = prove(ScanRequest(str(path)), scan)
        written = out / path.name
        text = outcome.state.texts.get(str(path.resolve()))
        written.write_text(path.read_text(encoding="utf-8") if text is None else text, encoding="utf-8")
        print(row(path, outcome, written), flush=True)
        print(f"{path.stem}: {time.monotonic() - start:.0f} s, {len(outcome.attempts)} tried", file=sys.stderr)
        for attempt in outcome.attempts:
            tried[attempt.fix.name] += 1
            proven[attempt.fix.name] += attempt.fix.proven
            if not attempt.fix.proven:
                failed.append(f"- {path.stem}, {attempt.finding.code}: {attempt.fix.name}: {attempt.fix.note}")
    print("\n| remedy | tried | proven |\n|---|---|---|")
    for name, count in tried.most_common():
        print(f"| {name} | {count} | {proven[name]} |")
    print(f"| all | {tried.total()} | {proven.total()} |\n\nNot proven:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
