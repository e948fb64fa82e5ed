"""The flaws that a meddling proxy brings about, and what each of them spoils."""

import json
import re
from collections.abc import Callable
from typing import Any

from tests.conformance.meddling_proxy import Asked, Flaw

from modelyard.conformance.target import LIMIT_KINDS, Target

Change = Callable[[dict[str, Any]], object]


def _fields(change: Change) -> Flaw:
    return Flaw(ask=lambda asked, _: asked.change(change))


def _key(choose: Callable[[Asked, Target], str | None]) -> Flaw:
    """Lets a request in with another key than its own."""

    def ask(asked: Asked, target: Target) -> None:
        asked.key = choose(asked, target) or asked.key

    return Flaw(ask=ask)


def _said(pattern: bytes, by: bytes) -> Flaw:
    """Says something else in place of what the gateway said."""
    return Flaw(tell=lambda answer, _: re.sub(pattern, by, answer))


def _limited(asked: Asked, target: Target) -> str | None:
    known = {each.key for each in target.limited_keys}
    return target.key if asked.key in known else None


def _key_of_query(asked: Asked, _: Target) -> str | None:
    return asked.path.partition("=")[2]


def _one_purse(asked: Asked, target: Target) -> str | None:
    """All keys are counted as one."""
    return next(e.key for e in target.limited_keys if LIMIT_KINDS[0] in e.limits)


def _any_model(asked: Asked, target: Target) -> None:
    asked.body = asked.body.replace(
        f'"model":"{target.forbidden_model}"'.encode(), f'"model":"{target.model}"'.encode()
    )


def _leak(answer: bytes, target: Target) -> bytes:
    return re.sub(rb'"message":"', b'"message":"' + target.engines[0].encode() + b" ", answer)


def _usage_unasked(answer: bytes, _: Target) -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    return answer.replace(
        b"data: [DONE]", b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]"
    )


def _plain(name: str) -> Change:
    known = ("model", "messages", "prompt", "input", "stream", "stream_options", "temperature")

    def change(fields: dict[str, Any]) -> None:
        for field in set(fields) - set(known):
            del fields[field]

    return change


def _trim(fields: dict[str, Any]) -> None:
    """Makes of a conversation what it takes for the same one."""
    for message in fields.get("messages", []):
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            message["content"] = message["content"].rstrip(" aA")
            message.pop("name", None)


def _roles(fields: dict[str, Any]) -> None:
    fields["messages"] = [{"role": "user", "content": m["content"]} for m in fields["messages"]]


def _floats(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = int(float(value))


FLAWS: dict[str, Flaw] = {
    "reads_http_carelessly": Flaw(keeps_open=True),
    "forgets_bodies": Flaw(forgets_bodies=True, keeps_open=True),
    "lets_all_in": _key(lambda asked, target: target.key),
    "lets_in_by_the_query": _key(_key_of_query),
    "wants_bearer_written_so": Flaw(
        ask=lambda asked, _: asked.headers.update(
            authorization=asked.headers.get("authorization", "").replace("bearer ", "bear ")
        )
    ),
    "opens_all_models": Flaw(ask=_any_model),
    "limits_nobody": _key(_limited),
    "limits_all_as_one": _key(_one_purse),
    "notices_no_leaving": Flaw(never_leaves=True),
    "mixes_tenants": _key(
        lambda asked, target: target.key if asked.key == target.other_tenant_key else None
    ),
    "drops_fields": _fields(_plain("")),
    "trims_messages": _fields(_trim),
    "forgets_roles": _fields(_roles),
    "makes_all_deterministic": _fields(lambda fields: fields.update(temperature=0)),
    "spoils_the_cache": _fields(lambda fields: fields.update(x_other=1)),
    "forgets_no_store": Flaw(ask=lambda asked, _: asked.headers.pop("cache-control", None)),
    "counts_in_floats": _fields(_floats),
    "drops_controls": Flaw(
        ask=lambda asked, _: setattr(asked, "body", asked.body.replace(b"\\u0000", b""))
    ),
    "says_200_to_all": _said(rb"^HTTP/1.1 [45]\d\d", b"HTTP/1.1 200"),
    "says_500_to_all": _said(rb"^HTTP/1.1 [45]\d\d", b"HTTP/1.1 500"),
    "has_errors_of_its_own_form": _said(rb'{"error":{"message"', b'{"detail":{"message"'),
    "has_errors_as_pages": _said(rb"content-type: application/json", b"content-type: text/html"),
    "hides_what_engines_say": _said(rb"scripted error", b"something"),
    "tells_where_engines_are": Flaw(tell=_leak),
    "never_says_when_to_come_back": _said(rb"\r\nretry-after: \d+", b""),
    "tells_usage_unasked": Flaw(tell=_usage_unasked),
    "tells_no_usage": _said(rb'"usage":{[^}]*}', b'"usage":null'),
    "counts_usage_wrong": _said(rb'"completion_tokens":', b'"completion_tokens":1'),
    "says_stop_to_all": _said(rb'"finish_reason":"length"', b'"finish_reason":"stop"'),
    "names_every_answer": Flaw(
        tell=lambda answer, _: re.sub(
            rb'"model":"[^"]*"', b'"model":"m%d"' % (len(answer) % 7), answer
        )
    ),
    "loses_a_choice": _said(rb'"index":2', b'"index":1'),
    "has_one_id": _said(rb"\r\nx-request-id: [^\r]*", b"\r\nx-request-id: 1"),
    "makes_other_vectors": _said(rb'"embedding":\[', b'"embedding":[0.5,'),
    "lists_in_another_form": _said(rb'"object":"list"', b'"models":1'),
}
