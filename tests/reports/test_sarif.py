import json
from urllib.parse import unquote

import pytest
import sarif_pydantic

from stabdiag.judging.report import Report
from stabdiag.reports import sarif
from stabdiag.reports.parts import place as _place
from stabdiag.trace import Location
from tests.reports.sample_report import healthy, sample_report, sick

# What GitHub's code scanning requires of each object (docs.github.com, "SARIF support for code scanning"), and its limits.
REQUIRED = {
    "sarifLog": ["$schema", "version", "runs"],
    "run": ["tool.driver", "results"],
    "driver": ["name", "rules"],
    "rule": ["id", "shortDescription.text", "fullDescription.text", "help.text", "help.markdown"],
    "result": ["message.text", "locations", "partialFingerprints.primaryLocationLineHash"],
    "physicalLocation": [
        "artifactLocation.uri",
        "region.startLine",
        "region.startColumn",
        "region.endLine",
        "region.endColumn",
    ],
}
LIMITS = {"shortDescription": 1024, "fullDescription": 1024, "name": 255, "tags": 20, "locations": 10}


def get(thing, path):
    for key in path.split("."):
        thing = thing[key]
    return thing


def objects(log):
    yield "sarifLog", log
    for run in log["runs"]:
        yield "run", run
        yield "driver", run["tool"]["driver"]
        yield from (("rule", rule) for rule in run["tool"]["driver"]["rules"])
        for result in run["results"]:
            yield "result", result
            yield from (("physicalLocation", location["physicalLocation"]) for location in result["locations"])


def log_of(*runs):
    return json.loads(sarif.render(Report("0.1.0", list(runs))))


def test_the_log_as_it_is(snapshot, fixed_rules):
    assert sarif.render(sample_report()) == snapshot


def test_it_is_sarif():
    read = sarif_pydantic.Sarif.model_validate_json(sarif.render(sample_report()))
    assert [result.rule_id for result in read.runs[0].results] == ["SD201", "SD601", "SD705"]


def test_github_gets_what_it_requires():
    for kind, thing in objects(log_of(sick(), healthy())):
        for path in REQUIRED[kind]:
            assert get(thing, path) not in (None, ""), (kind, path)


def test_github_limits_hold():
    log = log_of(sick())
    assert len(log["runs"]) == 1
    for rule in log["runs"][0]["tool"]["driver"]["rules"]:
        assert len(rule["shortDescription"]["text"]) <= LIMITS["shortDescription"]
        assert len(rule["fullDescription"]["text"]) <= LIMITS["fullDescription"]
        assert len(rule["name"]) <= LIMITS["name"] and len(rule["properties"]["tags"]) <= LIMITS["tags"]


def test_too_many_results_are_cut():
    run = sick()
    run.findings = [run.findings[0]] * (sarif.RESULTS + 5)
    assert len(log_of(run)["runs"][0]["results"]) == sarif.RESULTS


def test_rules_are_referred_to_by_index():
    run = log_of(sick(), healthy())["runs"][0]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_equal_findings_get_different_line_hashes():
    run = sick()
    run.findings = [run.findings[0], run.findings[0]]
    hashes = [result["partialFingerprints"]["primaryLocationLineHash"] for result in log_of(run)["runs"][0]["results"]]
    assert len(set(hashes)) == 2


def test_accepted_findings_are_left_out():
    run = sick()
    run.findings[0].status = "baselined"
    assert [result["ruleId"] for result in log_of(run)["runs"][0]["results"]] == ["SD601", "SD705"]


def test_regions_never_end_before_they_start():
    run = sick()
    for start, end in [(None, None), (4, None), (4, 4), (9, 2)]:
        run.findings[0].location = Location("net.py", 3, start, end, source="    y = x.log()")
        region = log_of(run)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]
        assert region["endColumn"] > region["startColumn"] >= 1


@pytest.mark.parametrize("name", ["a b.py", "größe.py", "100%.py", "a#b?.py"])
def test_uris_are_relative_and_encoded(name):
    run = sick()
    run.findings[0].location = Location(f"models/{name}", 3)
    uri = log_of(run)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert not set(uri) & set(" #?ö") and unquote(uri).endswith(f"models/{name}") and not uri.startswith(("/", "file:"))


def test_paths_are_relative_to_the_checkout(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / "training").mkdir()
    monkeypatch.chdir(tmp_path / "training")
    _place._below_repository.cache_clear()
    try:
        location = log_of(sick())["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert location["artifactLocation"]["uri"] == "training/models/net.py"
    finally:
        _place._below_repository.cache_clear()


def test_a_failed_scan_is_a_notification():
    invocation = json.loads(sarif.render(sample_report()))["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert "models/missing.py was not scanned" in invocation["toolExecutionNotifications"][0]["message"]["text"]
