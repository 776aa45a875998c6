import pytest
import torch

from stabdiag.subject.inputs.specification import balanced, parse
from stabdiag.subject.subject import SubjectError


@pytest.mark.parametrize(
    ("text", "name", "shape", "dtype", "high"),
    [
        ("8x3x32x32", "", (8, 3, 32, 32), torch.float32, 0),
        ("8×16", "", (8, 16), torch.float32, 0),
        ("ids=4x128:int64<1000", "ids", (4, 128), torch.int64, 1000),
        ("ids=4x128<1000", "ids", (4, 128), torch.int64, 1000),
        ("x=5:float64", "x", (5,), torch.float64, 0),
        ("mask=4x8:bool", "mask", (4, 8), torch.bool, 0),
    ],
)
def test_parse(text, name, shape, dtype, high):
    found = parse(text)
    assert (found.name, found.shape, found.dtype, found.high) == (name, shape, dtype, high)
    value = found.sample(torch.Generator().manual_seed(0))
    assert value.shape == shape and value.dtype == dtype
    assert not high or value.max() < high


@pytest.mark.parametrize("text", ["", "axb", "8x", "x=", "4x4:int65", "4x0", "4:float32<3", "4:int64<0", "4 4"])
def test_what_cannot_be_read_is_said(text):
    with pytest.raises(SubjectError) as caught:
        parse(text)
    assert caught.value.kind == "usage" and "expected" in str(caught.value)


def test_labels_are_balanced():
    labels = balanced((7, 5), 4, torch.Generator().manual_seed(0))
    counts = labels.flatten().bincount()
    assert counts.max() - counts.min() <= 1 and len(counts) == 4
    assert not torch.equal(labels.flatten(), labels.flatten().sort().values)
