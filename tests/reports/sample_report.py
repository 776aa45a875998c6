"""Reports made by hand, for tests of formats: one sick model, one healthy, one that could not be scanned."""

from math import inf, nan

from stabdiag.errors import ScanError
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.judging.report import Layer, OpRow, PrecisionVerdict, Report, SubjectReport
from stabdiag.trace import Location, SubjectFacts

SOURCE = "        return F.relu(self.conv(x) + self.bias)"


def sample_report() -> Report:
    return Report("0.1.0", [sick(), healthy(), broken()])


def sick() -> SubjectReport:
    path = "models/net.py"
    return SubjectReport(
        SubjectFacts(
            path,
            "Net",
            1_234_567,
            "x 32×3×32×32 (from conv1 and fc1)",
            "cross-entropy over 10 logits (inferred)",
            how={
                "model": "the only nn.Module class whose arguments all have defaults",
                "objective": "the output has shape 32×10, as class logits have",
            },
            declared=["inputs"],
        ),
        precisions=[
            PrecisionVerdict("float32", "safe", output_error=3.1234567e-07, gradient_error=8e-07, headroom_bits=111.2),
            PrecisionVerdict(
                "float16",
                "safe-with-scaling",
                output_error=5.6e-04,
                gradient_error=2.3e-03,
                headroom_bits=6.2,
                gradient_underflow=0.31,
                loss_scale=4096.0,
                mode="emulated",
            ),
            PrecisionVerdict(
                "amp-float16",
                "fails",
                reason="the product of two activations is 9.1e4, above 65,504",
                where=f"{path}:52",
                headroom_bits=-0.4,
            ),
            PrecisionVerdict("bfloat16", "not-run", reason="this device has no bfloat16 kernel for `fft`"),
        ],
        findings=[dead_relu(path), log_of_softmax(path), suppressed(path), slow_start(path)],
        layers=[
            Layer("conv1", "convolution", path, 30, True, 0.8, 3.2e-3, None, 1.1),
            Layer("block1", "relu", path, 41, True, 0.5, 1.1e-4, 0.6, 0.03),
            Layer("block1.branch", "convolution", path, 40, False, 0.1, 1e-4, 0.6, 0.03),
            Layer("block3", "relu", path, 41, True, 2.5e-3, 0.0, 0.005, 0.0),
            Layer("fc1", "addmm", path, 45, True, 0.3, 2e-2, None, None),
            Layer("", "nll_loss", path, 60, True, 2.31, None, None, None),
        ],
        coverage={"ops": 214, "unseen": [], "batches": 2},
        rules_run=["SD101", "SD201", "SD301", "SD601", "SD705"],
        op_rows=[
            OpRow(0, "float32", "forward", "conv1", "convolution", path, 30, "32×16×32×32", "float32", 0.8, -3.0, 3.1,
                  3.1, 0.0, 0, 124.4, 3.2e-3, 0.1, 1e-7),
            OpRow(1, "float16", "forward", "", "exp", path, 52, "32×10", "float16", None, None, inf, inf, 0.0, 3, -inf,
                  nan, None, None),
        ],
    )  # fmt: skip


def dead_relu(path: str) -> Finding:
    return Finding(
        Severity.ERROR,
        "61 of 64 units of `block3` never fire",
        code="SD201",
        name="dead-relu",
        module="block3",
        op="relu",
        precisions=["float32", "float16"],
        location=Location(path, 41, 15, 21, "Block.forward", SOURCE),
        label="0 of 4,096 samples per unit (95 % bound 0.07 %); gradient behind it 0 at steps 0 and 2",
        notes=["cause: bias averages -4.1; the pre-activation has mean -4.0, spread 0.9"],
        evidence={"dead": 61, "units": 64, "bound": 0.00073242187, "ratio": nan, "largest": inf},
        fixes=[
            Fix(
                "zero-bias",
                "initialise the bias at 0",
                "nn.init.zeros_(self.bias)",
                True,
                "61 dead units",
                "2 dead units",
            ),
            Fix("leaky-relu", "use a leaky ReLU", "F.leaky_relu(self.conv(x) + self.bias)", False, "61", "60"),
        ],
        path=path,
    )


def log_of_softmax(path: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "`log(softmax(z))` is -inf once two logits are 104 apart (float32); they are 14 apart here",
        code="SD601",
        name="log-of-softmax",
        module="head.größe",
        op="log",
        precisions=["float32"],
        location=Location(path, 52, 18, 53, "Head.forward", "        größe = torch.log(torch.softmax(z, dim=-1))"),
        evidence={"gap": 14.0, "breaks_at": 104.0},
        fixes=[Fix("log-softmax", "use log_softmax", "F.log_softmax(z, dim=-1)")],
        path=path,
    )


def suppressed(path: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "input `x` reaches 255",
        code="SD703",
        name="unnormalized-input",
        location=Location(path, 12, 4, 9, "example_inputs", "    return torch.rand(8, 3, 32, 32) * 255"),
        status="suppressed",
        path=path,
    )


def slow_start(path: str) -> Finding:
    return Finding(
        Severity.INFO,
        "the loss starts at 4.0, ln 10 = 2.3; [bold]not markup[/]\x1b[31m",
        code="SD705",
        name="initial-loss",
        path=path,
    )


def healthy() -> SubjectReport:
    return SubjectReport(
        SubjectFacts("models/ok.py", "GPT", 124_000_000, "ids 2×16 (below 50,257)", "the model's own loss"),
        precisions=[PrecisionVerdict("float32", "safe", output_error=2e-7, gradient_error=5e-7, headroom_bits=118.0)],
        rules_run=["SD101", "SD201"],
    )


def broken() -> SubjectReport:
    return SubjectReport(
        SubjectFacts("models/missing.py", "", 0, "", ""),
        error=ScanError("load", "models/missing.py does not exist; give the path of a Python file", "Traceback …"),
    )
