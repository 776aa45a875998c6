"""Trainings that go wrong at a known step for a known reason: each a file of its own, so that it can be replayed.

`FAULTS` maps a name to the text of the file, what is at fault, and the rule and marked line that must be named (None where no
rule about the model applies, or no line of it). A file is run with a folder as its argument; it watches itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

HEAD = """
import sys
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

import stabdiag
"""

MLP = """

class Net(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, 4)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))
"""

BARE = "with nullcontext():"  # the hooks alone
LOOP = """

def main():
    torch.manual_seed(0)
    model = {model}
    optimizer = {optimizer}
    {scaler}
    recorder = stabdiag.watch(model, optimizer, {options}every=25, directory=sys.argv[1], on_trip="skip")
    for step in range({steps}):
        x, y = {batch}
        {fault}
        {within}
            optimizer.zero_grad()
            {body}
    recorder.close()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters()), "the weights are broken"


if __name__ == "__main__":
    main()
"""

BODY = """loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()"""
AMP = """with torch.autocast("cpu", torch.float16):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()"""


@dataclass(frozen=True)
class Fault:
    """A training that goes wrong."""

    text: str
    culprit: str
    codes: tuple[str, ...] = ()


def marked(text: str) -> list[int]:
    """The lines that are at fault."""
    return [number for number, line in enumerate(text.splitlines(), 1) if "# here" in line]


def training(
    model: str = MLP,
    *,
    fault: str = "pass",
    make: str = "Net()",
    optimizer: str = "torch.optim.SGD(model.parameters(), lr=0.01)",
    batch: str = "torch.randn(16, 8), torch.randint(4, (16,))",
    body: str = BODY,
    steps: int = 60,
    scaler: str = "",
    options: str = "",
    within: str = "with recorder.step((x, y)):",
) -> str:
    """The text of a training file."""
    loop = LOOP.format(
        within=within,
        model=make,
        optimizer=optimizer,
        fault=fault,
        batch=batch,
        body=body,
        steps=steps,
        scaler=scaler,
        options=options,
    )
    return HEAD + dedent(model) + loop


ATTENTION = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = x.view(len(x), 2, 4).repeat(1, 1, 2)
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        weights = torch.exp(scores){mark}
        weights = weights / weights.sum(-1, keepdim=True)
        return self.head((weights @ self.v(x)).mean(1))
"""

