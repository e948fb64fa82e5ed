"""`modelyard alerts test`"""

from collections.abc import Sequence
from typing import Annotated

import typer

from modelyard.api.alert_messages import FindingView, RuleView, TrialOutcome
from modelyard.cli.alerts.words import table
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.client import Client
from modelyard.core.alert_checks import span
from modelyard.core.alert_states import Verdict
from modelyard.core.errors import InvalidRequest


def preview(
    rule: Annotated[
        str | None, typer.Argument(metavar="RULE", help="As `alerts rules` lists it.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every rule.")] = False,
    webhooks: Annotated[
        bool, typer.Option("--webhook", help="Send a message marked as a test to the webhooks.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--to", metavar="NAME", help="Only to this webhook.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at rules now and say what each sees and whether it would fire; nothing is changed.

    It is the same look that alerts come of. With --webhook, who is told gets a marked message;
    exit code 1 when one did not take it.
    """
    if not (rule or everything or webhooks or name):
        raise InvalidRequest("what shall be tested?", next_step="give RULE, --all or --webhook")
    seen: Sequence[RuleView] = ()
    outcomes: Sequence[TrialOutcome] = ()
    with Client.from_home(resolve_home(home)) as client:
        if rule or everything:
            seen = client.alerts.preview(rule)
        if webhooks or name:
            outcomes = client.alerts.test(name)
    if as_json:
        print_json(
            {
                "rules": [each.model_dump(mode="json") for each in seen],
                "webhooks": [each.model_dump(mode="json") for each in outcomes],
            }
        )
    else:
        _show(seen, outcomes)
    if not all(outcome.taken for outcome in outcomes):
        raise typer.Exit(1)


def _show(seen: Sequence[RuleView], outcomes: Sequence[TrialOutcome]) -> None:
    if seen:
        shown = table("rule", "subject", "verdict", "seen")
        for rule in seen:
            for finding in rule.findings:
                shown.add_row(rule.name, finding.subject, _verdict(rule, finding), finding.told)
            if not rule.findings:
                shown.add_row(rule.name, "", "nothing to see", _why(rule.kind))
        stdout_console().print(shown)
    for outcome in outcomes:
        mark = "taken" if outcome.taken else "not taken"
        print(f"webhook {outcome.webhook}: {mark}: {outcome.told}")


def _verdict(rule: RuleView, finding: FindingView) -> str:
    if finding.would_fire:
        return f"would fire after {span(rule.for_s)}" if rule.for_s else "would fire"
    return "clear" if finding.verdict is Verdict.CLEAR else str(finding.verdict)


def _why(kind: str) -> str:
    return {
        "burn_rate": "no model was asked lately",
        "latency": "no model was asked lately",
        "budget": "no key and no tenant has a limit per day or month",
        "crash_loop": "nothing is deployed",
        "no_replica": "no deployment is live",
        "records": "no gateway reports",
        "quality": "no judge has scored anything",
        "disk": "the home's disk can't be looked at",
    }.get(kind, "")
