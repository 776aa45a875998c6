"""A trace on its way from the worker to the parent."""

import pickle
from collections import OrderedDict

import numpy
import pytest
import torch

from stabdiag.trace import Location, Op, Run, Stats, SubjectFacts, Trace, Value
from stabdiag.trace.experiments import Experiments
from stabdiag.trace.file import dumps, loads


def trace(**found):
    at = Location("model.py", 3, source="x = a + b")
    op = Op(0, "add", "forward", "net", "Net", 0, "net", at, [0], [1], {"alpha": 1, "dims": [0, 1]})
    measured = Stats(count=3, max=2.0, max_abs=2.0, histogram={1: 3})
    values = [Value("input", "x", None, "float32", (3,)), Value("result", "", 0, "float32", (3,), stats=measured)]
    run = Run("float32", ops=[op], values=values)
    return Trace(SubjectFacts("model.py", "Net", 0, "", ""), runs=[run], experiments=Experiments(training=found))


def test_a_trace_comes_back_as_it_was():
    sent = trace(limits={0: (1.0, None), "nan": [float("inf")]})
    assert loads(dumps(sent)) == sent


def test_what_rules_cached_stays_behind():
    sent = trace()
    assert sent.runs[0].consumers(0) and "_consumers" in vars(sent.runs[0])
    assert "_consumers" not in vars(loads(dumps(sent)).runs[0])


def test_numbers_of_other_libraries_become_plain_ones():
    back = loads(
        dumps(trace(a=numpy.float64(0.5), b=numpy.int64(3), c=torch.Size([2, 3]), d=numpy.arange(2), e=OrderedDict(k=1)))
    ).experiments.training
    assert back == {"a": 0.5, "b": 3, "c": (2, 3), "d": [0, 1], "e": {"k": 1}}
    assert [type(v) for v in back.values()] == [float, int, tuple, list, dict]


class Malicious:
    def __reduce__(self):
        return print, ("run in the parent",)


# What dataclasses.replace, which the module imports, can reach: its globals, and in them a function that runs source text.
DOTTED = b"\x80\x04\x8c\x0estabdiag.trace\x8c\x17replace.__globals__.get\x93\x8c\x0a_create_fn\x85R."


@pytest.mark.parametrize("data", [pickle.dumps(Malicious()), pickle.dumps({"version": 1})])
def test_nothing_but_a_trace_is_read(data, capsys):
    with pytest.raises(ValueError, match="trace"):
        loads(data)
    assert capsys.readouterr().out == ""


def test_no_way_leads_through_what_the_module_imports():
    with pytest.raises(ValueError, match=r"not stabdiag\.trace\.replace"):
        loads(DOTTED)
