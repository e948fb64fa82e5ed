"""`modelyard fake-engine`: run the fake engine by itself, for benchmarks and for trying faults."""

from typing import Annotated

import typer

from modelyard.cli.options import HomeOption
from modelyard.engines.fake_server.main import checked, serve
from modelyard.engines.fake_server.settings import Settings, flag

_DEFAULTS = Settings()


def _help(field: str) -> str:
    return flag(field).help


def fake_engine(  # one parameter for each flag: that is how Typer declares them
    host: Annotated[str, typer.Option(help=_help("host"))] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help=_help("port"))] = _DEFAULTS.port,
    model: Annotated[str | None, typer.Option(help=_help("model"))] = None,
    model_path: Annotated[str | None, typer.Option(help=_help("model_path"))] = None,
    fingerprint: Annotated[str, typer.Option(help=_help("fingerprint"))] = _DEFAULTS.fingerprint,
    seed: Annotated[int, typer.Option(help=_help("seed"))] = _DEFAULTS.seed,
    parallel: Annotated[int, typer.Option(help=_help("parallel"))] = _DEFAULTS.parallel,
    max_waiting: Annotated[int, typer.Option(help=_help("max_waiting"))] = _DEFAULTS.max_waiting,
    overflow_status: Annotated[
        int, typer.Option(help=_help("overflow_status"))
    ] = _DEFAULTS.overflow_status,
    context_length: Annotated[int | None, typer.Option(help=_help("context_length"))] = None,
    default_tokens: Annotated[
        int, typer.Option(help=_help("default_tokens"))
    ] = _DEFAULTS.default_tokens,
    prefill_tokens_per_s: Annotated[
        float, typer.Option(help=_help("prefill_tokens_per_s"))
    ] = _DEFAULTS.prefill_tokens_per_s,
    step_base_s: Annotated[float, typer.Option(help=_help("step_base_s"))] = _DEFAULTS.step_base_s,
    step_per_request_s: Annotated[
        float, typer.Option(help=_help("step_per_request_s"))
    ] = _DEFAULTS.step_per_request_s,
    slow_start_s: Annotated[
        float, typer.Option(help=_help("slow_start_s"))
    ] = _DEFAULTS.slow_start_s,
    slow_start: Annotated[
        str, typer.Option(help=_help("slow_start"), metavar="503|refuse")
    ] = _DEFAULTS.slow_start,
    drain_s: Annotated[float, typer.Option(help=_help("drain_s"))] = _DEFAULTS.drain_s,
    log_size: Annotated[int, typer.Option(help=_help("log_size"))] = _DEFAULTS.log_size,
    embedding_size: Annotated[
        int, typer.Option(help=_help("embedding_size"))
    ] = _DEFAULTS.embedding_size,
    home: HomeOption = None,
) -> None:
    """Run an OpenAI-compatible engine with scripted latency and faults (docs/fake-engine.md).

    Prints one JSON line with its url and pid when it listens; ends on SIGTERM or Ctrl-C.
    """
    flags = dict(locals())
    del flags["home"]  # understood by every command; this one keeps nothing
    serve(checked(flags))
