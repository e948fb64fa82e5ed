"""The fake engine's flags: each field is one, `step_base_s` is `--step-base-s`."""

from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from modelyard.engines.fake_server.scheduler import Timing

_Tokens = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one fake engine is started with. The descriptions are the flags' help."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0 picks a free one.")] = 0
    model: Annotated[
        str | None, Meta(description="Served name; others get 404. Not given: any name is served.")
    ] = None
    model_path: Annotated[
        str | None, Meta(description="Must exist, or the start fails; it is not read.")
    ] = None
    fingerprint: Annotated[str, Meta(description="system_fingerprint of the answers.")] = "fp_fake"
    seed: Annotated[int, Meta(description="Added to each request's seed: other answers.")] = 0
    parallel: Annotated[
        int, Meta(ge=1, le=100_000, description="Slots: requests decoded at once.")
    ] = 64
    max_waiting: Annotated[int, Meta(ge=0, description="Requests that wait for a slot.")] = 1024
    overflow_status: Annotated[
        Literal[429, 503], Meta(description="Status of a request that finds the queue full.")
    ] = 503
    context_length: Annotated[
        _Tokens | None, Meta(description="Tokens of prompt and answer; not given: no bound.")
    ] = None
    default_tokens: Annotated[
        int, Meta(ge=1, description="Length of an answer when the request says nothing.")
    ] = 16
    prefill_tokens_per_s: Annotated[
        float, Meta(ge=0, description="Speed of reading prompts, one at a time; 0: instant.")
    ] = 0.0
    step_base_s: Annotated[_Seconds, Meta(description="Time of a decode step.")] = 0.0
    step_per_request_s: Annotated[
        _Seconds, Meta(description="Time that each request in the batch adds to a step.")
    ] = 0.0
    slow_start_s: Annotated[_Seconds, Meta(description="Time until the engine is loaded.")] = 0.0
    slow_start: Annotated[
        Literal["503", "refuse"], Meta(description="What clients meet while it loads.")
    ] = "503"
    drain_s: Annotated[_Seconds, Meta(description="Time for open requests after SIGTERM.")] = 600.0
    log_size: Annotated[int, Meta(ge=0, description="Requests remembered for /control/state.")] = (
        1000
    )
    embedding_size: Annotated[
        int, Meta(ge=1, le=65_536, description="Dimensions of an embedding.")
    ] = 16

    @property
    def served_name(self) -> str:
        """The name in `/v1/models` and in the metrics."""
        return self.model or "fake"

    @property
    def timing(self) -> Timing:
        """The scheduler's share of the settings."""
        return Timing(
            prefill_tokens_per_s=self.prefill_tokens_per_s,
            step_base_s=self.step_base_s,
            step_per_request_s=self.step_per_request_s,
        )


class Flag(msgspec.Struct, frozen=True):
    """How a setting is told to people."""

    help: str
    choices: tuple[str, ...] | None
    """Its allowed values, where they are few."""


def flag(field: str) -> Flag:
    """Read a setting's description and choices from its annotation."""
    kind, *notes = get_args(get_type_hints(Settings, include_extras=True)[field])
    text = next(note.description for note in reversed(notes) if note.description)
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else None
    return Flag(text, choices)
