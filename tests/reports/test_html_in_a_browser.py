"""The page in a real browser: no errors, keyboard, narrow screens, many operations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stabdiag.judging.report import Report
from stabdiag.reports import html
from tests.reports.sample_report import sample_report, sick

selenium = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs Chromium and its driver"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    options = selenium.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def shown(browser, tmp_path: Path, report: Report, width: int = 1200) -> None:
    path = tmp_path / "report.html"
    path.write_text(html.render(report))
    browser.set_window_size(width, 900)
    browser.get(path.as_uri())


def measured(rows: int) -> Report:
    run = sick()
    run.op_rows = [
        replace(run.op_rows[0], index=i, module=f"blocks.{i}", line=i, phase="forward", exponents={0: 9, -i % 9: 3})
        for i in range(rows)
    ]
    return Report("0", [run])


def test_no_error_is_logged(browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, sample_report())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_does_not_scroll_sideways(browser, tmp_path: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    shown(browser, tmp_path, measured(50), width)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= inner


def test_arrow_keys_read_one_operation_after_the_other(browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, measured(50))
    canvas = browser.find_element("css selector", "canvas")
    reading = browser.find_element("css selector", ".reading")
    first = reading.text
    canvas.send_keys("\ue014")  # arrow right
    assert first.startswith("blocks.0") and reading.text.startswith("blocks.1")


def test_twenty_thousand_operations_stay_a_few_rows(browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, measured(20_000))
    box = browser.find_element("css selector", "input[type=search]")
    assert len(browser.find_elements("css selector", ".ops tbody tr")) < 100
    box.send_keys("blocks.19999")
    rows = browser.find_elements("css selector", ".ops tbody tr:not([aria-hidden])")
    assert len(rows) == 1 and "blocks.19999" in rows[0].text


def test_landmarks_and_headings(browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, sample_report())
    assert all(browser.find_elements("css selector", tag) for tag in ("header", "main", "footer", "h1", "h2", "h3"))