FAULTS: dict[str, Fault] = {
    "sample with inf": Fault(
        training(MLP.replace("self.first(x)))", "self.first(x)))  # here"), fault="if step == 40: x[5, 2] = torch.inf"),
        "sample",
        ("SD301",),
    ),
    "sample with nan": Fault(
        training(MLP.replace("self.first(x)))", "self.first(x)))  # here"), fault="if step == 40: x[11] = torch.nan"),
        "sample",
        ("SD301",),
    ),
    "huge sample in float16": Fault(
        training(MLP.replace("self.first(x)))", "self.first(x)))  # here"), fault="if step == 40: x[3] = 3e5", body=AMP),
        "sample",
        ("SD302", "SD301"),
    ),
    "labels all ignored": Fault(
        training(fault="if step == 40: y[:] = -100", body=BODY.replace("y)", "y)  # here", 1)),
        "sample",
        ("SD301",),
    ),
    "one empty sample": Fault(
        training(
            MLP.replace(
                "self.second(", "self.second((x / x.norm(dim=1, keepdim=True)) @ self.first.weight.T) + self.second("
            ).replace("self.first(x)))", "self.first(x)))  # here"),
            fault="if step == 40: x[7] = 0",
        ),
        "sample",
        ("SD301", "SD608", "SD606"),
    ),
    "weight over float16": Fault(
        training(
            MLP.replace("self.first(x)))", "self.first(x)))  # here"),
            fault="if step == 40: model.first.weight.data[:] = 3e5",
            body=AMP,
        ),
        "format",
        ("SD302", "SD301"),
    ),
    "bias over float16": Fault(
        training(
            MLP.replace("self.first(x)))", "self.first(x)))  # here"),
            fault="if step == 40: model.second.bias.data[2] = 7e4",
            body=AMP,
        ),
        "format",
        ("SD302", "SD301"),
    ),
    "attention logits grown": Fault(
        training(ATTENTION.format(mark="  # here"), fault="if step == 40: model.q.weight.data *= 2000"),
        "model",
        ("SD301", "SD302", "SD603", "SD605"),
    ),
    "attention logits grown in float16": Fault(
        training(
            ATTENTION.replace("self.k(x).transpose(1, 2)", "self.k(x).transpose(1, 2)  # here")
            .replace("torch.exp(scores)", "scores.softmax(-1)")
            .format(mark=""),
            fault="if step == 40: model.q.weight.data *= 1e4; model.k.weight.data *= 1e2",
            body=AMP,
        ),
        "format",
        ("SD404", "SD302", "SD301", "SD610"),
    ),
    "rate x 100 at step 50": Fault(
        training(
            fault='if step == 50: optimizer.param_groups[0]["lr"] *= 1000',
            body=BODY.replace("y)", "y)  # here", 1),
            optimizer="torch.optim.SGD(model.parameters(), lr=0.05)",
        ),
        "rate",
        ("SD807",),
    ),
    "rate of Adam at step 50": Fault(
        training(
            fault='if step == 50: optimizer.param_groups[0]["lr"] = 10.0',
            body=BODY.replace("y)", "y)  # here", 1),
            optimizer="torch.optim.AdamW(model.parameters(), lr=1e-3)",
        ),
        "rate",
        ("SD807",),
    ),
    "rate from the start": Fault(
        training(
            body=BODY.replace("F.cross_entropy(model(x), y)", "F.mse_loss(model(x * 10), F.one_hot(y, 4).float())  # here"),
            optimizer="torch.optim.SGD(model.parameters(), lr=50.0)",
        ),
        "rate",
        ("SD301", "SD302", "SD807"),
    ),
    "bit flipped once": Fault(
        training(
            MLP.replace("F.relu(self.first(x))", "self.disturbed(F.relu(self.first(x)))")
            + """
    calls = 0

    def disturbed(self, x):
        Net.calls += 1
        return x * 1e39 if Net.calls == 41 else x
""",
            body=BODY.replace("y)", "y)  # here", 1),
        ),
        "hardware",
        ("SD807",),
    ),
    "bit flipped on one rerun": Fault(
        training(
            MLP.replace("F.relu(self.first(x))", "self.disturbed(F.relu(self.first(x)))")
            + """
    calls = 0

    def disturbed(self, x):
        Net.calls += 1
        flips = (Net.calls > 41) * (Net.calls % 2) * 2.0**-20
        return x * 1e39 if Net.calls == 41 else x * (1 + flips)
""",
            body=BODY.replace("y)", "y)  # here", 1),
        ),
        "hardware",
        ("SD807",),
    ),
    "nan in the optimizer": Fault(
        training(
            optimizer="torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.0)",
            fault="if step == 40: model.first.bias.data[:] = -100.0",
            body=BODY.replace("optimizer.step()", "optimizer.step()  # here"),
        ),
        "optimizer",
        ("SD807",),
    ),
    "nan in the optimizer in float16": Fault(
        training(
            make="Net().half()",
            optimizer="torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)",
            batch="torch.randn(16, 8).half(), torch.randint(4, (16,))",
            body=BODY.replace("optimizer.step()", "optimizer.step()  # here"),
        ),
        "optimizer",
        ("SD807",),
    ),
    "loss outside, empty mask": Fault(
        training(
            fault="mask = torch.zeros(16) if step == 40 else torch.ones(16)",
            body=BODY.replace(
                "F.cross_entropy(model(x), y)",
                "(F.cross_entropy(model(x), y, reduction='none') * mask).sum() / mask.sum()  # here",
            ),
        ),
        "sample",
        ("SD301",),
    ),
    "log of zero in the loss": Fault(
        training(
            fault="if step == 40: model.second.bias.data[0] = 300.0",
            body=BODY.replace("F.cross_entropy(model(x), y)", "F.nll_loss(model(x).softmax(-1).log(), y)  # here"),
        ),
        "format",
        ("SD601", "SD301", "SD401"),
    ),
    "nan in a buffer": Fault(
        training(
            """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)
        self.register_buffer("shift", torch.zeros(32))

    def forward(self, x):
        return self.second(F.relu(self.first(x) + self.shift))  # here
""",
            fault="if step == 40: model.shift[3] = torch.nan",
        ),
        "model",
        ("SD301",),
    ),
    "singular gradient": Fault(
        training(
            """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)
        self.exact = False

    def forward(self, x):
        x = x - x.detach() if self.exact else x
        length = torch.sqrt(self.first(x).square().sum(1, keepdim=True))  # here
        return self.second(length * F.relu(self.first(x)))
""",
            fault="if step == 40: model.exact = True; model.first.bias.data.zero_()",
        ),
        "model",
        ("SD301", "SD606"),
    ),
}
FAULTS["compiled kernel"] = Fault(
    training(
        """

def miscompiled(graph, inputs):
    def run(*args):
        return [out * (torch.inf if miscompiled.broken else 1.0) for out in graph(*args)]

    return run


miscompiled.broken = False
"""
        + MLP,
        make="torch.compile(Net(), backend=miscompiled)",
        fault="if step == 40: miscompiled.broken = True",
        body=BODY.replace("y)", "y)  # here", 1),
    ),
    "compiler",
    ("SD807",),
)

