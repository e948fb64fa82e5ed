"""Shadow rollouts for real (D7): a candidate proves itself on copies before anybody sees it."""

from typing import Any

from tests.control.conftest import Controller, until
from tests.control.test_rollouts import bring_up, fault, phase, ready, until_phase, wish
from tests.control.traffic import Load, gateways

from modelyard.client import Client
from modelyard.core.pinning import PINNED_BY
from modelyard.core.rollout import Phase

SHADOW: dict[str, Any] = {
    "strategy": "shadow",
    "steps": [{"share": 1.0, "min_s": 0}],
    # Times are those of a machine that does other things too: what is right is asked, not how fast.
    "canary": {"min_requests": 20, "watch": ["errors", "truncations", "length"]},
}


def used(client: Client) -> int:
    """Requests of users that were summed, not those of the smoke tests."""
    return sum(row.requests for row in client.usage(2) if row.key_id != PINNED_BY)


def test_a_candidate_that_does_well_on_copies_takes_over(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5) as load:
            load.until_answered(5)
            client.deploy(wish(2, **SHADOW))
            until_phase(client, Phase.BAKING)
            load.until_answered(10)
            done = client.rollout("yardling-2")
        until(lambda: used(client) >= load.sent, "every request's use is known")
        assert used(client) == load.sent  # nobody pays for a copy

    assert load.lost == []
    # Until the switch nobody was answered by the candidate, from then on everybody.
    assert load.relapses == []
    assert load.order[-1] == "yardling:2"
    assert done.finding
    assert done.finding["verdict"] == "pass"
    assert done.finding["candidate_requests"] >= 20
    assert done.finding["baseline_requests"] >= 20


def test_a_worse_candidate_is_taken_back_and_no_user_has_seen_it(controller: Controller) -> None:
    patient = SHADOW | {"steps": [{"share": 1.0, "min_s": 600}]}
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5) as load:
            client.deploy(wish(2, **patient))
            until_phase(client, Phase.STEPPING)
            [new] = ready(client, 2)
            fault(new, "status=500")
            undone = until_phase(client, Phase.UNDONE)
            load.until_answered(10)

    assert load.lost == []
    assert set(load.versions) == {"yardling:1"}
    assert "more requests fail" in undone.reason
    assert undone.finding
    assert undone.finding["verdict"] == "alarm"


def test_a_candidate_whose_answers_are_cut_is_taken_back_too(controller: Controller) -> None:
    """The same prompts in the same moments: answers of another length show soon."""
    patient = SHADOW | {"steps": [{"share": 1.0, "min_s": 600}]}
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=20) as load:
            client.deploy(wish(2, **patient))
            until_phase(client, Phase.STEPPING)
            [new] = ready(client, 2)
            fault(new, "tokens=5")
            undone = until_phase(client, Phase.UNDONE)

    assert load.lost == []
    assert set(load.versions) == {"yardling:1"}
    assert "answers have another length" in undone.reason


def test_a_hanging_candidate_holds_nobody_up(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5) as load:
            client.deploy(wish(2, **SHADOW | {"canary": {"min_requests": 1_000_000}}))
            until_phase(client, Phase.STEPPING)
            [new] = ready(client, 2)
            fault(new, "hang")
            load.until_answered(100)
            until(
                lambda: "more requests of the candidate" in client.rollout("yardling-2").waits_for,
                "it waits for evidence",
            )
            assert phase(client) is Phase.STEPPING
            client.steer("yardling", "abort")
            until_phase(client, Phase.UNDONE)  # without waiting for the copies that hang
            load.until_answered(10)

    assert load.lost == []
    assert set(load.versions) == {"yardling:1"}
