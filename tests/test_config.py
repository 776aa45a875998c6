import pytest

from stabdiag.errors import UserError
from stabdiag.settings.config import load, nearest
from stabdiag.settings.request import ScanRequest


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(tmp_path):
    def write(text, name="pyproject.toml"):
        (tmp_path / name).write_text(text)

    return write


def settings(command_line=None, environment=None, **options):
    return load(command_line or {}, environment=environment or {}, **options)


def test_without_anything_all_is_default():
    assert settings().requests(["net.py"]) == [ScanRequest("net.py")]
    assert "# default" in settings().show()


def test_the_command_line_beats_the_environment_beats_the_file(project):
    project('[tool.stabdiag]\ndevice = "cpu"\nbudget = 5\nseeds = 2')
    got = settings({"seeds": 4}, {"STABDIAG_SEEDS": "3", "STABDIAG_BUDGET": "7.5"})
    (request,) = got.requests(["net.py"])
    assert (request.seeds, request.budget, request.device) == (4, 7.5, "cpu")
    assert got.sources["seeds"] == "command line"
    assert got.sources["budget"] == "environment STABDIAG_BUDGET"
    assert got.sources["device"].endswith("pyproject.toml")
    assert "budget = 7.5" in got.show() and "# environment STABDIAG_BUDGET" in got.show()


def test_models_are_scanned_with_their_own_settings(project):
    project(
        """
        [tool.stabdiag]
        models = ["src/net.py:Net", {target = "src/other.py", precisions = ["float32"]}]
        precisions = ["float32", "float16"]

        [[tool.stabdiag.model]]
        target = "src/gpt.py"
        inputs = ["ids=4x128:int64<1000"]
        arguments = {width = 64}
        """
    )
    net, other, gpt = settings().requests([])
    assert (net.target, net.precisions) == ("src/net.py:Net", ["float32", "float16"])
    assert other.precisions == ["float32"]
    assert (gpt.inputs, gpt.arguments) == (["ids=4x128:int64<1000"], {"width": 64})
    assert settings().requests(["src/gpt.py"]) == [gpt]
    assert settings().requests(["src/net.py"]) == [net], "the file of a configured model stands for it"
    (typed,) = settings({"precisions": ["bfloat16"]}).requests(["src/other.py"])
    assert typed.precisions == ["bfloat16"]


def test_a_configuration_above_is_found_and_its_paths_are_relative_to_it(project, tmp_path, monkeypatch):
    project('[tool.stabdiag]\nmodels = ["src/net.py:Net", "package.net:Net"]\nbaseline = "base.json"')
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    assert [request.target for request in settings().requests([])] == ["net.py:Net", "package.net:Net"]
    assert settings().options.baseline == "../base.json"


def test_a_pyproject_without_our_table_is_passed_by(project, tmp_path, monkeypatch):
    project("[tool.stabdiag]\nseeds = 2")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    (tmp_path / "sub" / "pyproject.toml").write_text("[project]\nname = 'x'")
    assert nearest() == tmp_path / "pyproject.toml"


def test_stabdiag_toml_has_no_outer_table_and_windows_line_endings_are_fine(tmp_path):
    (tmp_path / "stabdiag.toml").write_bytes("\ufeffseeds = 2\r\nfail-on = 'warning'\r\n".encode())
    assert settings().values == {"seeds": 2, "fail_on": "warning"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = ", "is no valid TOML"),
        ("sedes = 2", "unknown key `sedes`; did you mean `seeds`?"),
        ("fail_on = 'error'", "unknown key `fail_on`; did you mean `fail-on`?"),
        ("seeds = 'two'", "`seeds` is 'two', expected a whole number"),
        ("seeds = true", "`seeds` is True, expected a whole number"),
        ("budget = 'x'", "`budget` is 'x', expected a number"),
        ("precisions = 'float32'", "expected a list of strings"),
        ("precisions = ['float33']", "unknown precision `float33`; did you mean `float32`?"),
        ("exit-zero = 1", "expected true or false"),
        ("models = 'net.py'", "expected a list of models"),
        ("models = [3]", "a model is 3"),
        ("models = [{targt = 'net.py'}]", "expected"),
        ("models = [{target = 'net.py', sedes = 1}]", "model net.py: unknown key `sedes`"),
        ("select = ['SD999']", "unknown rule `SD999`"),
        ("severity = {SD999 = 'info'}", "no rule `SD999`"),
        ("thresholds = {dead-rleu = {x = 1}}", "no rule `dead-rleu`"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, text, said):
    (tmp_path / "stabdiag.toml").write_text(text)
    with pytest.raises(UserError, match=r"stabdiag\.toml") as caught:
        settings()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_wrong_in_the_environment_is_named():
    with pytest.raises(UserError, match=r"STABDIAG_SEEDS.*whole number"):
        settings(environment={"STABDIAG_SEEDS": "two"})
    with pytest.raises(UserError, match=r"STABDIAG_SEDES.*did you mean `STABDIAG_SEEDS`"):
        settings(environment={"STABDIAG_SEDES": "2"})
    assert settings(environment={"STABDIAG_PRECISIONS": "float32, float16"}).values["precisions"] == [
        "float32",
        "float16",
    ]
    assert settings(environment={"STABDIAG_EXIT_ZERO": "yes"}).options.exit_zero
