"""`modelyard explain REQUEST_ID`"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.cli.running import gateway_url
from modelyard.client import Client
from modelyard.core.errors import NotFound, Unavailable
from modelyard.core.home import Home

_ASK_S = 5.0


def explain(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="`x-request-id` of an answer.")
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Of a stand-alone gateway: asked itself."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a recent request went as it did.

    Who asked, which limits were looked at, what the cache said, why which replica was chosen, and
    how each attempt ended.
    """
    where = resolve_home(home)
    if config is not None:
        told = _of_gateway(_state_of(config, where), request_id)
    else:
        with Client.from_home(where) as client:
            told = client.explain(request_id).model_dump(mode="json")
    if as_json:
        print_json(told)
        return
    for line in (*_lines(told["record"], told["decisions"]), *_scores(told.get("scores", ()))):
        print(line)


def _state_of(config: Path, home: Home) -> Home:
    from modelyard.gateway.config import GatewayFile
    from modelyard.gateway.yamlfile import read_settings

    state = read_settings(config, GatewayFile).state_dir
    return home if state is None else Home(config.absolute().parent / Path(state).expanduser())


def _of_gateway(home: Home, request_id: str) -> Mapping[str, Any]:
    """Ask the stand-alone gateway of a home."""
    import httpx

    url = gateway_url(home)
    headers = {"authorization": f"Bearer {home.gateway_token.read_text().strip()}"}
    path = f"{url}/admin/requests/{quote(request_id, safe='')}"
    try:
        # Its certificate is for clients, who know it by another name than this machine's own.
        reply = httpx.get(path, headers=headers, timeout=_ASK_S, verify=False, trust_env=False)  # noqa: S501
    except httpx.TransportError as error:
        raise Unavailable(
            f"no answer from the gateway at {url}: {error}", next_step="see that it runs"
        ) from error
    if reply.status_code != 200:
        raise NotFound(
            str(reply.json()["error"]["message"]),
            next_step="only the last requests are remembered (explain_last)",
        )
    found: Mapping[str, Any] = reply.json()
    return found


def _lines(record: Mapping[str, Any], decisions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"request   {record['request_id']}"
    code = f", {record['error_code']}" if record.get("error_code") else ""
    yield f"outcome   {record['outcome']} ({record['status']}{code}) in {record['e2e_s']:.3f} s"
    who = record.get("key_id")
    yield f"who       {'no key was needed' if not who else _holder(record)}"
    made = f" by version {record['version']}" if record.get("version") else ""
    yield f"model     {record.get('model')}{made}, {record.get('digest') or 'no replica was asked'}"
    tokens = f"{record.get('prompt_tokens')} in, {record.get('completion_tokens')} out"
    yield f"tokens    {tokens}{' (estimated)' if record.get('tokens_estimated') else ''}"
    yield f"cache     {record.get('cache')}"
    yield f"limits    {', '.join(record.get('limits') or ()) or 'none'}"
    if record.get("queue_s"):
        yield f"waited    {record['queue_s']:.3f} s for a replica"
    for decision in decisions:
        yield from _decided(decision)
    for number, attempt in enumerate(record.get("attempts") or (), 1):
        status = f" {attempt['status']}" if attempt.get("status") else ""
        yield (
            f"attempt {number} {attempt['replica']}: {attempt['outcome']}{status} after "
            f"{attempt['duration_s']:.3f} s, chosen by {attempt['reason']}"
        )


def _scores(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in scores:
        said = "could not say" if each["score"] is None else f"{each['score']:.3g}"
        why = f": {each['reason']}" if each["reason"] else ""
        yield f"quality   {said} by {each['judge']}{why}"


def _holder(record: Mapping[str, Any]) -> str:
    return f"key {record['key_id']} of tenant {record['tenant']}"


def _decided(decision: Mapping[str, Any]) -> Iterator[str]:
    kind = decision["decided"]
    if kind == "choose":
        yield f"choice    {decision['chosen'] or 'none'} ({decision['reason']}), of"
        for each in decision["candidates"]:
            room = each["max_concurrency"]
            of_room = f" of {room}" if room is not None else ""
            rest = "" if each["healthy"] else ", rests after failures"
            yield f"            {each['replica']}: {each['in_flight']}{of_room} in flight{rest}"
        return
    facts = ", ".join(f"{name} {value}" for name, value in decision.items() if name != "decided")
    yield f"{kind:<9} {facts}"
