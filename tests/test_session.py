import json

from tests.reports.sample_report import sick


def test_the_gate_from_baseline_to_stale_entry(stabdiag, scanned, tmp_path):
    def run():
        made = sick()
        made.rules_run = ["SD001", "SD201", "SD601", "SD705"]
        return made

    scanned.makers["net.py"] = run
    assert stabdiag("scan", "net.py")[0] == 1
    assert stabdiag("scan", "net.py", "--write-baseline", "base.json")[0] == 0
    code, out, _ = stabdiag("scan", "net.py", "--baseline", "base.json")
    assert code == 0 and "no findings · 3 baselined · 1 suppressed" in out

    def repaired():
        made = run()
        del made.findings[0]
        return made

    scanned.makers["net.py"] = repaired
    code, out, _ = stabdiag("scan", "net.py", "--baseline", "base.json")
    assert code == 0 and "warning[SD001]" in out and "no longer occurs" in out
    assert "--write-baseline base.json" in out


def test_a_missing_baseline_is_said_before_the_scan(stabdiag, scanned):
    code, out, err = stabdiag("scan", "net.py", "--baseline", "base.json")
    assert (code, out) == (2, "") and "--write-baseline" in err
    assert not scanned.requests


def test_findings_are_ordered_and_those_below_the_least_severity_left_out(stabdiag, scanned):
    def findings(*options):
        data = json.loads(stabdiag("scan", "net.py", "-f", "json", *options)[1])
        return [finding["code"] for finding in data["runs"][0]["findings"]]

    assert findings() == ["SD201", "SD703", "SD601", "SD705"]
    assert findings("--min-severity", "error") == ["SD201"]


def test_a_baseline_keeps_what_it_holds_about_other_models(stabdiag, scanned, tmp_path):
    stabdiag("scan", "net.py", "ok.py", "--write-baseline", "base.json")
    before = (tmp_path / "base.json").read_text()
    stabdiag("scan", "ok.py", "--write-baseline", "base.json")
    assert (tmp_path / "base.json").read_text() == before


def test_a_baseline_is_not_written_when_a_scan_did_not_happen(stabdiag, scanned, tmp_path):
    stabdiag("scan", "net.py", "--write-baseline", "base.json")
    before = (tmp_path / "base.json").read_text()
    code, _, _ = stabdiag("scan", "net.py", "missing.py", "--write-baseline", "base.json")
    assert code == 2 and (tmp_path / "base.json").read_text() == before
