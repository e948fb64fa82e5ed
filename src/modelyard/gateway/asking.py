"""Small requests of the gateway's own to a replica: counting tokens, probing."""

from modelyard.core.errors import UpstreamCut, UpstreamError
from modelyard.core.routes import Timeouts
from modelyard.gateway.upstream import Pool
from modelyard.wire import http

_MAX_BYTES = 16 * 1024 * 1024


async def ask(
    pool: Pool,
    method: bytes,
    target: str,
    body: bytes = b"",
    *,
    timeout_s: float,
    authorization: bytes | None = None,
) -> bytes:
    """Return the body of a 2xx answer; raise UpstreamError for anything else."""
    headers = [
        (b"host", pool.authority),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    head = http.request_head(method, pool.prefix + target.encode(), headers)
    timeouts = Timeouts(first_token_s=timeout_s, gap_s=timeout_s, total_s=timeout_s)
    for fresh in (False, True):
        connection = await pool.acquire(timeout_s, fresh=fresh)
        exchange = connection.send(head + body, timeouts, timeout_s)
        try:
            status = await exchange.head()
            answer = await exchange.body(_MAX_BYTES)
        except UpstreamCut:
            if connection.used and not fresh:
                continue  # a kept connection that the replica had closed meanwhile
            raise
        finally:
            exchange.abandon()
        if status // 100 != 2:
            raise UpstreamError(f"the replica answered {status} to {method.decode()} {target}")
        return answer
    raise UpstreamCut("the replica closed every connection")
