"""Records whose quantities can be added up, whatever clock, engine or client they come from.

A sum that a database refuses would come again with its whole batch, for ever. So a moment is taken
for one of the years 1970 to 9999, an amount for one that billions of requests can be added up to,
and a name for as much of it as the tables keep.
"""

import msgspec

from modelyard.core.records import RequestRecord

LATEST_S = 253_402_300_799.0
"""The end of the year 9999, in Unix seconds."""
LONGEST_S = 1e7
"""Of a request, in seconds: 115 days."""
MOST_TOKENS = 10**9
MOST_COST = 1e6
"""Of one request, in the reporting currency."""
_HIGHEST_VERSION = 2**31 - 1
_NAMES = {"model": 128, "tenant": 128, "key_id": 128, "digest": 80}
_SECONDS = ("e2e_s", "queue_s", "ttft_s", "itl_mean_s", "replica_s")
_TOKENS = ("prompt_tokens", "completion_tokens")


def plausible(record: RequestRecord) -> RequestRecord:
    """The record itself when all of it is, else one with the nearest that is."""
    changed: dict[str, object] = {}
    _bound(record, "received_at", LATEST_S, changed)
    _bound(record, "cost", MOST_COST, changed)
    _bound(record, "version", _HIGHEST_VERSION, changed)
    for name in _SECONDS:
        _bound(record, name, LONGEST_S, changed)
    for name in _TOKENS:
        _bound(record, name, MOST_TOKENS, changed)
    for name, longest in _NAMES.items():
        text = getattr(record, name)
        if text is not None and (len(text) > longest or "\0" in text):
            changed[name] = text.replace("\0", "\ufffd")[:longest]
    return msgspec.structs.replace(record, **changed) if changed else record


def _bound(record: RequestRecord, name: str, most: float, changed: dict[str, object]) -> None:
    value = getattr(record, name)
    if value is not None and not 0 <= value <= most:
        changed[name] = type(most)(min(max(value, 0), most))
