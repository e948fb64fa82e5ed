"""`modelyard demo`: shows the whole main job, and leaves nothing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from modelyard.cli.demo import _ended_like_ctrl_c

STEPS = ["register", "verify", "convert", "start", "deploy", "ask", "replace", "refuse"]


def _demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "modelyard.cli.main", "demo", *arguments],
        env={
            **os.environ,
            "TMPDIR": str(folder),
            "COLUMNS": "80",
            "http_proxy": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _assert_nothing_stays(folder: Path) -> None:
    running = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or [])
    ]

    assert running == []
    assert [path.name for path in folder.iterdir() if path.name.startswith("modelyard-demo-")] == []


def test_it_answers_and_leaves_nothing(tmp_path: Path) -> None:
    demo = _demo(tmp_path)
    out, err = demo.communicate(timeout=100)

    assert demo.returncode == 0, err
    lines = out.splitlines()
    for step in set(STEPS) - {"ask"}:
        assert any(f"  {step}" in line for line in lines)
    assert lines[lines.index("Hello, how are you?") + 1].strip()
    assert "4" in lines[lines.index("What is 2+2?") + 1]
    assert "tokens/s" in out
    assert "first token after" in out
    assert "yardling:1 sha256:" in out
    assert "Report" in lines
    assert re.search(r"^requests: [1-9]\d* sent, 0 lost$", out, re.MULTILINE)
    assert re.search(
        r"^answers: \d+ by yardling:1, \d+ by yardling:2; the switch", out, re.MULTILINE
    )
    assert "refused: yardling:3 by the smoke test 'it greets'" in out
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    _assert_nothing_stays(tmp_path)


def test_its_facts_come_as_json(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--json")
    out, err = demo.communicate(timeout=100)

    assert demo.returncode == 0, err
    report = json.loads(out)
    assert list(report["steps_s"]) == STEPS
    assert [one["question"] for one in report["answers"]] == ["Hello, how are you?", "What is 2+2?"]
    assert all(one["digest"] == report["digest"] for one in report["answers"])
    assert report["requests_lost"] == 0
    assert set(report["answers_by_version"]) == {"yardling:1", "yardling:2"}
    assert sum(report["answers_by_version"].values()) == report["requests_sent"]
    _assert_nothing_stays(tmp_path)


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, "verify"), (signal.SIGTERM, "start")],
)
def test_interrupted_it_leaves_nothing_either(
    tmp_path: Path, number: signal.Signals, after: str
) -> None:
    demo = _demo(tmp_path)
    assert demo.stdout is not None
    while line := demo.stdout.readline():
        if f"  {after}" in line:
            break
    demo.send_signal(number)
    _, err = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert err == "interrupted\n"
    _assert_nothing_stays(tmp_path)


def test_an_interrupt_that_a_library_swallows_is_only_put_off() -> None:
    with _ended_like_ctrl_c() as interrupts:
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_it_stays_up_when_asked_to(tmp_path: Path) -> None:
    demo = _demo(tmp_path, "--keep")
    assert demo.stdout is not None
    while line := demo.stdout.readline():
        if "stays up until Ctrl-C" in line:
            break
    (home,) = tmp_path.glob("modelyard-demo-*")
    pid = json.loads((home / "run" / "gateway.json").read_text())["pid"]
    assert psutil.pid_exists(pid)

    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)

    assert not psutil.pid_exists(pid)
    _assert_nothing_stays(tmp_path)


def test_it_removes_no_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")

    demo = _demo(tmp_path, "--home", str(tmp_path))
    _, err = demo.communicate(timeout=60)

    assert demo.returncode == 1
    assert "not empty" in err
    assert (tmp_path / "mine").read_text() == "precious"
