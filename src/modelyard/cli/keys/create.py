"""`modelyard keys create`"""

import secrets
import sys
from typing import Annotated, Literal

import typer

from modelyard.api.messages import KeyWish
from modelyard.cli.keys.words import LIMIT_HELP, now, read_limits, read_seconds
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client
from modelyard.core.keyring import secret_hash
from modelyard.core.newkeys import DRAWN_BYTES, limits_of, secret_of
from modelyard.core.refs import check_name


def create(
    key_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Names it in lists and records; by default drawn."),
    ] = None,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="Whose key it is.")
    ] = "default",
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="May ask this one; repeatable; default: all."),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="KIND=N", help=LIMIT_HELP)
    ] = None,
    priority: Annotated[
        Literal["high", "normal", "low"],
        typer.Option("--priority", help="Who waits and is refused first under pressure."),
    ] = "normal",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="30d", help="By default never.")
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Only print it, and the lines for a stand-alone gateway's file."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. Its secret is printed this once, and kept nowhere.

    The secret goes to stdout, everything else to stderr.
    """
    everywhere, by_model = read_limits(limit or ())
    expires_at = None if expires_in is None else now() + read_seconds(expires_in, "--expires-in")
    wish = KeyWish(
        key_id=key_id,
        name=name,
        tenant=tenant,
        models=tuple(model) if model else None,
        limits=everywhere,
        limits_by_model=by_model,
        priority=priority,
        expires_at=expires_at,
    )
    if offline:
        _offline(wish, as_json)
        return
    with Client.from_home(resolve_home(home)) as client:
        made = client.create_key(wish)
    if as_json:
        print_json({**made.key.model_dump(mode="json"), "secret": made.secret})
        return
    print(made.secret)
    print(f"key {made.key.key_id} of tenant {made.key.tenant}", file=sys.stderr)
    print("keep the secret now: it is not shown again", file=sys.stderr)


def _offline(wish: KeyWish, as_json: bool) -> None:
    import yaml

    key_id = check_name(wish.key_id) if wish.key_id else f"key-{secrets.token_hex(4)}"
    limits_of(wish.limits)
    for model, limits in wish.limits_by_model.items():
        limits_of(limits, check_name(model))
    secret = secret_of(secrets.token_urlsafe(DRAWN_BYTES))
    lines: dict[str, object] = {"id": key_id, "tenant": check_name(wish.tenant)}
    lines["sha256"] = secret_hash(secret)
    if wish.models is not None:
        lines["models"] = list(wish.models)
    if wish.limits:
        lines["limits"] = {kind: _plain(amount) for kind, amount in wish.limits.items()}
    if wish.limits_by_model:
        lines["limits_by_model"] = {
            model: {kind: _plain(amount) for kind, amount in limits.items()}
            for model, limits in wish.limits_by_model.items()
        }
    if wish.priority != "normal":
        lines["priority"] = wish.priority
    if wish.expires_at is not None:
        from datetime import UTC, datetime

        lines["expires"] = datetime.fromtimestamp(int(wish.expires_at), UTC).isoformat()
    if as_json:
        print_json({"secret": secret, "key": lines})
        return
    print(secret)
    print("keep the secret now; these lines belong to `keys` of gateway.yaml:", file=sys.stderr)
    print(yaml.safe_dump([lines], sort_keys=False).rstrip(), file=sys.stderr)


def _plain(amount: float) -> int | float:
    return int(amount) if amount == int(amount) else amount
