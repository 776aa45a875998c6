"""Code that makes CPU tensors of its own cannot run on a device that was picked for it."""

import pytest
import torch
from torch import Tensor, nn

import stabdiag
from stabdiag.probe import runner
from stabdiag.probe.recorder import Recorder
from stabdiag.recording.reference import Reference
from stabdiag.trace import NotRun
from tests.probe.recording import subject_of

TARGET = torch.zeros(16, 4)


def loss_on_the_cpu(output: Tensor) -> Tensor:
    return (output - TARGET).square().mean()


def report(loss=loss_on_the_cpu, **options):
    torch.manual_seed(0)
    return stabdiag.scan(nn.Linear(8, 4), inputs=torch.randn(16, 8), loss=loss, **options).runs[0]


def test_where_auto_does_not_fit_the_cpu_is_used_and_said(monkeypatch):
    on_cpu = runner._reference

    def reference(recorder, trace, progress):
        if recorder.device.type == "cpu":
            return on_cpu(recorder, trace, progress)
        said = "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        trace.not_run.append(NotRun("float64", said))
        return Reference()

    monkeypatch.setattr(runner, "_reference", reference)
    monkeypatch.setattr(runner, "resolve", lambda name: torch.device("cuda"))
    found = report()
    assert found.error is None
    assert [p.verdict for p in found.precisions] == ["safe", "safe", "safe"]
    assert [f.message for f in found.findings if f.code == "SD003"] == [
        "the cuda device: the model's code makes tensors on the CPU, so all of it ran there"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_of_the_cpu_on_a_real_device():
    assert [p.verdict for p in report().precisions] == ["safe", "safe", "safe"]
    assert any("same device" in f.message for f in report(device="cuda").findings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_code_that_follows_its_tensors_stays_on_cuda():
    found = report(loss=lambda output: output.square().mean())
    assert {(p.verdict, p.mode) for p in found.precisions} == {("safe", "native")}
    assert not found.findings


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recording_on_cuda_adds_no_ops():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    subject = subject_of(model, torch.randn(16, 8), loss=lambda z: torch.where(z > 0, z.sqrt(), torch.zeros_like(z)).mean())
    names = []
    for device in ("cpu", "cuda"):
        recorder = Recorder(subject, torch.device(device))
        with recorder.stage("float32") as stage:
            names.append([op.name for op in recorder.record(stage).ops])
    assert names[0] == names[1]
