"""`stabdiag init`: the wrapper scans as the model itself does, and says what is guessed."""

from pathlib import Path

import pytest

from stabdiag.subject.load import load
from stabdiag.subject.wrapper import wrapper

FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize(
    "file", ["lenet_linear.py", "gpt.py", "default_arguments.py", "instance.py", "edge_index.py", "vae.py"]
)
def test_the_wrapper_is_the_model(file, tmp_path, monkeypatch):
    original = load(str(FILES / file))
    monkeypatch.syspath_prepend(str(FILES))
    path = tmp_path / "wrapped.py"
    path.write_text(wrapper(str(FILES / file)))
    subject = load(str(path))
    assert subject.facts.parameters == original.facts.parameters
    assert {"inputs", "loss", "optimizer"} <= set(subject.facts.declared)
    assert subject.objective(subject.model, subject.batch(0)).isfinite()


def test_the_command_writes_it_and_the_configuration(stabdiag):
    Path("net.py").write_text((FILES / "default_arguments.py").read_text())
    code, out, err = stabdiag("init", "net.py")
    assert (code, out) == (0, "") and "wrote net_stabdiag.py" in err and "wrote stabdiag.toml" in err
    assert "def loss(output):  # guessed" in Path("net_stabdiag.py").read_text()
    code, _, err = stabdiag("init", "net.py")
    assert code == 2 and "net_stabdiag.py is there already" in err


def test_a_file_without_a_model_is_refused(stabdiag):
    Path("empty.py").write_text("")
    code, _, err = stabdiag("init", "empty.py")
    assert code == 2 and "defines no model" in err and not Path("empty_stabdiag.py").exists()
