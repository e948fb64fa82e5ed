"""What the fake engine answers on each path."""

import itertools
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from modelyard.core.errors import (
    InvalidRequest,
    LimitExceeded,
    ModelyardError,
    NotFound,
    Unavailable,
)
from modelyard.engines.fake_server.decoding import Decoding
from modelyard.engines.fake_server.faults import FaultBook, FaultRule
from modelyard.engines.fake_server.generations import (
    EmbeddingJob,
    Generation,
    Job,
    Plan,
    StreamGeneration,
    WholeGeneration,
)
from modelyard.engines.fake_server.ledger import PROMPT_HEAD, Entry, Ledger, Outcome, metrics_text
from modelyard.engines.fake_server.protocol import Connection, Request
from modelyard.engines.fake_server.replies import (
    Envelope,
    embeddings_body,
    encode_json,
    error_reply,
    json_reply,
    reply,
)
from modelyard.engines.fake_server.requests import (
    Ask,
    ContextLengthExceeded,
    EmbeddingAsk,
    ModelNotFound,
    count_tokens,
    plan_length,
    read_chat,
    read_completion,
    read_embeddings,
    read_tokenize,
    text_tokens,
)
from modelyard.engines.fake_server.scripts import PLAIN, Script, overlay, parse_directives
from modelyard.engines.fake_server.settings import Settings

_GARBAGE_PAGE = b"<html><body><h1>Bad gateway</h1></body></html>\n"
_GARBAGE_CHUNK = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"not-a-size\r\n"
)
_SCRIPTED_ERRORS: dict[int, type[ModelyardError]] = {
    400: InvalidRequest,
    404: NotFound,
    429: LimitExceeded,
    503: Unavailable,
}
_EMBEDDING_KEYS = Script(
    first_token_s=0, refuse=True, hang=True, status=400, retry_after_s=0, crash=True, garbage="html"
)


class Host(Protocol):
    """What the routes ask of the server around them."""

    @property
    def loading(self) -> bool:
        """The engine still loads."""

    @property
    def unsent_bytes(self) -> int:
        """What clients have not taken yet of their answers."""

    def cut_all(self) -> int:
        """End every request under way; returns their number."""

    def crash(self, code: int) -> None:
        """End the process."""


