"""`vireid NAME` and `python -m vireid_jax.NAME`: help, errors and exit codes."""

import importlib
import sys
from pathlib import Path

import pytest
from python_process import run_python

from vireid_jax import __main__ as console
from vireid_jax.run.command import DOCS, Parser, run_command
from vireid_jax.run.errors import UserError, one_line_errors

ROOT = Path(__file__).parents[1]
MODULES = {name: module for name, (module, _) in console.COMMANDS.items()}


def call(monkeypatch, prog, *arguments):
    monkeypatch.setattr(sys, "argv", [prog, *arguments])
    console.main()


@pytest.mark.parametrize("prog", ["bin/vireid", "vireid_jax/__main__.py"])
@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_command(prog, arguments, monkeypatch, capsys):
    call(monkeypatch, prog, *arguments)
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {'vireid' if 'bin' in prog else 'python -m'}")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed[: len(MODULES)] == list(MODULES)
    assert out.count("--workdir") >= 2
    assert "docs/index.md" in out


def test_help_imports_nothing_heavy():
    code = "import sys; from vireid_jax.__main__ import main; main()"
    code += "; assert not {'jax', 'numpy', 'rich', 'absl'} & {*sys.modules}"
    assert run_python("-c", code).returncode == 0


@pytest.mark.parametrize("name", MODULES)
def test_a_commands_help_has_two_examples_and_its_page(name, monkeypatch, capsys):
    try:
        call(monkeypatch, "bin/vireid", name, "--help")
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017 (argparse exits, absl's flags return)
    out = capsys.readouterr().out
    assert out.startswith(f"usage: vireid {name} ")
    module = MODULES[name].removesuffix(".__main__")
    assert out.count(f"    python -m vireid_jax.{module}") >= 2
    assert out.splitlines()[-1].startswith(f"{DOCS}/")
    assert (ROOT / "docs" / out.split("/")[-1].strip()).is_file()
    # The same by its module's own name.
    monkeypatch.setattr(sys, "argv", [f"vireid_jax/{module}.py"])
    try:
        importlib.import_module(f"vireid_jax.{MODULES[name]}").main(["--help"])
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017
    usage = capsys.readouterr().out.partition("\n")[0]
    assert usage.startswith(f"usage: python -m vireid_jax.{module} ")


@pytest.mark.parametrize("name", MODULES)
def test_a_mistake_in_the_arguments_is_one_line_and_code_1(name, monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: [^\n]+$"):
        call(monkeypatch, "bin/vireid", name, "--no_such_flag=1")


def test_an_unknown_command(monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: 'extrat' .* did you mean extract\?"):
        call(monkeypatch, "bin/vireid", "extrat")


def fail(error):
    """Run a command that raises `error`."""

    def run(_):
        raise error

    run_command(Parser("none", "None.", "embed.md"), run, [])


def test_a_users_mistake_is_one_line():
    with pytest.raises(SystemExit, match=r"^error: --top is 0$"):
        fail(UserError("--top is 0"))
    with pytest.raises(SystemExit, match=r"^error: a: No such file"):
        fail(FileNotFoundError(2, "No such file", "a"))


def test_a_bug_shows_its_traceback_and_how_to_report_it():
    code = "import sys; sys.path.append('tests'); from test_commands import fail\n"
    code += "fail(ValueError('operands could not be broadcast'))"
    done = run_python("-c", code, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    *_, error, report = done.stderr.strip().splitlines()
    assert error == "ValueError: operands could not be broadcast"
    assert "report it at https://" in report


def test_a_traceback_of_every_error_on_request(monkeypatch):
    monkeypatch.setenv("VIREID_TRACEBACK", "1")
    with pytest.raises(UserError, match="--query"):
        call(monkeypatch, "bin/vireid", "rank")
    with pytest.raises(UserError, match="no config none"):
        call(monkeypatch, "bin/vireid", "train", "--config=none")
    with pytest.raises(OSError, match="full"), one_line_errors():
        raise OSError(28, "full")
