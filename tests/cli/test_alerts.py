"""`modelyard alerts …` against a real controller, in 80 columns."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.cli.conftest import Outcome
from tests.control.conftest import Controller
from tests.observe.inbox import Inbox, until

from modelyard.core.home import Home

Cli = Callable[..., Outcome]
FULL = {"min_free_ratio": 0.999999, "min_free_bytes": 10**18, "for_s": 0}
"""Every disk is over it."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.root.mkdir()
    return made


@pytest.fixture
def started(home: Home) -> Iterator[Callable[[dict[str, object]], Controller]]:
    """Start a controller with these settings of alerts."""
    controller = Controller(home)

    def start(alerts: dict[str, object]) -> Controller:
        home.config.write_text(yaml.safe_dump({"alerts": {"every_s": 0.2, **alerts}}))
        controller.start().close()
        return controller

    yield start
    if controller.process is not None:
        controller.kill()


def test_nothing_fires_is_said_with_what_was_looked_at(
    started: Callable[..., Controller], home: Home, cli: Cli
) -> None:
    started({"rules": {"disk": None}})
    at = ("--home", home.root)
    until(lambda: "look at" in cli("alerts", "list", *at).out, "it has looked")
    said = cli("alerts", "list", *at)
    assert said.code == 0
    assert said.out.startswith("nothing fires; 7 rules look at 0 things, ")
    assert "alerts test --all" in said.out
    seen = cli("alerts", "test", "--all", *at)
    assert "no model was asked" in " ".join(seen.out.split())
    assert "nothing has fired and ended" in cli("alerts", "history", *at).out
    nobody = cli("alerts", "test", "--webhook", *at)
    assert (nobody.code, "alerts.webhooks" in nobody.err) == (1, True)


def test_from_firing_over_silence_to_history(
    started: Callable[..., Controller], home: Home, cli: Cli
) -> None:
    with Inbox() as inbox:
        secret = home.root / "s"
        secret.write_text("0123456789abcdef")
        secret.chmod(0o600)
        webhooks = {"team": {"url": inbox.url, "secret_file": "s"}}
        controller = started({"rules": {"disk": FULL}, "webhooks": webhooks})
        at = ("--home", home.root)
        until(lambda: "FIRING" in cli("alerts", "list", *at).out, "it fires")
        until(lambda: inbox.of("alert.firing"), "the receiver is told")
        preview = json.loads(cli("alerts", "test", "disk", "--json", *at).out)
        assert preview["rules"][0]["findings"][0]["would_fire"] is True

        made = cli("alerts", "silence", "disk", "--for", "2h", "--reason", "moving", *at)
        silence = made.out.split()[1].rstrip(":")
        shown = cli("alerts", "list", "--all", *at)
        assert f"silenced: {silence}" in shown.out
        assert "json, signed" in shown.out
        assert "token-in-path" not in shown.out + cli("alerts", "list", "--json", *at).out
        assert cli("alerts", "unsilence", silence, *at).code == 0
        unknown = cli("alerts", "unsilence", silence, *at)
        assert (unknown.code, "alerts list" in unknown.err) == (1, True)
        wrong = cli("alerts", "silence", "dsk", "--reason", "x", *at)
        assert (wrong.code, "disk" in wrong.err) == (1, True)

        taken = cli("alerts", "test", "--webhook", *at)
        assert (taken.code, "webhook team: taken" in taken.out) == (0, True)
        rules = cli("alerts", "rules", *at)
        for said in (shown, rules, cli("alerts", "test", "--all", *at)):
            assert max(len(line) for line in said.out.splitlines()) <= 80

        controller.end()
        started({"rules": {"disk": None}, "webhooks": webhooks})
        until(lambda: inbox.of("alert.resolved"), "the receiver is told of the end")
        assert "its rule is gone" in cli("alerts", "history", *at).out
