"""`modelyard deploy NAME:VERSION`"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from modelyard.api.messages import DeployRequest, PlanView
from modelyard.cli.narrating import Narrator
from modelyard.cli.options import HomeOption, JsonOption, hint, resolve_home
from modelyard.cli.output import print_json
from modelyard.client import Client
from modelyard.core.errors import InvalidConfig, NotFound
from modelyard.core.rollout import Phase


def deploy(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="NAME, NAME:3, NAME@ALIAS or NAME@sha256:…"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="A deployment in YAML; flags go before."),
    ] = None,
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Public name; by default the model's own."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By default chosen from format and hardware."),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Workers to run; by default as many as are live."),
    ] = None,
    launcher: Annotated[
        Literal["process", "docker"] | None,
        typer.Option("--launcher", help="Where they run; by default as processes."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="NAME", help="What containers are made of."),
    ] = None,
    strategy: Annotated[
        Literal["blue-green", "canary", "shadow", "recreate"] | None,
        typer.Option("--strategy", help="How it takes over; by default blue-green."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="5%,25%,50%", help="Shares of a canary or shadow."),
    ] = None,
    step_s: Annotated[
        float | None,
        typer.Option("--step-s", min=0, metavar="S", help="How long each lasts at least; 60."),
    ] = None,
    bake_s: Annotated[
        float | None,
        typer.Option("--bake-s", min=0, metavar="S", help="How long the former stands by; 60."),
    ] = None,
    smoke: Annotated[
        Path | None,
        typer.Option("--smoke", metavar="FILE", help="Smoke tests, a list in JSON."),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Also serve requests that name no model.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; start nothing.")
    ] = False,
    timeout: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="How long to wait until it is live.")
    ] = 600,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a version under a public name, or replace the version that is served there.

    Its bytes are verified, its replicas answer a first generation and the smoke tests before a
    user's request reaches it; what fails is taken back. Waits until it is live.
    """
    given: dict[str, Any] = {} if file is None else read_deployment(file)
    flags = {"ref": ref, "as_name": as_name, "engine": engine, "replicas": replicas}
    flags |= {"launcher": launcher, "image": image}
    given |= {name: value for name, value in flags.items() if value is not None}
    if default:
        given["default"] = True
    plan = _plan(given.get("plan"), strategy, steps, step_s, bake_s, smoke)
    if plan:
        given["plan"] = plan
    if "ref" not in given:
        raise typer.BadParameter("give NAME:VERSION, or a file with --file", param_hint="REF")
    request = _request(given, file)
    where = resolve_home(home)
    with Client.from_home(where) as client:
        if dry_run:
            _tell_plan(client.plan(request), as_json)
            return
        asked = client.deploy(request)
        if asked.message and not as_json:
            print(asked.message, file=sys.stderr)
        try:
            live = client.wait_for(asked, timeout, on_change=None if as_json else Narrator())
        except KeyboardInterrupt:
            print(f"{asked.name} goes on without you; give it up with: "
                  f"{hint(f'abort {asked.name}', where)}", file=sys.stderr)  # fmt: skip
            raise
        gateway_url = client.status().gateway.url
    if as_json:
        print_json(live.model_dump(mode="json"))
        return
    print(f"live    {live.name} serves {live.model}:{live.version} on {live.engine}")
    print(f"digest  {live.digest}")
    print(f"url     {gateway_url}/v1/chat/completions")
    if live.rollout is not None and live.rollout.phase is Phase.BAKING:
        stands_by = live.rollout.waits_for or "the version before stands by"
        print(f"bakes   {stands_by}; back at once with:")
        print(f"        {hint(f'rollback {live.name}', where)}")
    print(f"next    {hint(f'chat --model {live.name}', where)}")


def read_deployment(file: Path) -> dict[str, Any]:
    """The fields of a deployment file; raises InvalidConfig, NotFound."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
    except OSError as error:
        raise NotFound(f"can't read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise InvalidConfig(
            f"{file} is not YAML: {told}", next_step="begin it with: ref: NAME:VERSION"
        ) from None
    if not isinstance(found, dict):
        raise InvalidConfig(
            f"{file} holds no deployment", next_step="begin it with: ref: NAME:VERSION"
        )
    return {str(name): value for name, value in found.items()}


def _request(given: dict[str, Any], file: Path | None) -> DeployRequest:
    from pydantic import ValidationError

    try:
        return DeployRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        known = ", ".join(DeployRequest.model_fields)
        raise InvalidConfig(
            f"{file or 'the deployment'}: {place}: {first['msg']}",
            next_step=f"a deployment may hold: {known}",
        ) from None


def _plan(
    written: Any,
    strategy: str | None,
    steps: str | None,
    step_s: float | None,
    bake_s: float | None,
    smoke: Path | None,
) -> dict[str, Any]:
    if written is not None and not isinstance(written, dict):
        raise InvalidConfig("plan: a mapping is expected", next_step="see docs/deployments.md")
    plan: dict[str, Any] = dict(written or {})
    if strategy is not None:
        plan["strategy"] = strategy
    if bake_s is not None:
        plan["bake_s"] = bake_s
    if steps is not None:
        plan["steps"] = [{"share": share} for share in _shares(steps)]
    elif step_s is not None and "steps" not in plan:
        raise typer.BadParameter("name the steps too, with --steps", param_hint="--step-s")
    if step_s is not None:
        plan["steps"] = _lasting(plan["steps"], step_s)
    if smoke is not None:
        plan["smoke"] = _smoke(smoke)
    return plan


def _lasting(steps: Any, min_s: float) -> Any:
    """Steps that last so long each; what is none is left for the plan's reader to refuse."""
    if not isinstance(steps, list):
        return steps
    return [{**step, "min_s": min_s} if isinstance(step, dict) else step for step in steps]


def _shares(text: str) -> list[float]:
    shares = []
    for part in text.split(","):
        number, percent, _ = part.strip().partition("%")
        try:
            shares.append(float(number) / (100 if percent else 1))
        except ValueError:
            raise typer.BadParameter(
                f"{part.strip()!r} is no share, such as 5% or 0.05", param_hint="--steps"
            ) from None
    return shares


def _smoke(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise NotFound(f"can't read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(
            f"the smoke tests in {file} are not JSON: {error}",
            next_step='write a list such as [{"prompt": "What is 2+2?", "all_of": ["4"]}]',
        ) from None


def _tell_plan(view: PlanView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    before = f" in place of {view.version_before}" if view.version_before else ""
    print(f"{view.deployment}: {view.version} on {view.engine}{before}; nothing was started")
    print(f"replicas      {view.replicas}, with those of both versions {view.replicas_at_peak}")
    print(f"accelerators  {view.accelerators_at_peak} at once")
    for number, step in enumerate(view.steps, 1):
        print(f"{number}. {step}")
    print("what must hold:")
    for gate in view.gates:
        print(f"- {gate}")
