"""`modelyard cost` on what really runs, and a budget of money that stops a key (O6, G13)."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import Outcome
from tests.cli.stacks import running_stack
from tests.cli.test_keys import ask, run, within
from tests.observe.test_costs import record

from modelyard.api.cost_messages import CostReport, CostRow
from modelyard.cli import cost as command
from modelyard.client import Client
from modelyard.control.metering import EVERY_S
from modelyard.core.home import Home

NANOS = 10**9
HOURLY = 3600.0
"""One a second."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home with a price, on which yardling is served by the fake engine."""
    root = tmp_path_factory.mktemp("priced")
    (root / "config.yaml").write_text(
        f"cost: {{currency: CHF, replica_hour: {{process: {HOURLY}}}}}\n"
    )
    with running_stack(root, "yardling") as url:
        run(root, "deploy", "yardling:1", "--engine", "fake", "--replicas", "1")
        yield root, url


def costs(home: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(home, "cost", "--json", *words)[0])
    return found


def test_requests_and_idle_time_are_what_ran(stack: tuple[Path, str]) -> None:
    home, url = stack
    began = time.time()
    for _ in range(3):
        assert ask(url, None, "[[fake: tokens=9 first_token_s=0.2]]").status_code == 200
    within(30, lambda: costs(home)["total"]["requests"] == 3)
    answered = time.time()
    within(60, lambda: (costs(home)["total"]["replica_ms"] or 0) > (answered - began) * 1000)

    with Client.from_home(Home(home)) as client:
        (replica,) = client.status().replicas
        reports = {by: client.costs(by=by) for by in ("tenant", "key", "model", "version", "day")}
        launched = next(
            event.at for event in client.events(limit=1000)
            if event.kind == "replica.starting" and event.subject == replica.id
        )  # fmt: skip
    ran_s = time.time() - launched
    for report in reports.values():
        total = report.total
        assert (report.currency, total.requests, total.priced) == ("CHF", 3, 3)
        assert total.capacity_nanos is not None
        assert report.idle_nanos is not None
        assert total.cost_nanos + report.idle_nanos == total.capacity_nanos
        assert 3 * 0.2 * NANOS <= total.cost_nanos <= (time.time() - began) * NANOS
        # Counted up to the last look: one to a few seconds ago, never more than there was.
        assert (ran_s - 4 * EVERY_S) * NANOS <= total.capacity_nanos <= (ran_s + 1) * NANOS
        assert sum(row.cost_nanos for row in report.rows) == total.cost_nanos
    (version,) = reports["version"].rows
    assert version.name == "yardling:1"
    assert version.idle_nanos == reports["version"].idle_nanos


def test_the_table_says_what_is_idle_and_adds_up(stack: tuple[Path, str]) -> None:
    home, _ = stack
    out, _ = run(home, "cost")
    assert "(idle)" in out
    assert "cost CHF" in out
    assert "with idle time, a million tokens cost" in out
    lines = [line.split() for line in out.splitlines() if line.strip()]
    (idle,) = (line for line in lines if line[0] == "(idle)")
    (total,) = (line for line in lines if line[0] == "total")
    (nobody,) = (line for line in lines if line[:2] == ["(no", "key)"])
    money = [float(nobody[-2].replace(",", "")), float(idle[1].replace(",", ""))]
    assert sum(money) == pytest.approx(float(total[4].replace(",", "")))
    by_model, _ = run(home, "cost", "--by", "model")
    assert "idle  share" in by_model
    assert "yardling" in by_model
    for words in (("--by", "version"), ("--by", "day"), ("--by", "key"), ("--model", "yardling")):
        assert "total" in run(home, "cost", *words)[0]
    run(home, "cost", "--by", "colour", code=2)
    assert "not kept by version" in run(home, "cost", "--by", "version", "--tenant", "x", code=1)[1]


def test_rows_go_into_a_file(stack: tuple[Path, str], tmp_path: Path) -> None:
    home, _ = stack
    file = tmp_path / "cost.csv"
    run(home, "cost", "--by", "model", "--csv", str(file))
    text = file.read_bytes().decode()
    assert text.count("\r\n") == text.count("\n")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["model"] == "yardling"
    assert float(row["cost"]) + float(row["idle"]) == pytest.approx(float(row["capacity"]))
    out, _ = run(home, "cost", "--csv", "-")
    assert [line.partition(",")[0] for line in out.splitlines()] == ["tenant", "(no key)", "(idle)"]
    assert "can't be written" in run(home, "cost", "--csv", str(tmp_path), code=1)[1]


