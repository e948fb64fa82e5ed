"""`modelyard rollouts show`"""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from modelyard.api.messages import RolloutView
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client

IdArgument = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="Its id, such as yardling-2; see rollouts list.")
]


def show(rollout: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a rollout: each phase with its time, what the tests answered, what was compared."""
    with Client.from_home(resolve_home(home)) as client:
        view = client.rollout(rollout)
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    for line in lines(view):
        print(line)


def lines(view: RolloutView) -> Iterator[str]:
    """The report, line by line."""
    before = f" in place of {view.version_before}" if view.version_before else ", the first"
    yield f"{view.id}: {view.version}{before}, {view.plan['strategy']}"
    state = f"{view.phase.value}{', paused' if view.paused else ''}"
    yield f"phase     {state}{f'; waits for {view.waits_for}' if view.waits_for else ''}"
    if view.reason:
        yield f"went back {view.reason}"
    yield "history"
    for number, entry in enumerate(view.history):
        last = number + 1 == len(view.history)
        until = entry.at if last else view.history[number + 1].at
        took = "" if last else f"  {until - entry.at:.2f} s"
        why = entry.why.splitlines()[0]
        yield f"  {entry.at - view.started_at:8.2f} s  {entry.phase.value:<10} {why}{took}"
    if view.finished or view.cut:
        yield f"drained   {view.finished} requests in flight came to their end, {view.cut} were cut"
    for test in view.smoke:
        verdict = "passed" if test.passed else "FAILED"
        yield f"test      {verdict}  {test.test}: {test.told}"
        yield f"            it said {test.answer!r}"
    if view.finding is not None:
        yield from _compared(view.finding)


def _compared(finding: dict[str, Any]) -> Iterator[str]:
    yield (
        f"compared  {finding['candidate_requests']} requests of the candidate with "
        f"{finding['baseline_requests']}: {finding['verdict']}, {finding['reason']}"
    )
    if finding.get("judge"):
        abstained = f", {finding['abstained']} abstentions" if finding["abstained"] else ""
        yield (
            f"judged    {finding['judged_candidate']} answers of the candidate and "
            f"{finding['judged_baseline']} of the other{abstained}"
        )
        yield f"            by {finding['judge']}"
    for reading in finding["readings"]:
        yield (
            f"            {reading['watched']:<12} {_number(reading['candidate'])} against "
            f"{_number(reading['baseline'])}, evidence {reading['evidence']:.3g} "
            f"(alarm at {reading['alarm_at']:g})"
        )


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
