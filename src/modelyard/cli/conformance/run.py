"""`modelyard conformance run URL`"""

import textwrap
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from modelyard.cli.conformance.driving import OnlyOption, WithoutOption, drive, ended_by_signals
from modelyard.cli.options import HomeOption, JsonOption
from modelyard.cli.output import print_json, stdout_console
from modelyard.conformance.check import Check
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.client import origin
from modelyard.conformance.runner import choose, excluded
from modelyard.conformance.target import GIVEN_BY, LIMIT_KINDS, LimitedKey, LimitKind, Target
from modelyard.conformance.yard import DEFAULT_PORTS
from modelyard.core.errors import InvalidRequest

DEFAULT_ENGINES = tuple(f"http://127.0.0.1:{port}" for port in DEFAULT_PORTS)
_MORE = "More that is known of the gateway, for more checks"


def _more(option: str, metavar: str, text: str, *, least: float | None = None) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel=_MORE, min=least)


def run(  # one parameter for each fact: that is how Typer declares them
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The gateway: http(s)://HOST:PORT[/PREFIX]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="M", help="A model that engines A and B serve.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="MODELYARD_CONFORMANCE_KEY",
            help="A key that may ask M.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Fake engines A, B and C, in this order: give it two or three times. "
            "[default: those of `modelyard conformance engines`]",
        ),
    ] = None,
    only: OnlyOption = None,
    without: WithoutOption = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the checks and what they need; ask nothing.")
    ] = False,
    single_model: Annotated[
        str | None, _more("--single-model", "NAME", "A model that engine C alone serves.")
    ] = None,
    first_token_s: Annotated[
        float | None,
        _more("--first-token-s", "SECONDS", "Its timeout of a stream's first event.", least=0.01),
    ] = None,
    gap_s: Annotated[
        float | None,
        _more("--gap-s", "SECONDS", "Its timeout of a silence in mid-stream.", least=0.01),
    ] = None,
    total_s: Annotated[
        float | None,
        _more("--total-s", "SECONDS", "Its timeout of a whole request.", least=0.01),
    ] = None,
    cached_model: Annotated[
        str | None, _more("--cached-model", "NAME", "A model of A and B with an exact cache.")
    ] = None,
    fallback_model: Annotated[
        str | None, _more("--fallback-model", "NAME", "A model of C that falls back on M.")
    ] = None,
    forbidden_model: Annotated[
        str | None, _more("--forbidden-model", "NAME", "A model that the key may not ask.")
    ] = None,
    other_tenant_key: Annotated[
        str | None, _more("--other-tenant-key", "KEY", "Another tenant's key.")
    ] = None,
    limited_key: Annotated[
        list[str] | None,
        _more("--limited-key", "KEY", "A key with limits; several save waiting."),
    ] = None,
    limits: Annotated[
        list[str] | None,
        _more(
            "--limits",
            "KIND=N[,…]",
            f"Its limits ({', '.join(LIMIT_KINDS)}): once for all of those keys, or for each.",
        ),
    ] = None,
    max_body_bytes: Annotated[
        int | None, _more("--max-body-bytes", "N", "The bound on a request's body.", least=1)
    ] = None,
    headers: Annotated[
        str | None, _more("--headers", "modelyard", "Whose own response headers to look at.")
    ] = None,
    pid: Annotated[
        int | None, _more("--pid", "N", "Its process on this machine: the last checks end it!")
    ] = None,
    settle_s: Annotated[
        float,
        typer.Option(min=0.1, help="How long it may take to ask an engine again that failed."),
    ] = 15.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a gateway that stands before the engines of `modelyard conformance engines`.

    What a check needs and was not told is not applicable, and so is what --without names. Exits 1
    when a check failed.
    """
    del home  # understood by every command; this one keeps nothing
    checks = choose(CHECKS, only or ())
    left_out = excluded(CHECKS, without or ())
    if listing:
        _list(checks, as_json=as_json)
        return
    if url is None or model is None:
        raise typer.BadParameter("give the gateway's URL and --model")
    engines = tuple(engine or DEFAULT_ENGINES)
    for each in (url, *engines):
        origin(each)
    if len(engines) not in (2, 3):
        raise InvalidRequest(
            f"{len(engines)} engines were given", next_step="give --engine two or three times"
        )
    target = Target(
        url=url,
        model=model,
        engines=engines,
        key=key,
        single_model=single_model,
        cached_model=cached_model,
        fallback_model=fallback_model,
        forbidden_model=forbidden_model,
        other_tenant_key=other_tenant_key,
        limited_keys=_limited(limited_key or [], limits or []),
        pid=pid,
        first_token_s=first_token_s,
        gap_s=gap_s,
        total_s=total_s,
        max_body_bytes=max_body_bytes,
        headers=_headers(headers),
        settle_s=settle_s,
    )
    with ended_by_signals():
        code = drive(target, checks, left_out, as_json=as_json)
    raise typer.Exit(code)


def _headers(word: str | None) -> Literal["modelyard"] | None:
    if word is None or word == "modelyard":
        return word  # type: ignore[return-value]  # mypy does not narrow to the literal
    raise InvalidRequest(f"no headers of {word!r} are known", next_step="known: modelyard")


def _limited(keys: Sequence[str], limits: Sequence[str]) -> tuple[LimitedKey, ...]:
    """Pair each limited key with its limits, or all with the same."""
    shared = list(limits) * len(keys) if len(limits) == 1 else list(limits)
    if len(shared) != len(keys):
        raise InvalidRequest(
            f"{len(keys)} limited keys have {len(limits)} limits",
            next_step="give --limits once for all of the keys, or once for each",
        )
    return tuple(LimitedKey(key, _limits(text)) for key, text in zip(keys, shared, strict=True))


def _limits(text: str) -> dict[LimitKind, int]:
    """Read `KIND=N[,KIND=N]`."""
    found: dict[LimitKind, int] = {}
    for word in text.split(","):
        name, _, number = word.partition("=")
        kind = next((each for each in LIMIT_KINDS if each == name.strip()), None)
        if kind is None or not number.strip().isdecimal() or int(number) < 1:
            raise InvalidRequest(
                f"{word!r} is no limit",
                next_step=f"write KIND=N with one of: {', '.join(LIMIT_KINDS)}",
            )
        found[kind] = int(number)
    return found


def _list(checks: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "checks": [
                    {"name": each.name, "meaning": each.meaning, "needs": list(each.needs)}
                    for each in checks
                ]
            }
        )
        return
    console = stdout_console()
    for check in checks:
        console.print(check.name, style="bold", soft_wrap=True)
        given = [GIVEN_BY[need].partition(",")[0] for need in check.needs]
        needs = f" (needs {', '.join(given)})" if given else ""
        told = textwrap.fill(
            check.meaning + needs, max(30, console.width - 4), break_on_hyphens=False
        )
        console.print(textwrap.indent(told, "    "), soft_wrap=True)
    console.print(f"\n{len(checks)} checks", style="bold")