HERE = MLP.replace("self.first(x)))", "self.first(x)))  # here")
NORMALISED = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 4)

    def forward(self, x):
        return self.second(F.relu(self.norm(self.first(x))))  # here
"""
DROPPED = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x):
        hidden = F.dropout(F.relu(self.first(x)), 0.5, self.training)
        return self.second(torch.log(hidden.sum(1, keepdim=True)) * hidden)  # here
"""
TWO_HEADS = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.spread = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        return self.mean(x), torch.exp(self.spread(x)){mark}
"""
EMBEDDED = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.second = nn.Embedding(10, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.second(self.table(x).mean(1))  # here
"""
ACCUMULATED = """for part in range(4):
                F.cross_entropy(model(x[part * 4 : part * 4 + 4]), y[part * 4 : part * 4 + 4]).backward()  # here
            optimizer.step()"""
SCALED = """with torch.autocast("cpu", torch.float16):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()"""
CLIPPED = """loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()"""
LIKELIHOOD = """mean, spread = model(x)
            target = F.one_hot(y, 4).float()
            loss = ((target - mean).square() / spread + torch.log(spread)).mean()
            loss.backward()
            optimizer.step()"""

FAULTS |= {
    "sample with inf, hooks alone": Fault(
        training(HERE, fault="if step == 40: x[5, 2] = torch.inf", within=BARE), "sample", ("SD301",)
    ),
    "weight over float16, hooks alone": Fault(
        training(HERE, fault="if step == 40: model.first.weight.data[:] = 3e5", body=AMP, within=BARE),
        "format",
        ("SD302", "SD301"),
    ),
    "loss outside, hooks alone": Fault(
        training(
            fault="mask = torch.zeros(16) if step == 40 else torch.ones(16)",
            body=BODY.replace(
                "F.cross_entropy(model(x), y)",
                "(F.cross_entropy(model(x), y, reduction='none') * mask).sum() / mask.sum()  # here",
            ),
            within=BARE,
        ),
        "loss",
        ("SD807",),
    ),
    "sample under batch normalisation": Fault(
        training(NORMALISED, fault="if step == 40: x[9, 1] = -torch.inf"), "sample", ("SD301",)
    ),
    "running variance poisoned": Fault(
        training(NORMALISED, fault="if step == 40: model.norm.running_var[2] = torch.nan; model.norm.eval()"),
        "model",
        ("SD301",),
    ),
    "weight over float32": Fault(
        training(HERE, fault="if step == 40: model.second.weight.data[1] = 3e38"), "format", ("SD301", "SD302")
    ),
    "log of what dropout leaves": Fault(
        training(DROPPED, fault="if step == 40: model.first.bias.data[:] = -9.0"), "model", ("SD301", "SD608")
    ),
    "exponent grown": Fault(
        training(TWO_HEADS.format(mark="  # here"), fault="if step == 40: model.spread.bias.data[:] = 95.0", body=LIKELIHOOD),
        "format",
        ("SD301", "SD302", "SD605"),
    ),
    "embedding over float32": Fault(
        training(
            EMBEDDED,
            batch="torch.randint(10, (16, 6)), torch.randint(4, (16,))",
            fault="if step == 40: model.table.weight.data[3:] = 3e38",
        ),
        "format",
        ("SD301", "SD302"),
    ),
    "micro-batch with nan": Fault(
        training(HERE, body=ACCUMULATED.replace("  # here", ""), fault="if step == 40: x[9] = torch.nan"), "sample", ("SD301",)
    ),
    "loss scale collapses": Fault(
        training(
            HERE,
            body=SCALED,
            scaler='scaler = torch.amp.GradScaler("cpu", init_scale=16.0)',
            options="scaler, ",
            fault="if step == 30: model.first.bias.data[0] = 1e6",
        ),
        "format",
        ("SD301", "SD302"),
    ),
    "rate warmed up too far, clipped": Fault(
        training(
            body=CLIPPED.replace("y)", "y)  # here", 1),
            fault='if step >= 40: optimizer.param_groups[0]["lr"] = 30.0',
        ),
        "rate",
        ("SD807",),
    ),
    "rate of momentum": Fault(
        training(
            optimizer="torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)",
            body=BODY.replace("y)", "y)  # here", 1),
            fault='if step == 45: optimizer.param_groups[0]["lr"] = 20.0',
        ),
        "rate",
        ("SD807",),
    ),
    "target with nan": Fault(
        training(
            batch="torch.randn(16, 8), torch.randn(16, 4)",
            body=BODY.replace("F.cross_entropy(model(x), y)", "F.mse_loss(model(x), y)  # here"),
            fault="if step == 40: y[6, 0] = torch.nan",
        ),
        "sample",
        ("SD301",),
    ),
}
