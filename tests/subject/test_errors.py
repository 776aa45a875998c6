"""What a person can do wrong: one sentence that says what was given, what was expected and how to repair it."""

from pathlib import Path

import pytest

from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

FILES = Path(__file__).parent / "files"

LINEAR = "class {0}(nn.Linear):\n    def __init__(self): super().__init__(3, 3)\n"
NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
    def forward(self, x):
        {0}
"""

BAD = {
    "exits": ("import sys\nsys.exit(3)", "load", "calls sys.exit(3)"),
    "syntax": ("def f(:\n    pass", "load", "line 4"),
    "binary": ("x = '\0'", "load", "not"),
    "empty": ("x = 1", "load", "defines no model"),
    "several": (LINEAR.format("Encoder") + LINEAR.format("Decoder"), "load", "Encoder, Decoder"),
    "constructor": (
        "class Net(nn.Linear):\n    def __init__(self, flavour): super().__init__(flavour, 1)",
        "load",
        "--arg flavour=…",
    ),
    "package": ("import a_package_nobody_has", "load", "'a_package_nobody_has'"),
    "raises": ("raise ValueError('no such day')", "load", "ValueError: no such day at model.py:4"),
    "recursion": ("def f(): return f()\nf()", "load", "RecursionError"),
    "builds_recursively": ("def build_model(): return build_model()", "load", "RecursionError"),
    "build_exits": ("def build_model(): raise SystemExit(1)", "load", "sys.exit"),
    "no_module": ("def build_model(): return 3", "load", "returned int"),
    "forward": (NET.format("raise KeyError('weather')"), "forward", "KeyError: 'weather' at model.py:10"),
    "forward_recursion": (NET.format("return self.forward(x)"), "forward", "calls itself without end"),
    "inputs_raise": (
        "def build_model(): return nn.Linear(2, 2)\ndef example_inputs(): return 1 / 0",
        "input",
        "ZeroDivisionError",
    ),
    "inputs_wrong": (
        "def build_model(): return nn.Linear(2, 2)\ndef example_inputs(): return (torch.ones(3, 5),)",
        "forward",
        "on example_inputs() (3×5)",
    ),
    "inputs_nothing": ("def build_model(): return nn.Linear(2, 2)\ndef example_inputs(): pass", "input", "returned NoneType"),
    "loss_vector": (
        "def build_model(): return nn.Linear(2, 4)\ndef loss(out): return out.mean(0)",
        "forward",
        "expected a scalar",
    ),
    "loss_number": ("def build_model(): return nn.Linear(2, 4)\ndef loss(out): return 0.5", "forward", "returned float"),
    "loss_raises": ("def build_model(): return nn.Linear(2, 4)\ndef loss(out): return out.logits", "forward", "AttributeError"),
    "undifferentiable": (NET.format("return self.fc(x).argmax(-1)"), "forward", "cannot be differentiated"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_sentence(case, write):
    code, kind, words = BAD[case]
    with pytest.raises(SubjectError) as caught:
        load(str(write(code)))
    message = str(caught.value)
    assert caught.value.kind == kind
    assert words in message
    assert "\n" not in message and len(message) < 420 and message.endswith((".", "!"))


def test_the_detail_is_cut_to_the_authors_frames(write):
    with pytest.raises(SubjectError) as caught:
        load(str(write(NET.format("return self.fc(x.reshape(-1, 3).no_such_method())"))))
    assert "model.py" in caught.value.detail
    assert "site-packages" not in caught.value.detail and "stabdiag/subject" not in caught.value.detail


@pytest.mark.parametrize(
    ("target", "options", "kind", "words"),
    [
        ("nowhere.py", {}, "load", "does not exist"),
        (str(FILES), {}, "load", "is a directory"),
        (f"{FILES / 'lenet.py'}:LeNet6", {}, "load", "did you mean LeNet?"),
        (f"{FILES / 'lenet.py'}:", {}, "usage", "names no model"),
        (str(FILES / "config_without_defaults.py"), {}, "load", "--arg width=… --arg depth=…"),
        (str(FILES / "config_without_defaults.py"), {"arguments": {"widht": "3"}}, "usage", "did you mean width?"),
        (str(FILES / "instance.py"), {"arguments": {"width": "3"}}, "usage", "already built"),
        (str(FILES / "lenet.py"), {"input_specs": ["3by4"]}, "usage", "cannot be read"),
        (str(FILES / "lenet.py"), {"input_specs": ["8x3x28x28"]}, "input", "on --input"),
        (str(FILES / "lenet.py"), {"input_specs": ["img=8x1x28x28"]}, "usage", "takes no such argument"),
        (str(FILES / "lenet.py"), {"input_specs": ["2x2", "2x2"]}, "usage", "takes only x"),
        (str(FILES / "lenet.py"), {"data": "nothing.pt"}, "input", "does not exist"),
        (str(FILES / "lenet.py"), {"weights": "nothing.pt"}, "input", "does not exist"),
        (str(FILES / "lenet.py"), {"device": "gpu"}, "usage", "--device gpu"),
        (str(FILES / "lenet.py"), {"device": "cuda:99"}, "usage", "CUDA"),
    ],
)
def test_options(target, options, kind, words):
    with pytest.raises(SubjectError) as caught:
        load(target, **options)
    assert caught.value.kind == kind and words in str(caught.value)


def test_a_script_that_parses_arguments_when_imported(capsys):
    with pytest.raises(SubjectError, match="parses command-line arguments") as caught:
        load(str(FILES / "arguments_at_import.py"))
    assert "__main__" in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_text_that_is_not_python(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SubjectError, match="not a Python file"):
        load(str(tmp_path / "notes.txt"))
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SubjectError, match="Python"):
        load(str(tmp_path / "bytes.py"))
