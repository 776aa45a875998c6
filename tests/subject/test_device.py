import pytest
import torch

from stabdiag.subject.device import resolve
from stabdiag.subject.subject import SubjectError


def test_resolve(monkeypatch):
    assert resolve("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve("auto") == torch.device("cpu")
    with pytest.raises(SubjectError, match="sees no CUDA device") as caught:
        resolve("cuda")
    assert caught.value.kind == "usage"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve("auto").type == resolve("cuda").type == "cuda"
    with pytest.raises(SubjectError, match="only 1"):
        resolve("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "meta", "tpu:0"])
def test_unknown(name):
    with pytest.raises(SubjectError, match="expected auto, cpu or cuda"):
        resolve(name)
