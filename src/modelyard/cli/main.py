"""`modelyard`: the table of subcommands. Only the one that was asked for is imported."""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from modelyard.cli import failures, lazy
from modelyard.cli.lazy import Entry
from modelyard.core.errors import ModelyardError

_START = "Start"
_MODELS = "Models"
_SERVE = "Serve"
_TOOLS = "Tools"

COMMANDS: dict[str, Entry] = {
    "demo": Entry("modelyard.cli.demo:demo", "See the whole main job with a small model.", _START),
    "up": Entry("modelyard.cli.up:up", "Start the gateway and the controller.", _START),
    "doctor": Entry(
        "modelyard.cli.doctor:doctor", "Say what works here and what is missing.", _START
    ),
    "register": Entry(
        "modelyard.cli.register:register", "Store a folder of weights as a version.", _MODELS
    ),
    "models": Entry(
        "modelyard.cli.models:app",
        "Look at, check, move and clean up registered versions.",
        _MODELS,
    ),
    "deploy": Entry("modelyard.cli.deploy:deploy", "Serve a version under a public name.", _SERVE),
    "rollouts": Entry(
        "modelyard.cli.rollouts:app", "See how versions became live, or why not.", _SERVE
    ),
    "promote": Entry("modelyard.cli.steering:promote", "End a canary or a bake now.", _SERVE),
    "pause": Entry("modelyard.cli.steering:pause", "Hold a rollout where it is.", _SERVE),
    "resume": Entry("modelyard.cli.steering:resume", "Let a rollout go on.", _SERVE),
    "abort": Entry("modelyard.cli.steering:abort", "Give a rollout up.", _SERVE),
    "rollback": Entry("modelyard.cli.steering:rollback", "Serve the version before.", _SERVE),
    "undeploy": Entry("modelyard.cli.steering:undeploy", "Serve a model no more.", _SERVE),
    "logs": Entry("modelyard.cli.steering:logs", "Show what workers wrote last.", _SERVE),
    "status": Entry("modelyard.cli.status:status", "Show what runs.", _SERVE),
    "top": Entry("modelyard.cli.top:top", "Watch what runs, live.", _SERVE),
    "trends": Entry(
        "modelyard.cli.trends:trends", "Draw a model's traffic of the last hours.", _SERVE
    ),
    "gateway": Entry(
        "modelyard.cli.gateway:app",
        "Serve any upstreams from a file, without a controller.",
        _SERVE,
    ),
    "chat": Entry("modelyard.cli.chat:chat", "Talk to a deployed model.", _SERVE),
    "keys": Entry("modelyard.cli.keys:app", "Say who may ask, and how much.", _SERVE),
    "cost": Entry("modelyard.cli.cost:cost", "Show what requests and idle time cost.", _SERVE),
    "explain": Entry("modelyard.cli.explain:explain", "Say why a request went as it did.", _SERVE),
    "alerts": Entry("modelyard.cli.alerts:app", "See and silence alerts, test rules.", _SERVE),
    "metrics": Entry(
        "modelyard.cli.metrics:app", "What is measured, for a Prometheus and a Grafana.", _TOOLS
    ),
    "conformance": Entry(
        "modelyard.cli.conformance:app", "Check any gateway against what can go wrong.", _TOOLS
    ),
    "fake-engine": Entry(
        "modelyard.cli.fake_engine:fake_engine",
        "Run a scripted engine for tests and benchmarks.",
        _TOOLS,
    ),
    "version": Entry("modelyard.cli.version:version", "Print the version of Modelyard.", _TOOLS),
}


def load(name: str) -> Any:
    """Import the subcommand `name` and make a Typer command of it."""
    return lazy.load(COMMANDS, name)


def build() -> typer.Typer:
    """The app, with a placeholder for every subcommand."""
    return lazy.build_group(
        COMMANDS,
        help="Take a large language model from a folder of weights to a production service.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 usage. Start with: modelyard demo",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; `arguments` are the process's own when None."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        build()(args=given, prog_name="modelyard")
    except ModelyardError as error:
        sys.exit(failures.tell(error, as_json=as_json))
    except KeyboardInterrupt:
        sys.exit(failures.tell_interrupted())
    except Exception as error:  # noqa: BLE001 - the edge of the program: nobody is left to raise to
        sys.exit(failures.tell_unexpected(error, as_json=as_json))


if __name__ == "__main__":
    main()