class Routes:
    """Requests → answers, jobs or scripted faults."""

    def __init__(
        self, settings: Settings, host: Host, decoding: Decoding, ledger: Ledger, faults: FaultBook
    ) -> None:
        self._settings = settings
        self._host = host
        self._decoding = decoding
        self._ledger = ledger
        self._faults = faults
        self._started_at = time.time()
        self._ids = itertools.count(time.time_ns())
        self._work: dict[str, Callable[[Connection, Request, Entry], None]] = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/embeddings": self._embeddings,
        }
        self._plain: dict[tuple[str, str], Callable[[Connection, Request], bytes]] = {
            ("GET", "/health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("GET", "/slots"): self._slots,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/apply-template"): self._apply_template,
            ("GET", "/control/state"): self._state,
            ("GET", "/control/requests"): self._arrivals,
            ("GET", "/control/faults"): self._list_faults,
            ("POST", "/control/faults"): self._add_fault,
            ("DELETE", "/control/faults"): self._clear_faults,
            ("POST", "/control/cut"): self._cut,
            ("POST", "/control/reset"): self._reset,
        }

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer now, or hand a job to the decoder that will."""
        path = request.path
        work = self._work.get(path)
        if work is not None and request.method == "POST":
            self._begin(work, connection, request)
            return
        if self._faults and not path.startswith("/control/"):
            script = self._faults.take((path,))
            if script.hang or self._play(connection, script):
                return
        try:
            plain = self._plain.get((request.method, path))
            if plain is None:
                raise self._unknown(request)
            connection.send(plain(connection, request))
        except ModelyardError as error:
            connection.send(error_reply(error, connection.headers()))
        connection.answered()

    def _unknown(self, request: Request) -> NotFound:
        paths = [*self._work, *dict.fromkeys(path for _, path in self._plain)]
        return NotFound(
            f"no route {request.method} {request.path}",
            next_step="Known paths: " + ", ".join(paths) + ".",
        )

    # generation

    def _begin(
        self,
        work: Callable[[Connection, Request, Entry], None],
        connection: Connection,
        request: Request,
    ) -> None:
        entry = self._ledger.open(request.id.decode("latin-1"), request.path)
        self._ledger.arrived(request.path, request.headers, request.body)
        try:
            if self._host.loading:
                raise Unavailable("the model is loading", retry_after_s=1)
            work(connection, request, entry)
        except ModelyardError as error:
            status = self._settings.overflow_status if isinstance(error, _QueueFull) else None
            self._ledger.close(entry, "rejected", status or error.status)
            connection.send(error_reply(error, connection.headers(), status))
            connection.answered()

    def _chat(self, connection: Connection, request: Request, entry: Entry) -> None:
        self._generate(read_chat(request.body), connection, request, entry)

    def _completion(self, connection: Connection, request: Request, entry: Entry) -> None:
        self._generate(read_completion(request.body), connection, request, entry)

    def _generate(self, ask: Ask, connection: Connection, request: Request, entry: Entry) -> None:
        entry.stream = ask.stream
        script = self._script(ask.prompts, request.path, entry)
        if self._play(connection, script, entry):
            return
        if ask.stream and request.http_1_0:
            raise InvalidRequest("a stream needs HTTP/1.1")
        model = self._model(ask.model)
        room = self._room(ask)
        settings = self._settings
        count, finish = plan_length(
            wanted=script.tokens, limit=ask.limit, default=settings.default_tokens, room=room
        )
        envelope = Envelope(
            kind=ask.kind,
            stream=ask.stream,
            id=b"%x" % next(self._ids),
            created=int(time.time()),
            model=script.model or model,
            fingerprint=script.fingerprint or settings.fingerprint,
        )
        plan = Plan(
            ask=ask,
            script=script,
            envelope=envelope,
            seed=settings.seed,
            count=count,
            finish=finish,
        )
        make = StreamGeneration if ask.stream else WholeGeneration
        generation: Generation = make(plan, connection, entry, self._ledger)
        if not generation.begin():
            self._submit(generation, connection)

    def _embeddings(self, connection: Connection, request: Request, entry: Entry) -> None:
        ask = read_embeddings(request.body)
        script = self._script(ask.prompts, request.path, entry)
        for key in Script.__struct_fields__:
            if getattr(script, key) is not None and getattr(_EMBEDDING_KEYS, key) is None:
                raise InvalidRequest(f"directive key {key!r} has no meaning for embeddings")
        if self._play(connection, script, entry):
            return
        model = self._model(ask.model)
        body = self._embeddings_body(ask, model)
        job = EmbeddingJob(connection, entry, self._ledger, body)
        job.prompt_tokens = ask.prompt_tokens
        job.delay_s = script.first_token_s or 0.0
        job.stops_at = 0 if script.hang else 1
        self._submit(job, connection)

    def _embeddings_body(self, ask: EmbeddingAsk, model: str) -> bytes:
        settings = self._settings
        size = ask.dimensions or settings.embedding_size
        return embeddings_body(ask, model=model, dimensions=size, seed=settings.seed)

    def _submit(self, job: Job, connection: Connection) -> None:
        connection.job = job
        self._ledger.prompt_tokens += job.prompt_tokens
        if not self._decoding.submit(job):
            connection.job = None
            self._ledger.prompt_tokens -= job.prompt_tokens
            raise _QueueFull("all slots are taken and the queue is full", retry_after_s=1)

    def _script(self, prompts: tuple[str, ...], path: str, entry: Entry) -> Script:
        prompt = prompts[0] if len(prompts) == 1 else "\n".join(prompts)
        entry.prompt = prompt[:PROMPT_HEAD]
        script = parse_directives(prompt)
        if self._faults:
            script = overlay(script, self._faults.take(("", path), prompt))
        return script

    def _model(self, asked: str) -> str:
        served = self._settings.model
        if served is not None and asked and asked != served:
            raise ModelNotFound(f"no model {asked!r}; this engine serves {served!r}", param="model")
        return served or asked or self._settings.served_name

    def _room(self, ask: Ask) -> int | None:
        """Tokens that the context leaves for the answer; raises ContextLengthExceeded."""
        length = self._settings.context_length
        if length is None:
            return None
        room = length - ask.prompt_tokens
        if room < (ask.limit or 1):
            raise ContextLengthExceeded(
                f"this model's maximum context length is {length} tokens, but the request asks for "
                f"{ask.prompt_tokens + (ask.limit or 1)} ({ask.prompt_tokens} in the prompt, "
                f"{ask.limit or 1} for the answer)",
                param="messages" if ask.kind == "chat" else "prompt",
            )
        return room

    def _play(self, connection: Connection, script: Script, entry: Entry | None = None) -> bool:
        """Play the faults that take the place of an answer; True: there is none to come."""
        if script is PLAIN:
            return False
        if script.crash:
            self._host.crash(1 if script.crash_code is None else script.crash_code)
            return True
        if script.refuse:
            self._settle(entry, "broken")
            connection.reset()
            return True
        if script.status is not None:
            self._settle(entry, "rejected", script.status)
            error = _scripted_error(script.status, script.retry_after_s)
            connection.send(error_reply(error, connection.headers(), script.status))
            connection.answered()
            return True
        if script.garbage is not None:
            self._settle(entry, "broken", 200)
            if script.garbage == "html":
                page = reply(200, b"text/html", _GARBAGE_PAGE, connection.headers())
                connection.send(page)
                connection.answered()
            else:
                connection.send(_GARBAGE_CHUNK)
                connection.cut()
            return True
        return False

    def _settle(self, entry: Entry | None, outcome: Outcome, status: int | None = None) -> None:
        if entry is not None:
            self._ledger.close(entry, outcome, status)

    # the rest

    def _health(self, connection: Connection, request: Request) -> bytes:
        if self._host.loading:
            raise Unavailable("the model is loading", retry_after_s=1)
        return json_reply(b'{"status":"ok"}', connection.headers())

    def _models(self, connection: Connection, request: Request) -> bytes:
        card = {
            "id": self._settings.served_name,
            "object": "model",
            "created": int(self._started_at),
            "owned_by": "modelyard",
            "max_model_len": self._settings.context_length,
        }
        return json_reply(encode_json({"object": "list", "data": [card]}), connection.headers())

    def _slot_list(self) -> list[dict[str, object]]:
        return [
            {"id": index, "is_processing": job is not None}
            for index, job in enumerate(self._decoding.scheduler.slots)
        ]

    def _slots(self, connection: Connection, request: Request) -> bytes:
        return json_reply(encode_json(self._slot_list()), connection.headers())

    def _metrics(self, connection: Connection, request: Request) -> bytes:
        scheduler = self._decoding.scheduler
        body = metrics_text(
            self._ledger,
            model=self._settings.served_name,
            running=scheduler.running,
            waiting=scheduler.waiting,
        )
        return reply(200, b"text/plain; version=0.0.4", body, connection.headers())

    def _tokenize(self, connection: Connection, request: Request) -> bytes:
        text = read_tokenize(request.body)
        answer = {
            "count": count_tokens(text),
            "max_model_len": self._settings.context_length,
            "tokens": text_tokens(text),
        }
        return json_reply(encode_json(answer), connection.headers())

    def _apply_template(self, connection: Connection, request: Request) -> bytes:
        answer = {"prompt": read_tokenize(request.body)}
        return json_reply(encode_json(answer), connection.headers())

    def _state(self, connection: Connection, request: Request) -> bytes:
        scheduler, ledger = self._decoding.scheduler, self._ledger
        state: dict[str, object] = {
            "loading": self._host.loading,
            "running": scheduler.running,
            "waiting": scheduler.waiting,
            "slots": self._slot_list(),
            "unsent_bytes": self._host.unsent_bytes,
            "seen": ledger.seen,
            "prompt_tokens": ledger.prompt_tokens,
            "generation_tokens": ledger.generation_tokens,
            "faults": self._faults.rules(),
            "log": ledger.log(),
        }
        return json_reply(encode_json(state | ledger.ended), connection.headers())

    def _arrivals(self, connection: Connection, request: Request) -> bytes:
        return json_reply(encode_json(self._ledger.arrivals()), connection.headers())

    def _list_faults(self, connection: Connection, request: Request) -> bytes:
        return json_reply(encode_json(self._faults.rules()), connection.headers())

    def _add_fault(self, connection: Connection, request: Request) -> bytes:
        try:
            rule = msgspec.json.decode(request.body, type=FaultRule)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"not a fault rule: {error}") from None
        self._faults.add(rule)
        return self._list_faults(connection, request)

    def _clear_faults(self, connection: Connection, request: Request) -> bytes:
        self._faults.clear()
        return self._list_faults(connection, request)

    def _cut(self, connection: Connection, request: Request) -> bytes:
        return json_reply(encode_json({"cut": self._host.cut_all()}), connection.headers())

    def _reset(self, connection: Connection, request: Request) -> bytes:
        self._faults.clear()
        self._ledger.reset()
        return self._state(connection, request)


class _QueueFull(Unavailable):
    """No slot and no place in the queue; the status is a setting."""


def _scripted_error(status: int, retry_after_s: int | None) -> ModelyardError:
    if retry_after_s is None and status == 429:
        retry_after_s = 1
    kind = _SCRIPTED_ERRORS.get(status, InvalidRequest if status < 500 else ModelyardError)
    return kind(f"scripted error {status}", retry_after_s=retry_after_s)
