"""`modelyard top`: frames that fit, and a terminal that watches what really runs."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Outcome
from tests.cli.stacks import running_stack
from tests.cli.terminal import Terminal
from tests.control.conftest import until

from modelyard.api.figures import figures
from modelyard.api.messages import RolloutBrief
from modelyard.api.trend_messages import GpuView, Live, LiveAlert, LiveModel, MachineView, Use
from modelyard.cli.topframe import frame
from modelyard.client import Client
from modelyard.control.runfiles import read_record
from modelyard.core.deployments import DeploymentState
from modelyard.core.home import Home
from modelyard.core.rollout import Phase
from modelyard.core.rollups import Sums

NOW = 1_790_000_000.0
USE = Use(average=5e9, most=6e9)


def sums(requests: int, failed: int = 0) -> Sums:
    made = Sums()
    made.requests, made.failed, made.completion_tokens = requests, failed, requests * 100
    for _ in range(requests - failed):
        made.ttft.add(0.2)
        made.e2e.add(1.0)
    return made


def model(name: str, requests: int = 60, **changed: object) -> LiveModel:
    made = LiveModel(
        name=name,
        model="yardling",
        version=3,
        state=DeploymentState.LIVE,
        replicas={"ready": 2},
        in_flight=4,
        figures=figures(sums(requests, failed=requests // 20), 60.0),
        rollout=None,
        message="",
    )
    return made.model_copy(update=changed)


def now(*models: LiveModel, **changed: object) -> Live:
    gpu = GpuView(
        index=0, name="H100", busy_share=Use(average=0.5, most=0.9), memory_bytes=USE,
        memory_total_bytes=80_000_000_000, power_w=Use(average=350, most=400),
        temperature_c=Use(average=61, most=70),
    )  # fmt: skip
    machine = MachineView(
        host="here", memory_bytes=USE, memory_total_bytes=10_000_000_000,
        cpu_share=Use(average=0.25, most=1), load_1m=Use(average=1, most=2), gpus=(gpu,),
    )  # fmt: skip
    made = Live(
        at=NOW, window_s=75.0, gateways=1, records_waiting=0, models=models,
        elsewhere=figures(Sums(), 75.0), alerts=(), machines=(machine,),
    )  # fmt: skip
    return made.model_copy(update=changed)


ROLLOUT = RolloutBrief(
    id="chat-2", version="yardling:4", strategy="canary", phase=Phase.STEPPING, step=0, steps=3,
    share=0.1, paused=False, reason="", waits_for="step 1 of 3,\n10%, 40 s more",
)  # fmt: skip
ALERT = LiveAlert(
    rule="errors-fast", subject="chat", severity="page", since=NOW - 130, told="burns\n14 times"
)


def lines(live: Live, width: int = 80, height: int | None = None, trouble: str = "") -> list[str]:
    return [str(line) for line in frame(live, trouble, width, height)]


def test_a_frame_tells_deployments_alerts_rollouts_and_the_machine() -> None:
    moving = model("chat", rollout=ROLLOUT, replicas={"ready": 1, "starting": 1})
    told = lines(now(moving, model("other", message="crash loop: exit 1"), alerts=(ALERT,)))

    assert "1 gateway  the last 75 s" in told[0]
    row = next(line for line in told if line.startswith("chat"))
    assert row.split() == ["chat", "3", "1/2", "rdy", "4", "1", "5%", "198ms", "198ms", "100"]
    assert "page errors-fast chat, 2m: burns 14 times" in told
    assert "chat → yardling:4 canary, stepping: step 1 of 3, 10%, 40 s more" in told
    assert "other: crash loop: exit 1" in told
    assert any("cpu ██░░░░░░░░ 25%  memory █████░░░░░ 50% of 10.0 GB" in line for line in told)
    assert any("GPU 0  █████░░░░░ 50%" in line and "350 W 61 °C" in line for line in told)


def test_a_frame_of_nothing() -> None:
    told = lines(now(machines=(), gateways=0))
    assert "nothing is deployed" in told
    assert "0 gateways" in told[0]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [8, 24, 50])
def test_a_frame_fits_however_much_there_is(width: int, height: int) -> None:
    many = [
        model(f"a-deployment-with-a-long-name-{n:02}" * (1 + n % 2), requests=n, rollout=ROLLOUT)
        for n in range(40)
    ]
    told = lines(now(*many, alerts=(ALERT,) * 3), width, height)
    assert len(told) <= height
    assert all(len(line) <= width for line in told)


def test_deployments_with_traffic_are_those_that_are_shown() -> None:
    told = lines(now(*(model(f"m{n}", requests=n) for n in range(60))), 80, 24)
    assert any(line.startswith("m59 ") for line in told)
    assert not any(line.startswith("m1 ") for line in told)
    rest = next(line for line in told if line.startswith("… and "))
    shown = sum(line.startswith("m") for line in told) - 1  # the head
    assert rest == f"… and {60 - shown} more"


def test_words_of_a_worker_do_nothing_to_the_terminal() -> None:
    told = lines(now(model("chat", message="died: \x1b[2J\x1b]0;mine\x07 \x9b31m\r\nsee log")))
    assert "chat: died: \ufffd[2J\ufffd]0;mine\ufffd \ufffd31m see log" in told


def test_what_is_old_says_so() -> None:
    assert "no answer for 5 s" in lines(now(model("chat")), trouble="no answer for 5 s: away")[0]


# --- on a terminal --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home with `yardling` deployed, that was asked some questions; the gateway's URL."""
    root = tmp_path_factory.mktemp("top")
    with running_stack(root, "yardling", "--deploy", "yardling:1") as url:
        question = {"model": "yardling", "messages": [{"role": "user", "content": "What is 2+2?"}]}
        for _ in range(5):
            answer = httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60)
            assert answer.status_code == 200
        with Client.from_home(Home(root)) as client:
            until(lambda: client.summary("yardling", 1).request_count == 5, "records arrive")
        yield root, url


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "modelyard.cli.main", *arguments, "--home", str(root)]


