"""The side-by-side run of the conformance suite: its configurations, its words, its tables."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from benchmarks.conformance import DOCUMENT, PEERS, judged
from benchmarks.peers import litellm, nginx
from benchmarks.peers.peer import Peer
from benchmarks.peers.processes import written
from benchmarks.peers.table import BEGIN, END, written_into

from modelyard.conformance.check import Finding
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.runner import excluded


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_what_is_not_claimed_names_checks_that_there_are(peer: Peer) -> None:
    names = excluded(CHECKS, peer.not_claimed)
    assert set(names) <= {check.name for check in CHECKS}
    assert all(peer.not_claimed.values())


def test_litellms_configuration_is_filled_in(tmp_path: Path) -> None:
    values = {
        "a": "http://a",
        "b": "http://b",
        "c": "http://c",
        "gap_s": 1.0,
        "total_s": 20.0,
    }
    config = yaml.safe_load(written(litellm.CONFIG, tmp_path / "litellm.yaml", values).read_text())
    bases = [
        (model["model_name"], model["litellm_params"]["api_base"]) for model in config["model_list"]
    ]
    assert bases[:3] == [("M", "http://a/v1"), ("M", "http://b/v1"), ("SINGLE", "http://c/v1")]
    served = {name for name, _ in bases}
    assert served == {*litellm.OPEN_MODELS, "FORBIDDEN"}


def test_nginx_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    values = dict.fromkeys(("place", "a", "b", "max_body_bytes", "read_timeout_s"), "x")
    file = written(
        nginx.TEMPLATE, tmp_path / "nginx.conf", values | {"host": "127.0.0.1", "port": "80"}
    )
    listens = [line.strip() for line in file.read_text().splitlines() if "listen " in line]
    assert listens == ["listen 127.0.0.1:80;"]


def _results() -> dict[str, Any]:
    found = {
        "streaming/whole": ("passed", "40 tokens"),
        "streaming/head": ("failed", "a|b <html> at http://127.0.0.1:4711"),
        "keys/wrong": ("not_applicable", "not claimed: has no keys"),
        "keys/missing": ("not_applicable", "not claimed: has no keys"),
    }
    return {
        "date": "2026-01-01",
        "machine": "2 cores",
        "loads": [1.5, 0.5],
        "checks": dict.fromkeys(found, "meaning"),
        "peers": {
            "some gateway": {
                "version": "1.2",
                "configs": ["benchmarks/peers/nginx.conf"],
                "findings": {
                    name: {"result": result, "seen": seen, "rounds": 3, "agreed": 2}
                    for name, (result, seen) in found.items()
                },
            }
        },
    }


def test_what_failed_once_of_three_times_has_passed() -> None:
    rounds = [
        {"a/b": Finding("a/b", "failed", "late"), "a/c": Finding("a/c", "passed", "well")},
        {"a/b": Finding("a/b", "passed", "in time")},
        {"a/b": Finding("a/b", "passed", "in time, too")},
    ]
    assert judged("a/b", rounds) == {
        "result": "passed",
        "seen": "in time",
        "rounds": 3,
        "agreed": 2,
    }
    assert judged("a/c", rounds)["rounds"] == 1


def test_the_table_counts_and_says_why() -> None:
    text = written_into("", msgspec.to_builtins(_results()), whole=False)
    assert "| some gateway 1.2 | 1 | 1 | 2 | [nginx.conf](../benchmarks/peers/nginx.conf) |" in text
    assert "| streaming | 1 of 2 |" in text
    assert "| some gateway | `keys/*` | has no keys |" in text
    assert "| some gateway | `streaming/head` | a\\|b &lt;html> at http://ADDRESS |" in text
    assert "| `streaming/head` | **failed** 2 of 3 |" in text
    assert "Load of the machine 0.5 to 1.5." in text


def test_the_table_replaces_the_one_in_the_document() -> None:
    before = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    after = written_into(before, _results(), whole=True)
    assert after.startswith(f"above\n{BEGIN}\n2026-01-01;")
    assert after.endswith(f"\n{END}\nbelow\n")
    assert "old" not in after
    assert DOCUMENT.read_text().count(BEGIN) == 1