def test_a_budget_of_money_stops_a_key(stack: tuple[Path, str]) -> None:
    home, url = stack
    secret = run(home, "keys", "create", "spender", "--limit", "cost_per_day=1.5")[0].strip()
    within(15, lambda: ask(url, None).status_code == 401)

    codes = []
    for _ in range(60):
        codes.append(ask(url, secret, "[[fake: tokens=9 first_token_s=0.3]]").status_code)
        if codes[-1] == 429:
            break

    assert set(codes) == {200, 429}
    paid = codes.count(200)
    refused = ask(url, secret)
    assert refused.headers["x-modelyard-limit"] == "cost_per_day:key"
    assert int(refused.headers["retry-after"]) <= 86_400
    assert "may spend 1.5 per day" in refused.json()["error"]["message"]
    with Client.from_home(Home(home)) as client:
        within(30, lambda: _of(client, "spender").requests == paid + 2)
        spent = _of(client, "spender").cost_nanos
    assert 0.3 * paid * NANOS <= spent
    longest = 600 * NANOS  # one that was under way may have cost more than it was reckoned at
    assert spent <= 1.5 * NANOS + longest
    listed = run(home, "keys", "list")[0]
    assert "1.5 cost/day" in listed
    shown = json.loads(run(home, "cost", "--by", "key", "--json")[0])
    assert [row["name"] for row in shown["rows"]][:2] != []


def _of(client: Client, key: str) -> CostRow:
    return next(row for row in client.costs(by="key").rows if row.name == key)


# --- without a stack -----------------------------------------------------------------------------


def row(name: str, cost_nanos: int, **fields: Any) -> CostRow:
    known = {"requests": 10, "priced": 10, "prompt_tokens": 600_000, "completion_tokens": 400_000,
             "replica_ms": None, "accelerator_ms": None, "capacity_nanos": None,
             "idle_nanos": None}  # fmt: skip
    return CostRow(name=name, cost_nanos=cost_nanos, **(known | fields))


def reported(*rows: CostRow, **fields: Any) -> CostReport:
    total = row("", sum(each.cost_nanos for each in rows))
    known: dict[str, Any] = {"currency": "EUR", "by": "tenant", "since_day": 20_000,
             "folded_count": 0, "folded": None, "total": total, "idle_nanos": None,
             "unpriced_models": (), "missing_settings": ()}  # fmt: skip
    return CostReport(rows=rows, **(known | fields))


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_name_becomes_a_formula(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command._write_csv(Path("-"), reported(row(name, 5), row('a,"b"\n', 7)))
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert rows[1][0] == f"'{name}"
    assert rows[2][0] == 'a,"b"\n'
    assert rows[1][6] == "0.000000005"


def test_many_tenants_are_folded_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    command._print_table(
        reported(
            row("dear", 3 * NANOS),
            row("cheap", NANOS // 3),
            folded=row("", 2 * NANOS // 3),
            folded_count=9_980,
            total=row("", 4 * NANOS),
        )
    )
    out = capsys.readouterr().out
    assert "(9,980 more)" in out
    amounts = [line.split()[-2] for line in out.splitlines() if line.strip()[:1] in ("d", "c", "(")]
    assert amounts == ["3.0000", "0.3333", "0.6667"]
    assert "4.0000" in out


def test_what_is_not_known_is_said_with_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    command._print_table(
        reported(
            row("blue", 0, priced=1),  # one was refused, and cost nothing
            total=row("", 0, priced=0),
            unpriced_models=("m",),
            missing_settings=("cost.replica_hour.process",),
        )
    )
    out = capsys.readouterr().out
    assert out.count("unknown") == 2
    assert "the cost of 10 of 10 requests is not known" in out
    assert "set cost.replica_hour.process in config.yaml" in out


def test_a_stand_alone_gateways_log_is_summed_up(
    cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "currency: USD\nstate_dir: state\nmodels:\n"
        "  - {name: m, upstreams: [{url: 'http://127.0.0.1:9'}], price: {input_per_million: 1}}\n"
        "  - {name: n, upstreams: [{url: 'http://127.0.0.1:9'}]}\n"
    )
    log = Home(tmp_path / "state").gateway / "requests.jsonl"
    log.parent.mkdir(parents=True)
    now = time.time()
    records = [
        record(1, 0.25, received_at=now),
        record(2, None, received_at=now, model="n", tenant="=cmd"),
        record(3, 0.5, received_at=now - 86_400, tenant="red"),
        record(4, 9.0, received_at=now - 400 * 86_400),
    ]
    log.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in records))

    said = cli("cost", "--config", config)
    assert said.code == 0
    assert "cost USD" in said.out
    assert "0.750000" in said.out
    assert "the cost of 1 of 3 requests is not known" in said.out
    assert "set `price` of the model n in the gateway's file" in said.out
    by_day = json.loads(cli("cost", "--config", config, "--by", "day", "--json").out)
    assert [row["cost_nanos"] for row in by_day["rows"]] == [500_000_000, 250_000_000]
    assert by_day["rows"][0]["cost"] == 0.5
    mine = json.loads(cli("cost", "--config", config, "--tenant", "red", "--json").out)
    assert [row["name"] for row in mine["rows"]] == ["red"]
    assert "'=cmd,1,0,10,5,USD,,,," in cli("cost", "--config", config, "--csv", "-").out
    assert "knows no versions" in cli("cost", "--config", config, "--by", "version").err
    assert "nothing was asked" in cli("cost", "--config", config, "--model", "x").out
