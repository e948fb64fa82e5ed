"""The report of `modelyard cost` from a stand-alone gateway's log of requests."""

import time
from pathlib import Path

from modelyard.api.cost_messages import CostReport
from modelyard.api.costs import row_view
from modelyard.cli.keys.usage import rows_of_log
from modelyard.core.errors import InvalidRequest
from modelyard.core.home import Home
from modelyard.core.usage import DAY_S, Usage
from modelyard.gateway.config import GatewayFile
from modelyard.gateway.yamlfile import read_settings
from modelyard.observe.costs import By, Name, reported
from modelyard.state.spending import Spent


def report_of_log(
    config: Path,
    home: Home,
    *,
    days: int,
    by: By,
    tenant: str | None,
    model: str | None,
    top: int | None,
) -> CostReport:
    """Summed up from the log of the gateway that has this configuration; it knows of no idle
    time."""
    if by == "version":
        raise InvalidRequest(
            "a stand-alone gateway knows no versions", next_step="ask by model", param="by"
        )
    rows = [
        row
        for row in rows_of_log(config, home, days)
        if tenant in (None, row.tenant) and model in (None, row.model)
    ]
    of_models = _summed("model", rows)
    found = reported(by, _summed(by, rows), {}, of_models, {}, top)
    settings = read_settings(config, GatewayFile)
    return CostReport(
        currency=settings.currency,
        by=by,
        since_day=int(time.time() // DAY_S) - days + 1,
        rows=tuple(row_view(by, row) for row in found.rows),
        folded_count=found.folded_count,
        folded=None if found.folded is None else row_view(by, found.folded),
        total=row_view(by, found.total),
        idle_nanos=None,
        unpriced_models=found.unpriced,
        missing_settings=tuple(
            f"`price` of the model {each.name}"
            for each in settings.models
            if each.name in found.unpriced and each.price is None
        ),
    )


def _summed(by: By, rows: list[Usage]) -> dict[Name, Spent]:
    found: dict[Name, Spent] = {}
    for row in rows:
        named: dict[str, str | int]
        named = {"tenant": row.tenant, "key": row.key_id, "model": row.model, "day": row.day}
        name: Name = (named[by],)
        more = Spent(
            row.requests, row.priced, row.prompt_tokens, row.completion_tokens, row.cost_nanos
        )
        found[name] = found.get(name, Spent()).plus(more)
    return found
