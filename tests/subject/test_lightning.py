"""Lightning modules: the training step is the objective, configure_optimizers the optimizer, loaders the data."""

import textwrap
from pathlib import Path

import pytest
import torch

from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.inputs.structure import structure_of
from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

HEAD = """
import {package} as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x):
        return self.net(x)
"""

STEP = """
    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*parts, package="lightning", name="lit.py"):
        text = HEAD.replace("{package}", package) + "".join(textwrap.indent(textwrap.dedent(p), "    ") for p in parts)
        (tmp_path / name).write_text(text)
        return name

    return write


def loss_of(subject):
    return subject.objective(subject.model, subject.batch(0))


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_the_training_step_is_the_objective(file, package):
    subject = load(file(STEP, package=package))
    assert subject.facts.objective == "training_step of Net" and "loss" in subject.facts.declared
    assert "3" in subject.facts.how["inputs"] or "classes" in subject.facts.how["inputs"]
    x, y = subject.batch(0).args[0]
    assert x.shape == (len(y), 6) and y.dtype == torch.int64 and set(y.tolist()) == {0, 1, 2}
    assert loss_of(subject).item() == pytest.approx(torch.nn.functional.cross_entropy(subject.model(x), y).item())


FORMS = {
    "one": ("return torch.optim.SGD(self.parameters(), lr=0.3)", 1),
    "list": ("return [torch.optim.SGD(self.parameters(), lr=0.3)]", 1),
    "two lists": (
        "o = torch.optim.SGD(self.parameters(), lr=0.3); return [o], [torch.optim.lr_scheduler.StepLR(o, 9)]",
        1,
    ),
    "dict": (
        "o = torch.optim.SGD(self.parameters(), lr=0.3); "
        "return {'optimizer': o, 'lr_scheduler': {'scheduler': torch.optim.lr_scheduler.StepLR(o, 9), 'interval': 'step'}}",
        1,
    ),
    "dicts": (
        "return ({'optimizer': torch.optim.SGD(self.net[0].parameters(), lr=0.3)}, "
        "{'optimizer': torch.optim.SGD(self.net[2].parameters(), lr=0.3)})",
        2,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_configure_optimizers(file, form):
    from stabdiag.probe.optimizer import choose

    statements, count = FORMS[form]
    subject = load(file(STEP, f"\ndef configure_optimizers(self):\n    {statements}\n"))
    chosen = choose(subject, subject.model, ScanRequest("lit.py"))
    assert len(chosen.optimizers) == count and chosen.facts["lr"] == 0.3
    assert chosen.how == "configure_optimizers of Net" and chosen.location.path == "lit.py"


def test_the_file_contract_comes_before_the_training_step(file):
    name = file(STEP)
    with Path(name).open("a") as text:
        text.write("\n\ndef loss(output):\n    return output.square().mean()\n")
    assert load(name).facts.objective == "loss(output) of the file"


def test_a_step_that_delegates_and_takes_a_dict(file):
    step = """
    def training_step(self, batch, batch_idx, dataloader_idx=0):
        return self.shared(batch, "train")

    def shared(self, batch, stage):
        loss = F.cross_entropy(self(batch["x"]), batch["kind"])
        return {"loss": loss, "stage": stage}
    """
    subject = load(file(step))
    assert list(subject.batch(0).args[0]) == ["x", "kind"] and loss_of(subject).item() > 0


def test_data_of_the_file(file):
    data = """
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.full((40, 6), 7.0), torch.arange(40) % 3), batch_size=10)
    """
    subject = load(file(STEP, data))
    assert subject.facts.how["inputs"] == "of the file's own train_dataloader of Net" and "inputs" in subject.facts.declared
    assert (
        subject.batches == 2 and subject.batch(0).args[0][0].shape == (10, 6) and float(subject.batch(1).args[0][0][0, 0]) == 7
    )


def test_a_data_module_supplies_the_data(file):
    name = file(STEP)
    with Path(name).open("a") as text:
        text.write(
            textwrap.dedent("""

            class Data(L.LightningDataModule):
                def setup(self, stage):
                    self.rows = TensorDataset(torch.full((40, 6), 5.0), torch.arange(40) % 3)

                def train_dataloader(self):
                    return DataLoader(self.rows, batch_size=8)
            """)
        )
    subject = load(name)
    assert subject.facts.how["inputs"] == "of the file's own train_dataloader of Data" and len(subject.batch(0).args[0][0]) == 8


def test_optimising_by_hand_is_refused_in_one_sentence(file):
    step = STEP + "\n    @property\n    def automatic_optimization(self):\n        return False\n"
    with pytest.raises(SubjectError, match=r"optimises by hand.*stabdiag run"):
        load(file(step))


def test_a_defect_in_the_training_step_is_found_at_its_line(file):
    step = """
    def training_step(self, batch, batch_idx):
        x, y = batch
        p = torch.softmax(self(x) * 300, 1)
        return F.nll_loss(torch.log(p), y)
    """
    report = scan_here(ScanRequest(file(step), precisions=["float32"]))
    found = [f for f in report.findings if f.severity.value == "error"]
    assert [(f.code, f.location.source.strip()) for f in found][:1] == [("SD601", "return F.nll_loss(torch.log(p), y)")]
    assert report.subject.objective == "training_step of Net"


def test_the_loss_is_a_phase_of_its_own(file):
    from stabdiag.probe.here import probe_file

    trace = probe_file(ScanRequest(file(STEP), precisions=["float32"]), lambda what, share: None)
    ops = {(op.phase, op.module) for op in trace.base.ops if op.phase in ("forward", "loss")}
    assert ("forward", "net.0") in ops and ("loss", "") in ops and ("loss", "net.0") not in ops
    assert trace.base.values[trace.base.outputs[0]].shape == (64, 3)


class Nested:
    def training_step(self, batch, index):
        (a, b), y = batch
        return a + b + y

    def plain(self, batch):
        return batch * 2

    def indexed(self, batch):
        return batch[0] + batch[2]


def test_the_structure_of_a_batch_is_read_from_the_code():
    assert structure_of(Nested, "training_step")[1]([1, 2, 3]) == ((1, 2), 3)
    assert structure_of(Nested, "plain")[0] == 1 and structure_of(Nested, "plain")[1]([5]) == 5
    assert structure_of(Nested, "indexed")[1]([1, 2]) == (1, 2, 2)
