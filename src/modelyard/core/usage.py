"""What keys used: request records summed by day, tenant, key and model.

Copies for a version on trial (`shadow_of`) are nobody's use, nor are smoke tests.
"""

from collections.abc import Iterable

import msgspec

from modelyard.core.cost import nanos
from modelyard.core.pinning import PINNED_BY
from modelyard.core.records import RequestRecord, is_priced

DAY_S = 86_400


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one key used of one model on one day of UTC."""

    day: int
    """Days since 1970."""
    tenant: str
    key_id: str
    """Empty where no key was needed."""
    model: str
    """Empty for requests that got to no model."""
    requests: int = 0
    unsuccessful: int = 0
    """Of them, those that failed, were refused, or whose client left."""
    cached: int = 0
    """Of them, those answered without a replica: from the cache, or together with another."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens that replicas read and made; those of cached answers are not counted again."""
    cost_nanos: int = 0
    """Billionths of the reporting currency, as far as prices are known."""
    priced: int = 0
    """Requests whose cost is known; those that got to no replica cost nothing."""


def summed(records: Iterable[RequestRecord]) -> list[Usage]:
    """The records' usage, a row for each day, tenant, key and model."""
    rows: dict[tuple[int, str, str, str], Usage] = {}
    for record in records:
        if record.shadow_of is not None or record.key_id == PINNED_BY:
            continue
        day = int(record.received_at // DAY_S)
        key = (day, record.tenant or "", record.key_id or "", record.model or "")
        known = rows.get(key)
        if known is None:
            known = Usage(day=key[0], tenant=key[1], key_id=key[2], model=key[3])
        cached = record.cache in ("hit", "joined")
        rows[key] = msgspec.structs.replace(
            known,
            requests=known.requests + 1,
            unsuccessful=known.unsuccessful + (record.outcome != "completed"),
            cached=known.cached + cached,
            prompt_tokens=known.prompt_tokens + (0 if cached else record.prompt_tokens or 0),
            completion_tokens=known.completion_tokens
            + (0 if cached else record.completion_tokens or 0),
            cost_nanos=known.cost_nanos + nanos(record.cost),
            priced=known.priced + is_priced(record),
        )
    return list(rows.values())
