"""`modelyard alerts rules`"""

from modelyard.cli.alerts.words import counted, table
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json, stdout_console
from modelyard.client import Client


def rules(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the rules in force, the default ones with them."""
    with Client.from_home(resolve_home(home)) as client:
        known = client.alerts.preview()
    if as_json:
        print_json([rule.model_dump(mode="json", exclude={"findings"}) for rule in known])
        return
    if not known:
        print("there is no rule: alerts.defaults is false, and alerts.rules names none")
        return
    shown = table("rule", "kind", "severity", "sees", "parameters")
    for rule in known:
        parameters = {"for_s": rule.for_s} | rule.parameters
        told = ", ".join(
            f"{name} {_shown(value)}"
            for name, value in parameters.items()
            if value not in (None, {}, 0.0)
        )
        sees = counted(len(rule.findings), "thing")
        shown.add_row(rule.name, rule.kind, rule.severity, sees, told)
    stdout_console().print(shown)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, list):
        return " ".join(str(each) for each in value)
    return str(value)
