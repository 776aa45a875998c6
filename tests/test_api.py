import pytest
import torch
from torch import nn

import stabdiag
from stabdiag.api import Diagnosis
from stabdiag.errors import UserError


class Vanishing(nn.Module):
    def __init__(self, depth=12):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return x


def healthy():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def test_a_live_model_gives_a_report_and_is_left_as_it_was():
    model, x = healthy(), torch.randn(32, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = stabdiag.scan(model, x, precisions="float32")
    assert [p.name for p in report.runs[0].precisions] == ["float32"]
    assert report.exit_code() == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scanning_twice_works_and_says_the_same():
    model, x = healthy(), torch.randn(32, 16)
    assert str(stabdiag.scan(model, x)) == str(stabdiag.scan(model, x))


def test_a_report_is_a_table_and_a_notebook_page():
    report = stabdiag.scan(Vanishing(), torch.randn(32, 16), loss=lambda out: out.square().mean(), precisions=["float32"])
    table = report.to_frame()
    assert list(table.code) == [finding.code for finding in report.findings]
    assert report._repr_html_().startswith('<div class="stabdiag">')


def test_a_file_is_scanned_in_a_process_of_its_own(tmp_path):
    report = stabdiag.scan(tmp_path / "none.py")
    assert report.exit_code() == 2 and "none.py" in report.runs[0].error.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": ["float32"]}, "did you mean `precisions`?"),
        ({"precisions": "float33"}, "did you mean `float32`?"),
        ({"budget": "much"}, "expected a number"),
        ({"select": "SD9x"}, "unknown rule `SD9x`"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(UserError) as caught:
        stabdiag.scan(healthy(), torch.randn(4, 16), **options)
    assert said in str(caught.value)


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="scna"):
        _ = stabdiag.scna
    assert stabdiag.Severity.ERROR.rank == 2 and stabdiag.Report and stabdiag.Finding


def test_a_diagnosis_shows_itself(tmp_path):
    from tests.reports.sample_report import sample_report

    report = Diagnosis("0", sample_report().runs)
    assert not report.passed and Diagnosis("0", []).passed
    assert repr(report).startswith("<Diagnosis of ") and "\n" not in repr(report)
    assert len(report.verdicts_frame()) == sum(len(run.precisions) for run in report.runs)
    assert len(report.layers_frame()) == sum(len(run.op_rows) for run in report.runs)
    for name, text in (("report.html", report.to_html()), ("report.json", report.to_json())):
        report.save(tmp_path / name)
        assert (tmp_path / name).read_text() == text
    with pytest.raises(UserError, match="suffix"):
        report.save(tmp_path / "report.docx")
