"""The pytest plugin: `pytest --stabdiag` adds one test per configured model and precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stabdiag.judging.report import Report
    from stabdiag.settings.request import RunOptions, ScanRequest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--stabdiag`."""
    group = parser.getgroup("stabdiag", "numerical stability of models")
    group.addoption("--stabdiag", action="store_true", help="test the models of [tool.stabdiag], one test per precision")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests, before `-k` and `-m` choose among them."""
    if not config.getoption("--stabdiag"):
        return
    from stabdiag.errors import UserError
    from stabdiag.settings.config import load, nearest

    try:
        settings = load({}, config=nearest(config.rootpath))
        requests, options = settings.requests([]), settings.options
    except UserError as error:
        raise pytest.UsageError(f"stabdiag: {error}") from None
    for request in requests:
        model: Model = Model.from_parent(session, name=request.target, request=request, options=options)
        items.extend(model.collect())


class Model(pytest.Collector):
    """One configured model. It is scanned once, when its first test runs."""

    def __init__(self, *, request: ScanRequest, options: RunOptions, **rest: Any) -> None:
        super().__init__(nodeid=f"stabdiag::{request.target}", **rest)
        self.request = request
        self.options = options
        self._report: Report | None = None

    def collect(self) -> list[pytest.Item]:
        """One test per precision."""
        from stabdiag.settings.request import DEFAULT_PRECISIONS

        return [Stability.from_parent(self, name=precision) for precision in self.request.precisions or DEFAULT_PRECISIONS]

    def report(self) -> Report:
        """The report of the model, scanned at the first call."""
        if self._report is None:
            from stabdiag.scanning.session import run

            self._report = run([self.request], self.options)
        return self._report


class Stability(pytest.Item):
    """One model in one precision."""

    parent: Model

    def runtest(self) -> None:
        """Fail with the findings in this precision; skip where it could not be run."""
        from stabdiag.testing import failures

        report, fail_on = self.parent.report(), self.parent.options.fail_on
        declared = report.runs[0].subject.training.get("precisions", ())
        if declared and not self.parent.request.precisions and self.name not in declared:
            pytest.skip("the file's PRECISIONS leave it out")
        for verdict in report.runs[0].precisions:
            if verdict.name == self.name and verdict.verdict == "not-run":
                pytest.skip(verdict.reason or "this precision could not be run")
        reasons = failures(report, fail_on, self.name) if fail_on != "never" else []
        if reasons:
            raise UnstableError("\n".join([*reasons, "", str(report)]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The report instead of a traceback through stabdiag."""
        return str(excinfo.value) if isinstance(excinfo.value, UnstableError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The headline of a failure."""
        target = self.parent.request.target
        return Path(target.partition(":")[0]), None, f"stabdiag {target} [{self.name}]"


class UnstableError(Exception):
    """A model is not stable in a precision; the text says why and holds the report."""