@pytest.fixture
def watching(stack: tuple[Path, str]) -> Iterator[Terminal]:
    terminal = Terminal(command(stack[0], "top"), os.environ)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_a_key_ends_it_and_gives_the_terminal_back(watching: Terminal, key: str) -> None:
    text = watching.until(lambda screen: "yardling" in screen and "q ends" in screen)
    assert len(text.split("\n")) <= 24
    watching.press("x")
    watching.press(key)
    assert watching.ended() == 0
    assert "\x1b[?1049h" in watching.written  # the alternate screen, and back
    assert watching.written.rstrip().endswith("\x1b[?1049l")
    assert "Traceback" not in watching.written


def test_it_outlives_a_controller_that_goes_away(
    stack: tuple[Path, str], watching: Terminal
) -> None:
    watching.until(lambda screen: "yardling" in screen)
    record = Home(stack[0]).run / "controller.json"
    known = read_record(record)
    assert known
    os.kill(known.pid, signal.SIGSTOP)
    watching.until(lambda screen: "no answer for" in screen and "yardling" in screen)
    os.kill(known.pid, signal.SIGKILL)
    until(lambda: (found := read_record(record)) and found.pid != known.pid, "another", 60.0)
    text = watching.until(lambda screen: "no answer" not in screen and "1 gateway" in screen, 60.0)
    assert "yardling" in text
    watching.press("q")
    assert watching.ended() == 0


def test_once_prints_a_frame_and_json_all_of_it(stack: tuple[Path, str], cli: object) -> None:
    assert callable(cli)
    once: Outcome = cli("top", "--once", "--home", stack[0])
    assert once.code == 0
    assert "\x1b" not in once.out
    assert "yardling" in once.out
    assert max(map(len, once.out.splitlines())) <= 80
    piped: Outcome = cli("top", "--home", stack[0])
    assert "DEPLOYMENT" in piped.out
    told = json.loads(cli("top", "--json", "--home", stack[0]).out)
    assert [each["name"] for each in told["models"]] == ["yardling"]


def test_the_machine_and_its_workers_are_looked_at(stack: tuple[Path, str]) -> None:
    with Client.from_home(Home(stack[0])) as client:
        until(lambda: client.live().machines, "a look at the machine", 30.0)
        until(lambda: client.summary("yardling", 1).workers, "a look at the worker", 30.0)
        workers = client.summary("yardling", 1).workers
    assert workers
    assert (workers.memory_bytes.most or 0) > 5_000_000


def test_without_a_controller_it_says_how_to_start_one(cli: object, tmp_path: Path) -> None:
    assert callable(cli)
    refused: Outcome = cli("top", "--once", "--home", tmp_path)
    assert refused.code == 1
    assert "modelyard up" in refused.err


# --- modelyard trends -----------------------------------------------------------------------------


def test_trends_are_drawn_within_80_columns(stack: tuple[Path, str], cli: object) -> None:
    assert callable(cli)
    drawn: Outcome = cli("trends", "yardling", "--hours", "24", "--home", stack[0])
    assert drawn.code == 0
    assert "\x1b" not in drawn.out
    assert max(map(len, drawn.out.splitlines())) <= 80
    assert "yardling, the last 24 hours, 30 minutes a column" in drawn.out
    for name in ("requests/s", "errors", "ttft p50", "ttft p99", "tokens/s", "VERSION"):
        assert name in drawn.out
    assert "█" in drawn.out
    row = next(line for line in drawn.out.splitlines() if line.startswith("1 "))
    assert row.split()[:4] == ["1", "blue", "5", "0%"]


def test_trends_as_json_and_of_an_unknown_model(stack: tuple[Path, str], cli: object) -> None:
    assert callable(cli)
    told = json.loads(cli("trends", "yardling", "--hours", "1", "--json", "--home", stack[0]).out)
    assert told["summary"]["request_count"] == 5
    assert sum(point["request_count"] for point in told["trends"]["points"]) == 5
    refused: Outcome = cli("trends", "nobody", "--home", stack[0])
    assert refused.code == 1
    assert "known: yardling" in refused.err
    many: Outcome = cli("trends", "yardling", "--hours", "1000000", "--home", stack[0])
    assert many.code == 1
    assert "hours" in many.err


def test_hours_of_any_length_make_few_columns() -> None:
    from modelyard.cli.trends import COLUMNS, length_for

    for hours in (0.02, 1, 5, 6, 23, 24, 47, 48, 49, 24 * 7, 24 * 30, 24 * 31, 24 * 365, 87_840):
        step_s = length_for(hours)
        assert hours * 3600 / step_s <= COLUMNS
        assert step_s % (60 if hours <= 48 else 900 if hours <= 720 else 86_400) == 0
