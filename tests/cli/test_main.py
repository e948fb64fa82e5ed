"""The frame of the command line: help, exit codes, the form of failures."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.cli import main as cli_main
from modelyard.cli import version
from modelyard.core.errors import InvalidConfig, NotFound

HEAVY = ("mlflow", "openai", "numpy", "sqlalchemy", "fastapi", "pydantic", "httpx", "uvloop")
Cli = Callable[..., Any]


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_comes_quickly() -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "modelyard.cli.main", "--help"], capture_output=True, check=True
        )
        took.append(time.perf_counter() - began)

    assert min(took) < 0.4


def test_help_imports_nothing_heavy() -> None:
    done = _python(
        "import sys\n"
        "from modelyard.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print('MODULES', *sys.modules)\n"
    )

    loaded = set(done.stdout.rpartition("MODULES")[2].split())
    assert "modelyard.cli.main" in loaded
    assert loaded.isdisjoint(HEAVY)
    own = {name for name in loaded if name.startswith("modelyard.cli.")}
    assert own.isdisjoint(entry.target.partition(":")[0] for entry in cli_main.COMMANDS.values())


def test_help_names_every_command(cli: Cli) -> None:
    done = cli("--help")

    assert done.code == 0
    for name, entry in cli_main.COMMANDS.items():
        assert re.search(rf"{re.escape(name)}\s+{re.escape(entry.summary)}", done.out)


@pytest.mark.parametrize("name", cli_main.COMMANDS)
def test_a_command_explains_itself_and_knows_its_home(name: str, cli: Cli) -> None:
    below = getattr(cli_main.load(name), "commands", {})
    for words in [(name, sub) for sub in below] or [(name,)]:
        done = cli(*words, "--help")

        assert done.code == 0
        assert "--home" in done.out
        assert max(len(line) for line in done.out.splitlines()) <= 80


def test_no_arguments_show_the_help(cli: Cli) -> None:
    done = cli()

    assert done.code == 2
    assert "Usage: modelyard" in done.out + done.err


def test_a_misspelt_command_is_a_usage_error_with_a_guess(cli: Cli) -> None:
    done = cli("regster")

    assert done.code == 2
    assert "'register'" in done.err


def test_version(cli: Cli, tmp_path: Path) -> None:
    assert cli("version").out == f"modelyard {modelyard.__version__}\n"

    facts = json.loads(cli("version", "--json", "--home", tmp_path).out)

    assert facts["version"] == modelyard.__version__
    assert facts["home"] == str(tmp_path)


def test_the_home_may_come_from_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("version")  # the fixture clears the variable first
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "of-the-environment"))

    facts = json.loads(cli("version", "--json").out)

    assert facts["home"] == str(tmp_path / "of-the-environment")


def _fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(version, "resolve_home", fail)
    monkeypatch.setattr(version.platform, "python_version", lambda: fail(None))


def test_a_refusal_says_what_was_wrong_and_what_to_do(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_with(NotFound("no model 'x'; there is y", next_step="try y", param="ref"), monkeypatch)

    done = cli("version", "--json")

    assert done.code == 1
    assert done.err == "error: no model 'x'; there is y\nnext: try y\n"
    assert json.loads(done.out) == {
        "error": {
            "message": "no model 'x'; there is y",
            "type": "not_found_error",
            "code": "not_found",
            "param": "ref",
            "next_step": "try y",
        }
    }


def test_a_wrong_setting_is_a_usage_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(InvalidConfig("unknown key 'prot'", next_step="did you mean port?"), monkeypatch)

    assert cli("version", "--json").code == 2


def test_an_unforeseen_error_is_one_line_and_keeps_its_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MODELYARD_DEBUG", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _fail_with(RuntimeError("the sky\nfell"), monkeypatch)

    done = cli("version", "--json")

    assert done.code == 1
    first, second = done.err.splitlines()
    assert first == "error: unexpected RuntimeError: the sky fell"
    (kept,) = tmp_path.iterdir()
    assert str(kept) in second
    assert "Traceback" in kept.read_text()


def test_an_unforeseen_error_shows_its_traceback_when_asked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_DEBUG", "1")
    _fail_with(RuntimeError("the sky fell"), monkeypatch)

    assert "Traceback" in cli("version", "--json").err


def test_ctrl_c_ends_with_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(KeyboardInterrupt(), monkeypatch)

    done = cli("version", "--json")

    assert (done.code, done.err) == (130, "interrupted\n")
