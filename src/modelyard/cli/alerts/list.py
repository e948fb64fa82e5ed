"""`modelyard alerts list`"""

from typing import Annotated

import typer

from modelyard.api.alert_messages import AlertList
from modelyard.cli.alerts.words import alert_table, counted, silence_table, table, things_seen
from modelyard.cli.keys.words import now
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import age, print_json, stdout_console
from modelyard.client import Client
from modelyard.core.alert_states import Verdict
from modelyard.core.home import Home


def list_alerts(
    everything: Annotated[
        bool, typer.Option("--all", help="With what rules can say nothing about, and receivers.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is pending or fires, silenced or not."""
    where = resolve_home(home)
    with Client.from_home(where) as client:
        standing = client.alerts.standing()
    if as_json:
        print_json(standing.model_dump(mode="json"))
        return
    _show(standing, where, everything=everything)


def _show(standing: AlertList, home: Home, *, everything: bool) -> None:
    console = stdout_console()
    if standing.trouble:
        console.print(f"the rules can't be looked at: {standing.trouble}")
    if standing.alerts:
        console.print(alert_table(standing.alerts, now()))
    else:
        console.print(_nothing(standing), soft_wrap=True)
    if standing.silences:
        console.print(silence_table(standing.silences))
    for webhook in standing.webhooks:
        if webhook.error:
            waiting = f"waiting: {counted(webhook.waiting, 'message')}"
            console.print(f"webhook {webhook.name}: {webhook.error}; {waiting}", soft_wrap=True)
    if everything:
        _show_rest(standing)
    elif not standing.webhooks and standing.alerts:
        print("nobody is told: no webhook is set (alerts.webhooks in config.yaml)")
    elif not standing.alerts:
        print(f"next: {hint('alerts test --all', home)} shows what each rule sees")


def _nothing(standing: AlertList) -> str:
    if not standing.rules:
        return "nothing fires; nobody has looked yet"
    looked = "" if standing.looked_at is None else f", {age(now() - standing.looked_at)} ago"
    rules = counted(len(standing.rules), "rule")
    verb = "looks" if len(standing.rules) == 1 else "look"
    things = counted(things_seen(standing.rules), "thing")
    silent = sum(
        finding.verdict in (Verdict.NO_DATA, Verdict.IN_DOUBT)
        for rule in standing.rules
        for finding in rule.findings
    )
    without = f", without enough data in {counted(silent, 'case')}" if silent else ""
    return f"nothing fires; {rules} {verb} at {things}{looked}{without}"


def _show_rest(standing: AlertList) -> None:
    console = stdout_console()
    silent = [
        (rule.name, finding)
        for rule in standing.rules
        for finding in rule.findings
        if finding.verdict in (Verdict.NO_DATA, Verdict.IN_DOUBT)
    ]
    if silent:
        shown = table("no data for", "subject", "seen")
        for name, finding in silent:
            shown.add_row(name, finding.subject, finding.told)
        console.print(shown)
    if not standing.webhooks:
        print("nobody is told: no webhook is set (alerts.webhooks in config.yaml)")
        return
    shown = table("webhook", "form", "waiting", "last taken", "address")
    for webhook in standing.webhooks:
        taken = "never" if webhook.taken_at is None else f"{age(now() - webhook.taken_at)} ago"
        form = webhook.format + (", signed" if webhook.signed else "")
        shown.add_row(webhook.name, form, str(webhook.waiting), taken, webhook.address)
    console.print(shown)
