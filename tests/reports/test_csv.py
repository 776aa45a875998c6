from io import StringIO

import pandas

from stabdiag.judging.report import Report
from stabdiag.reports import csv
from tests.reports.sample_report import healthy, sample_report


def test_one_row_per_finding(snapshot):
    assert csv.render(sample_report()) == snapshot


def test_pandas_reads_it_back():
    table = pandas.read_csv(StringIO(csv.render(sample_report())))
    assert list(table.code) == ["SD201", "SD601", "SD703", "SD705"]
    assert list(table.line[:2]) == [41, 52] and table.line.isna()[3]
    assert list(table.fix_proven.fillna("")) == ["yes", "", "", ""]


def test_without_findings_the_columns_are_there():
    assert csv.render(Report("0", [healthy()])).splitlines() == [",".join(csv.FINDING_COLUMNS)]


def test_layers_have_one_row_per_op_precision_and_phase(snapshot):
    assert csv.layers(sample_report()) == snapshot
    table = pandas.read_csv(StringIO(csv.layers(sample_report())))
    assert table.rms.isna().tolist() == [False, True]


def test_steps_without_training_have_their_columns():
    assert csv.steps(sample_report()) == "model,precision,seed,step,loss,gradient_norm,scale,skipped\n"


def test_steps_have_one_row_each():
    run = healthy()
    run.training = {"rows": [{"precision": "float32", "seed": 0, "step": k, "loss": 1.0 / (k + 1)} for k in range(3)]}
    assert csv.steps(Report("0", [run])).splitlines()[:2] == [
        "model,precision,seed,step,loss",
        "models/ok.py:GPT,float32,0,0,1",
    ]
