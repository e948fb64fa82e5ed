"""`modelyard models verify REF` and `modelyard models verify --all`"""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import bytes_progress, print_json
from modelyard.core.errors import IntegrityError, ModelyardError, StorageError, Untrusted
from modelyard.core.home import Home
from modelyard.core.trust import TrustDecision, refuse_untrusted
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion
from modelyard.settings import load_settings


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one version."""

    version: ModelVersion
    signatures: str
    signed_by: tuple[str, ...] = ()
    error: ModelyardError | None = None


class Policy(msgspec.Struct, frozen=True):
    """Whose signatures count, and whether one is needed."""

    public_keys: tuple[Path, ...]
    require_signed: bool


def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every version.")] = False,
    public_keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key",
            metavar="PUBLIC.pem",
            help="Ask for a signature by this key (repeatable: by one of them); "
            "by default, what registry.trust in config.yaml says.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hash every byte of a version and check its signatures.

    Exits 1 when anything is damaged, naming the file, or lacks a signature that is asked for.
    """
    if (ref is None) is not every:
        raise typer.BadParameter("give a REF, or --all")
    where = resolve_home(home)
    registry = Registry(where)
    policy = _policy(where, public_keys)
    versions = registry.versions() if ref is None else [registry.get(ref)]
    verdicts = [_check(registry, version, policy, quiet=as_json) for version in versions]
    if as_json:
        print_json({"versions": [_facts(verdict) for verdict in verdicts]})
    for verdict in verdicts:
        _tell(verdict, as_json=as_json)
    if any(verdict.error for verdict in verdicts):
        raise typer.Exit(1)


def _policy(home: Home, public_keys: list[Path] | None) -> Policy:
    if public_keys:
        return Policy(tuple(public_keys), require_signed=True)
    trust = load_settings(home.config, {}).registry.trust
    return Policy(trust.keys_of(home), trust.require_signed)


def _check(registry: Registry, version: ModelVersion, policy: Policy, *, quiet: bool) -> Verdict:
    ref = str(version)
    decision = TrustDecision(allowed=False, signed_by=(), reason="not looked at")
    error: ModelyardError | None = None
    try:
        decision = registry.trust(ref, policy.public_keys, require_signed=policy.require_signed)
        with bytes_progress(f"checking {ref}", quiet=quiet) as progress:
            registry.verify(ref, progress=progress)
        refuse_untrusted(ref, decision)
    except (IntegrityError, StorageError, Untrusted) as found:
        error = found
    return Verdict(
        version=version, signatures=decision.reason, signed_by=decision.signed_by, error=error
    )


def _tell(verdict: Verdict, *, as_json: bool) -> None:
    if verdict.error is not None:
        print(f"error: {verdict.error.message}", file=sys.stderr)
        print(f"next: {verdict.error.next_step}", file=sys.stderr)
    elif not as_json:
        print(f"{verdict.version}  whole; {verdict.signatures}")


def _facts(verdict: Verdict) -> dict[str, object]:
    error = verdict.error
    return {
        "name": verdict.version.name,
        "version": verdict.version.version,
        "digest": verdict.version.digest,
        "ok": error is None,
        "signatures": verdict.signatures,
        "signed_by": verdict.signed_by,
        "error": None
        if error is None
        else {"message": error.message, "code": error.code, "next_step": error.next_step},
    }
