"""Training scripts as people write them: each is captured by `run`, its defect named at its line, the healthy ones are silent.

The scripts lie in `scripts/`: `# expect:` holds codes, of which one must be reported at the line marked DEFECT, and severities.
"""

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from stabdiag.judging.report import Report
from stabdiag.reports.text import render
from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.capture import loop, script
from stabdiag.subject.capture.played import playing, rewound
from stabdiag.subject.capture.tape import added
from stabdiag.subject.subject import SubjectError

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # transformers and accelerate leave settings of the process behind
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def header(name, key):
    found = re.search(rf"^# {key}: (.*)$", (FOLDER / f"{name}.py").read_text(), re.M)
    return found[1].split() if found else []


def run(path, play, arguments=(), at=1, **options):
    script.run(Path(path), list(arguments), at, play, **options)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_captured_step_has_the_gradients_of_the_script(name):
    seen = []

    def play(cycles):
        cycle = cycles[-1]
        stepped = [p for group in cycle.optimizers[-1].param_groups for p in group["params"]]
        own = [p.grad.detach().clone() for p in stepped if p.grad is not None]
        with playing(cycles, name) as subject, rewound(cycle):
            for p in subject.model.parameters():
                p.grad = None
            leaves = [leaf.clone().requires_grad_(leaf.requires_grad) for leaf in cycle.tape.leaves]
            added(cycle.tape.play(leaves, lambda output: None, as_recorded=True)).backward()
        again = [p.grad.detach() for p in stepped if p.grad is not None]
        seen.append((subject, torch.cat([g.flatten() for g in own]), torch.cat([g.flatten() for g in again])))

    run(FOLDER / f"{name}.py", play, header(name, "arguments"))
    ((subject, own, again),) = seen
    assert own.shape == again.shape
    if own.isfinite().all():  # clipping and unscaling change their length
        assert torch.nn.functional.cosine_similarity(own.double(), again.double(), 0).item() > 0.9999
    assert subject.batches == 2
    assert subject.facts.declared == ["inputs", "loss", "optimizer"]


@pytest.mark.long
@pytest.mark.parametrize("name", SCRIPTS)
def test_defects_are_named_and_healthy_scripts_are_silent(name):
    codes, *severities = header(name, "expect")
    path = FOLDER / f"{name}.py"
    line = next((i for i, text in enumerate(path.read_text().splitlines(), 1) if text.endswith("# DEFECT")), None)
    report = scan_here(ScanRequest(str(path), script=header(name, "arguments")))
    loud = [f for f in report.findings if f.severity.value != "info"]
    if codes == "silent":
        assert not loud
        return
    wanted = [f for f in loud if f.code in codes.split(",") and f.severity.value in severities[0].split(",")]
    assert line in {f.location.line for f in wanted}


def write(text, name="train.py"):
    Path(name).write_text("import torch\nfrom torch import nn\n" + text)
    return name


LOOP = """
torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
for step in range(20):
    loss = (model(torch.full((6, 4), float(step))) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    open("log", "a").write(f"{step} {model.weight.sum().item()}\\n")
"""


def test_the_script_ends_once_its_step_is_captured():
    run(write(LOOP), lambda cycles: None)
    assert len(Path("log").read_text().splitlines()) == 1


def test_with_keep_going_it_trains_as_if_nobody_watched():
    name = write(LOOP)
    run(name, lambda cycles: scan_here, keep_going=True)
    watched = Path("log").read_text()
    Path("log").unlink()
    exec(compile(Path(name).read_text(), name, "exec"), {"__name__": "__main__"})
    assert watched == Path("log").read_text() and len(watched.splitlines()) == 20


def test_a_later_step_is_captured_with_its_batch_its_rate_and_its_momentum():
    seen = []

    def play(cycles):
        with playing(cycles, "train.py") as subject:
            (optimizer,) = subject.make_optimizer(subject.model)
            seen.append((cycles[0].step, subject.batch(0), subject.batch(1), optimizer))

    run(write(LOOP), play, at=10)
    ((step, first, second, optimizer),) = seen
    assert step == 10 and next(iter(first.kwargs.values()))[0, 0] == 9 and next(iter(second.kwargs.values()))[0, 0] == 10
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.5**9)
    assert all("momentum_buffer" in state for state in optimizer.state.values())


def test_the_weights_are_those_before_the_captured_step_and_are_put_back():
    def play(cycles):
        (bias,) = (p for p in cycles[0].modules[0][1].parameters() if p.dim() == 1)
        now = bias.detach().clone()
        with playing(cycles, "train.py") as subject:
            assert torch.equal(subject.model.bias, initial) and subject.model.bias is bias
        assert torch.equal(bias, now) and not torch.equal(now, initial)

    torch.manual_seed(0)
    initial = torch.nn.Linear(4, 1).bias.detach().clone()
    run(write(LOOP), play)


TWO = """
torch.manual_seed(0)
G, D = nn.Linear(3, 2), nn.Linear(2, 1)
og, od = torch.optim.SGD(G.parameters(), lr=0.1), torch.optim.SGD(D.parameters(), lr=0.1)
for step in range(5):
    fake = G(torch.randn(8, 3))
    loss_g = -D(fake).mean()
    og.zero_grad(); loss_g.backward(); og.step()
    loss_d = D(fake.detach()).mean() - D(torch.randn(8, 2)).square().mean()
    od.zero_grad(); loss_d.backward(); od.step()
"""


