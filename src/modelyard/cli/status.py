"""`modelyard status`"""

import time
from typing import Any

from modelyard.api.messages import Status
from modelyard.cli.narrating import told
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import age, print_json, short_digest, stdout_console
from modelyard.client import Client
from modelyard.core.home import Home


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the gateway, the controller, the deployments and their replicas."""
    where = resolve_home(home)
    with Client.from_home(where) as client:
        now = client.status()
    if as_json:
        print_json(now.model_dump(mode="json"))
        return
    _print(now, where)


def _print(now: Status, home: Home) -> None:
    print(
        f"gateway     {now.gateway.url or '-'}  {now.gateway.state}, pid {now.gateway.pid or '-'}"
    )
    print(
        f"controller  {now.controller.url}  running for "
        f"{age(time.time() - now.controller.started_at)}, pid {now.controller.pid}"
    )
    print(f"home        {now.controller.home}")
    console = stdout_console()
    if not now.deployments:
        print(f"\nnothing is deployed\nnext: {hint('deploy NAME:VERSION', home)}")
        return
    console.print()
    console.print(_deployments(now))
    if now.replicas:
        console.print()
        console.print(_replicas(now))
    for deployment in now.deployments:
        rollout = deployment.rollout
        if rollout is not None and rollout.waits_for:
            print(f"\n{told(deployment)}\n  {hint(f'rollouts show {rollout.id}', home)}")
        if deployment.message:
            print(f"\n{deployment.name}: {deployment.message}")


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _deployments(now: Status) -> Any:
    table = _table("DEPLOYMENT", "VERSION", "STATE", "REPLICAS", "ENGINE", "DIGEST")
    for one in now.deployments:
        moving = f" → {one.incoming_version}" if one.incoming_version else ""
        table.add_row(
            f"{one.name} (default)" if one.default else one.name,
            f"{one.model}:{one.version}{moving}",
            one.state.value,
            f"{one.replicas_ready}/{one.replicas_wanted}",
            one.engine,
            short_digest(one.digest).removeprefix("sha256:"),
        )
    return table


def _replicas(now: Status) -> Any:
    table = _table("REPLICA", "SLOT", "STATE", "PID", "BUSY", "AGE", "URL")
    for one in now.replicas:
        table.add_row(
            one.id,
            one.slot,
            one.state.value,
            str(one.pid or "-"),
            str(one.in_flight),
            age(time.time() - one.created_at),
            one.url,
        )
    return table
