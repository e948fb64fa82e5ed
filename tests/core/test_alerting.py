"""Alert rules and receivers as the configuration has them."""

from typing import Any

import pytest

from modelyard.core.alerting import (
    BURN_RATES,
    DEFAULTS,
    BurnRateRule,
    CrashLoopRule,
    DiskRule,
    LatencyRule,
    read_rules,
)
from modelyard.core.errors import InvalidConfig
from modelyard.core.receivers import read_webhooks


def test_the_default_rules_have_the_workbooks_rates() -> None:
    assert read_rules({}) == DEFAULTS
    burning = [rule for rule in DEFAULTS if isinstance(rule, BurnRateRule)]
    assert [(r.factor, r.long_s, r.short_s) for r in burning] == [
        (14.4, 3600, 300),
        (6.0, 21_600, 1800),
    ]
    assert [rule.name for rule in burning] == [rate.name for rate in BURN_RATES]
    assert burning[0].most == pytest.approx(0.144)


def test_a_rule_by_the_name_of_a_default_one_changes_it_and_null_switches_it_off() -> None:
    rules = read_rules({"errors-fast": {"objective": 0.999}, "disk": None})
    by_name = {rule.name: rule for rule in rules}
    fast = by_name["errors-fast"]
    assert isinstance(fast, BurnRateRule)
    assert (fast.objective, fast.factor) == (0.999, 14.4)
    assert "disk" not in by_name
    mine = {"late": {"kind": "latency", "ttft_s": 2, "models": ["chat"]}}
    [late] = read_rules(mine, defaults=False)
    assert isinstance(late, LatencyRule)
    assert (late.name, late.ttft_s, late.models) == ("late", 2.0, ("chat",))


def test_a_rule_of_another_kind_takes_a_default_ones_place() -> None:
    changed = read_rules({"disk": {"kind": "crash_loop", "failures": 5}})
    assert not [rule for rule in changed if isinstance(rule, DiskRule)]
    assert [r.failures for r in changed if isinstance(r, CrashLoopRule)] == [3, 5]


@pytest.mark.parametrize(
    ("rules", "key", "said"),
    [
        ({"x": {"kind": "quality", "min_scores": 1}}, "x.min_scores", "mend"),
        ({"x": {"kind": "burnrate"}}, "x.kind", "burn_rate"),
        ({"x": {}}, "x.kind", "crash_loop"),
        ({"X y": {"kind": "disk"}}, "X y", "small letters"),
        ({"dsk": None}, "dsk", "'disk'"),
        ({"errors-fast": {"objectve": 0.9}}, "errors-fast.objectve", "'objective'"),
        ({"errors-fast": {"objective": 1.5}}, "errors-fast.objective", "mend"),
        ({"errors-fast": {"objective": 0.9}}, "errors-fast.factor", "raise the objective"),
        ({"errors-fast": {"long_s": 60}}, "errors-fast.short_s", "longer than long_s"),
        ({"late": {"kind": "latency"}}, "late.ttft_s", "is missing"),
        ({"disk": {"labels": {"team": 1}}}, "disk.labels", "str"),
        ({"disk": {"for_s": -1}}, "disk.for_s", "mend"),
    ],
)
def test_what_is_no_rule_is_refused_by_name_and_key(
    rules: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        read_rules(rules)
    assert refused.value.message.startswith(f"alerts.rules.{key}")
    assert said in f"{refused.value.message}; {refused.value.next_step}"
    assert refused.value.next_step


SLACK = {"format": "slack", "url": "https://hooks.slack.example/T0/B0/xyz"}
SIGNED = {"url": "http://127.0.0.1:9/x", "secret_file": "s"}


def test_webhooks_have_one_address_and_what_they_are_signed_with() -> None:
    team, slack = read_webhooks({"team": SIGNED, "slack": SLACK, "off": None})
    assert (team.name, team.format, slack.format) == ("team", "json", "slack")
    assert "xyz" not in repr(slack)


@pytest.mark.parametrize(
    ("wish", "key", "said"),
    [
        ({"url": "http://x/"}, "secret_file", "openssl"),
        ({**SIGNED, "secret": "abcdefgh"}, "secret", "secret_file"),
        ({**SIGNED, "secret_env": "S"}, "secret_env", "leave one"),
        ({**SIGNED, "url_env": "U"}, "url", "2 addresses"),
        ({"secret_file": "s"}, "url", "0 addresses"),
        ({**SIGNED, "url": "file:///etc/passwd"}, "url", "https://HOST"),
        ({**SIGNED, "url": "http://host:99999/"}, "url", "https://HOST"),
        ({**SIGNED, "url": "http://a b/"}, "url", "https://HOST"),
        ({**SIGNED, "url": "http:///x"}, "url", "https://HOST"),
        ({**SIGNED, "url": "http://x/\r\nHost: y"}, "url", "https://HOST"),
        ({**SIGNED, "format": "teams"}, "format", "mend"),
        ({**SIGNED, "fromat": "json"}, "fromat", "'format'"),
        ({**SIGNED, "timeout_s": 0}, "timeout_s", "mend"),
    ],
)
def test_what_is_no_webhook_is_refused_by_name_and_key(
    wish: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        read_webhooks({"team": wish})
    assert refused.value.message.startswith(f"alerts.webhooks.team.{key}:")
    told = f"{refused.value.message}; {refused.value.next_step}"
    assert said in told
    assert "abcdefgh" not in told