def test_gradients_that_an_optimizer_drops_do_not_count():
    def play(cycles):
        with playing(cycles, "train.py") as subject:
            tape = cycles[0].tape
        assert set(dict(subject.model.named_children())) == {"G", "D"} and len(tape.losses) == 2
        frozen = [len(node.frozen) for node in tape.nodes if isinstance(node.call, torch.nn.Module)]
        assert frozen == [0, 2, 0, 0]  # the critic's own gradient of the generator's loss is thrown away

    run(write(TWO), play)


ODD = """
torch.manual_seed(0)
model = nn.Linear(4, 4)
scale = torch.ones(4, requires_grad=True)
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, g):
        return g * 2
optimizer = torch.optim.Adam([*model.parameters(), scale], lr=0.1)
for step in range(5):
    try:
        x = torch.randn(6, 4)
        y = Double.apply(model(x))
        y[:, 0] = y[:, 1] * 3
        y[:, 2].mul_(0.5)
        table = torch.zeros(6, 4)
        table[:, 1:3] = y[:, :2]
        unused = (y @ y.T).softmax(1).argmax(1)
        total = 0
        for row in table:
            total = total + (row * scale).square().sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    except Exception:
        pass
"""


def test_writes_in_place_own_functions_and_free_parameters():
    def play(cycles):
        cycle = cycles[-1]
        with playing(cycles, "train.py") as subject:  # which checks that the loss is the script's
            pass
        names = [getattr(node.call, "__name__", "") for node in cycle.tape.nodes]
        assert "argmax" not in names and names.count("__setitem__") == 2 and "mul_" in names
        assert set(dict(subject.model.named_parameters())) == {"model.weight", "model.bias", "parameter"}

    run(write(ODD), play)


REFUSED = {
    "raises": (
        "x = torch.load('absent.pt')",
        r"train\.py raises FileNotFoundError.*at train\.py:3 before its first optimizer",
    ),
    "arguments": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args()",
        r"sys\.exit\(2\) before its first optimizer step at train\.py:6; give the arguments",
    ),
    "no step": ("print(1)", "ended before an optimizer step .nothing called backward"),
    "no backward": (
        "m = nn.Linear(2, 1)\no = torch.optim.SGD(m.parameters(), lr=1)\nfor _ in range(3):\n    o.step()",
        "backward.. was not called for it",
    ),
    "too few": (LOOP, "ended after 20 optimizer steps; expected at least 30"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_captured_is_said_in_one_sentence(kind, capsys):
    text, message = REFUSED[kind]
    with pytest.raises(SubjectError, match=message):
        run(write(text), lambda cycles: None, at=30 if kind == "too few" else 1)


def test_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SubjectError, match="expected one process"):
        run(write(LOOP), lambda cycles: None)


def test_what_goes_wrong_while_the_step_is_played_is_not_for_the_script_to_catch():
    def play(cycles):
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        run(write(ODD), play)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scan_sees_that_the_file_trains_and_on_what(name):
    module = loop.tree(FOLDER / f"{name}.py")
    assert loop.trains_when_run(module)
    own = loop.own_loss(module)
    assert (own is None) == (name in ("lightning_fit", "hf_trainer"))
    if own is not None:
        assert "loss" in own[0] or "mse" in own[0]


LIBRARY = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, x):
        return self.a(x)


def train(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        loss = nn.functional.nll_loss(torch.log(torch.softmax(model(x), 1)), y)
        loss.backward()
        optimizer.step()
"""


def test_a_loss_that_is_not_run_is_said_in_the_second_line(capsys):
    name = write(LIBRARY)
    assert not loop.trains_when_run(loop.tree(Path(name)))
    report = scan_here(ScanRequest(name, precisions=["float32"]))
    expected = "`loss = nn.functional.nll_loss(torch.log(torch.softmax(model(x), 1)), y)` in line 16"
    assert report.subject.unrun == expected
    text = render(Report("0", [report]), width=300)
    assert text.splitlines()[1].startswith(
        f"  not run: the file's own loss {expected}; `stabdiag run train.py` runs it, or build_model()"
    )


def test_with_the_contract_nothing_is_run_and_nothing_is_said():
    contract = "\n\ndef loss(output):\n    return output.square().mean()\n"
    name = write(LIBRARY + contract + "\n\nif __name__ == '__main__':\n    train(Net(), [])\n")
    assert not loop.trains_when_run(loop.tree(Path(name)))
    assert scan_here(ScanRequest(name, precisions=["float32"])).subject.unrun == ""


def test_a_training_that_cannot_be_run_leaves_a_guess_and_says_why():
    main = "\n\nif __name__ == '__main__':\n    train(Net(), torch.load('absent.pt'))\n"
    report = scan_here(ScanRequest(write(LIBRARY + main), precisions=["float32"]))
    assert "its training was tried first, but train.py raises FileNotFoundError" in report.subject.how["model"]
    assert report.subject.unrun and report.error is None


def test_a_scan_of_a_file_that_trains_uses_its_own_loss_and_data():
    report = scan_here(ScanRequest(write(LOOP), precisions=["float32"]))
    assert report.subject.objective == "loss = (model(torch.full((6, 4), float(step))) - 1).square().mean() in line 9"
    assert report.subject.declared == ["inputs", "loss", "optimizer"]
    assert len(Path("log").read_text().splitlines()) == 1
