"""Every error Modelyard raises on purpose, in one tree.

    ModelyardError
    ├── CallerError               the request, the command or the file given is at fault
    │   ├── InvalidRequest        400
    │   │   └── ContextOverflow   400  prompt and answer are longer than the context
    │   ├── InvalidConfig         400  a configuration or deployment file
    │   ├── Unauthenticated       401
    │   ├── Forbidden             403
    │   ├── Untrusted             403  no trusted key signed the version
    │   ├── NotFound              404
    │   ├── MethodNotAllowed      405
    │   ├── RequestTimeout        408  the client did not send its request in time
    │   ├── Conflict              409  the name, port, home or version is taken
    │   ├── PayloadTooLarge       413
    │   ├── HeadersTooLarge       431
    │   └── LimitExceeded         429  carries Retry-After and the limit that was hit
    ├── ClientLeft                499  nobody is there to read the answer
    ├── Unsupported               501  the engine or architecture can't do it
    ├── UpstreamError             502  a replica is at fault
    │   ├── UpstreamUnreachable   502
    │   ├── UpstreamCut           502  it closed before its answer was whole
    │   └── UpstreamTimeout       504
    ├── Unavailable               503  nobody is at fault that can be named; try again
    │   └── NoReplica             503
    ├── IntegrityError            500  bytes are not those that were registered
    ├── StorageError              500  the disk or a database refused
    │   └── StorageAway           503  for now: it can't be reached, is locked or full
    └── LaunchFailed              500  a worker did not become ready

A class knows its HTTP status and its OpenAI `type` and `code`; an instance says what was wrong
and what to do next. The command line prints both and exits 1 (2 for a usage error).
"""

from typing import ClassVar


class ModelyardError(Exception):
    """Base of all; `str(error)` is one line for people, `next_step` what to do about it."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.param = param
        self.retry_after_s = retry_after_s


class CallerError(ModelyardError):
    """The one who asked is at fault."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidRequest(CallerError):
    """The request can't be understood or holds a value that is not allowed."""


class ContextOverflow(InvalidRequest):
    """Prompt and answer don't fit into the model's context; the message has the numbers."""

    code = "context_length_exceeded"


class InvalidConfig(CallerError):
    """A configuration or deployment file holds what is not allowed; nothing was started."""

    code = "invalid_config"


class Unauthenticated(CallerError):
    """No key, or one that is not known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(CallerError):
    """The key is known and does not allow this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class Untrusted(CallerError):
    """The trust policy wants a signature by a trusted key; the version has none that holds."""

    status = 403
    type = "permission_error"
    code = "untrusted"


class NotFound(CallerError):
    """The model, version, deployment or alias does not exist; the message names those that do."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class MethodNotAllowed(CallerError):
    """The path is there and takes another method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(CallerError):
    """The client did not send the whole of its request in time."""

    status = 408
    code = "request_timeout"


class Conflict(CallerError):
    """What was asked for collides with what is there."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class PayloadTooLarge(CallerError):
    """The body is over the limit."""

    status = 413
    code = "payload_too_large"


class HeadersTooLarge(CallerError):
    """The request's head is over the limit."""

    status = 431
    code = "headers_too_large"


class LimitExceeded(CallerError):
    """A limit of the key, tenant or model is reached; `retry_after_s` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    limit: str = ""
    """Which one, as `kind:scope`."""


class ClientLeft(ModelyardError):
    """The client closed its connection before its answer was whole (499, after nginx)."""

    status = 499
    type = "client_closed_request"
    code = "client_closed_request"


class Unsupported(ModelyardError):
    """The engine, format or architecture can't do what was asked."""

    status = 501
    type = "not_implemented_error"
    code = "unsupported"


class UpstreamError(ModelyardError):
    """A replica is at fault."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """No connection to the replica."""

    code = "upstream_unreachable"


class UpstreamCut(UpstreamError):
    """The replica closed the connection before its answer was whole."""

    code = "upstream_cut"


class UpstreamTimeout(UpstreamError):
    """The replica was too slow: the message says which of the four timeouts passed."""

    status = 504
    code = "upstream_timeout"


class Unavailable(ModelyardError):
    """Can't be served now; `retry_after_s` says when to try again."""

    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class NoReplica(Unavailable):
    """No replica of the model is ready."""

    code = "no_replica"


class IntegrityError(ModelyardError):
    """Bytes on disk are not those that were registered; the message names the file."""

    code = "integrity_error"


class StorageError(ModelyardError):
    """The disk or a database refused: full, read-only, locked, not permitted."""

    code = "storage_error"


class StorageAway(StorageError):
    """A database can't be reached now, is locked or full: what it refused, it may take later."""

    status = 503
    type = "service_unavailable_error"
    code = "storage_away"


class LaunchFailed(ModelyardError):
    """A worker did not become ready; the message holds the last lines it wrote."""

    code = "launch_failed"
