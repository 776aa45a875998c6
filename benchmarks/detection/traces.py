"""Traces of folders of model files, probed once and kept, so that all tables read the same runs and rules can be tried on them.

    python -m benchmarks.detection.traces STORE FOLDER…     probe what the store lacks, each file in a process of its own

A file that changed is probed again; a change of the probe is not noticed: empty the store after one.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stabdiag.probe.process import probe_in_worker
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from stabdiag.trace import file as trace_file

STORE = Path(tempfile.gettempdir()) / "stabdiag-traces"


def traces(folder: Path, store: Path = STORE) -> Iterator[tuple[str, Trace]]:
    """Name and trace of every model file of a folder; one that does not load is told on stderr."""
    store.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.py")):
        kept = store / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.trace"
        if not kept.exists():
            trace, error = probe_in_worker(ScanRequest(str(path)), None)
            if trace is None:
                print(f"not scanned: {path.name}: {error}", file=sys.stderr)
                continue
            kept.write_bytes(trace_file.dumps(trace))
        yield path.stem, trace_file.loads(kept.read_bytes())


if __name__ == "__main__":
    for folder in sys.argv[2:]:
        for name, _ in traces(Path(folder), Path(sys.argv[1])):
            print(name, flush=True)
