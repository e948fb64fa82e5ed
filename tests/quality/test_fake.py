"""The fake judge: foretold scores, posted as any judge's, and a canary that goes by them."""

import contextlib
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.control.conftest import Controller, controller, home, registered, until
from tests.control.test_rollouts import WITHIN_S, bring_up, until_phase, wish
from tests.control.traffic import Load, gateways

from modelyard.core.home import Home
from modelyard.core.rollout import Phase
from modelyard.quality.fake import FakeJudge
from modelyard.quality.main import main
from modelyard.registry.registry import Registry

__all__ = ["controller", "home", "registered"]
CANARY = {
    "strategy": "canary",
    "steps": [{"share": 0.5, "min_s": 0}],
    "canary": {"min_requests": 30, "watch": ["errors", "quality"]},
}


def test_scores_are_foretold_by_request_and_version() -> None:
    judge = FakeJudge(means={"sha256:a": 0.9, "sha256:ab": 0.3}, abstains=0.1)
    said = {
        digest: [judge.score(f"r{n}", digest) for n in range(1000)]
        for digest in ("sha256:a1", "sha256:ab2", "sha256:c")
    }
    means = [
        statistics.fmean(each.score for each in scores if each.score is not None)
        for scores in said.values()
    ]

    assert means == pytest.approx([0.9, 0.3, 0.8], abs=0.02)
    assert all(each.score is None or 0 <= each.score <= 1 for each in said["sha256:a1"])
    silent = [each for each in said["sha256:c"] if each.score is None]
    assert 60 < len(silent) < 140
    assert silent[0].reason
    assert judge.score("r1", "sha256:c") == said["sha256:c"][1]


def test_it_says_so_when_nothing_runs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(home.root)]) == 1
    assert "modelyard up" in capsys.readouterr().err


@contextlib.contextmanager
def judging(home: Home, *arguments: str) -> Iterator[None]:
    argv = [sys.executable, "-m", "modelyard.quality.main", "--home", str(home.root), *arguments]
    with subprocess.Popen([*argv, "--every-s", "0.1"]) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0


def test_a_version_whose_answers_are_judged_worse_goes_back(controller: Controller) -> None:
    digest = Registry(controller.home).get("yardling:2").digest
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5), judging(controller.home, "--mean", f"{digest}=0.3"):
            client.deploy(wish(2, **CANARY))
            undone = until_phase(client, Phase.UNDONE)

    assert "answers are judged worse" in undone.reason
    assert undone.finding
    assert undone.finding["judge"] == "fake/none/1"
    assert undone.finding["judged_candidate"] > 0


def test_no_judge_is_no_verdict_and_an_equal_version_passes_once_it_is_judged(
    controller: Controller,
) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5):
            client.deploy(wish(2, **CANARY))
            until_phase(client, Phase.STEPPING)
            until(
                lambda: (
                    "scores of at least 30 more answers" in client.rollout("yardling-2").waits_for
                ),
                "what is missing is said",
            )
            with judging(controller.home, "--abstains", "0.2"):
                passed = until_phase(client, Phase.BAKING)

    assert passed.finding
    assert passed.finding["verdict"] == "pass"
    assert passed.finding["abstained"] > 0
