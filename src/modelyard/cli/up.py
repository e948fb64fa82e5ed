"""`modelyard up`"""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard import __version__
from modelyard.cli.options import HomeOption, hint, resolve_home
from modelyard.control.listening import check_loopback, listen
from modelyard.control.secrets import prepare_home
from modelyard.control.supervisor import (
    ChildSpec,
    Supervisor,
    end_leftovers,
    last_lines,
    sole_supervisor,
)
from modelyard.core.errors import LaunchFailed, ModelyardError
from modelyard.core.home import Home
from modelyard.core.telemetry import TelemetryOptions
from modelyard.observe.collectors import collector_of
from modelyard.settings import Settings, TlsSettings, load_settings

if TYPE_CHECKING:
    from modelyard.api.messages import DeploymentView
    from modelyard.client import Client

CONTROLLER_MODULE = "modelyard.control.main"
GATEWAY_MODULE = "modelyard.gateway.main"
CONTROLLER_GRACE_S = 8.0
GATEWAY_GRACE_S = 3.0
"""Over the drain time: to tell those that are cut, and to write the last records."""
WORKER_GRACE_S = 5.0
START_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.02


def up(
    deploy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VERSION", help="Deploy this version; may be given again."),
    ] = None,
    gateway_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the gateway. [default: 8000]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the management API. [default: 8001]"),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Start the gateway and the controller, and keep them and all deployments running.

    Ctrl-C finishes the requests in flight, then ends everything.
    """
    place = resolve_home(home)
    flags = {
        "gateway": {} if gateway_port is None else {"port": gateway_port},
        "controller": {} if port is None else {"port": port},
    }
    settings = load_settings(place.config, flags)
    if not _has_key(place, settings):
        check_loopback(settings.gateway.host, "gateway.host")
    check_loopback(settings.controller.host, "controller.host")
    collector_of(settings.telemetry_options.traces)  # refused here, not by a gateway that dies
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not place.run.exists():
        # Nothing can be left over here; a new home is not begun for a port that is taken.
        _check_ports(settings)
    prepare_home(place)
    gateway_url = _gateway_url(settings)
    with sole_supervisor(place, gateway_url):
        for name in end_leftovers(
            place, {"gateway": GATEWAY_MODULE, "controller": CONTROLLER_MODULE}
        ):
            print(f"ended the {name} that an earlier start had left", file=sys.stderr)
        _check_ports(settings)
        asyncio.run(_supervise(place, settings, tuple(deploy or ())))


def _has_key(home: Home, settings: Settings) -> bool:
    """Whether there ever was an API key: then others may reach the gateway.

    Raises StorageError when the database is away: then nothing is started.
    """
    url = settings.state.plain_url()
    if url is None and not home.state.exists():
        return False
    from modelyard.core.keyring import Keyring
    from modelyard.state.store import open_store

    store = open_store(home, url)
    try:
        ring = Keyring()
        ring.apply(store.keys.after(0), reset=True)
        return ring.required
    finally:
        store.close()


def _check_ports(settings: Settings) -> None:
    listen(settings.gateway.host, settings.gateway.port, "--gateway-port").close()
    listen(settings.controller.host, settings.controller.port, "--port").close()


async def _supervise(home: Home, settings: Settings, deploy: tuple[str, ...]) -> None:
    async def end_workers() -> None:
        await _end_workers(home)

    supervisor = Supervisor(home, children(home, settings), end_workers)
    loop = asyncio.get_running_loop()
    greeter = _Greeter(home, settings, deploy)

    def told() -> None:
        greeter.stopping = True
        supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told)
    greeter.on_failure = lambda: loop.call_soon_threadsafe(supervisor.stop)
    # A daemon: it may be waiting for a deployment when everything is to end.
    threading.Thread(target=greeter.greet, daemon=True, name="greeter").start()
    await supervisor.run()
    if greeter.failure is not None:
        raise greeter.failure
    print("stopped; nothing is left running", file=sys.stderr)


def children(home: Home, settings: Settings) -> tuple[ChildSpec, ChildSpec]:
    """The controller and the gateway."""
    gateway, controller = settings.gateway, settings.controller
    return (
        ChildSpec(
            name="controller",
            argv=(
                *(sys.executable, "-m", CONTROLLER_MODULE, "--home", str(home.root)),
                *("--host", controller.host, "--port", str(controller.port)),
                *("--gateway-url", _gateway_url(settings)),
            ),
            stop_grace_s=CONTROLLER_GRACE_S,
        ),
        ChildSpec(
            name="gateway",
            argv=(
                *(sys.executable, "-m", GATEWAY_MODULE, "--home", str(home.root)),
                *("--listen", f"{gateway.host}:{gateway.port}"),
                *("--controller", _url(controller.host, controller.port)),
                *("--drain-s", str(gateway.drain_s)),
                *("--when-spool-full", gateway.when_spool_full),
                *_telemetry(settings),
                *(_tls_options(home, gateway.tls) if gateway.tls is not None else ()),
            ),
            stop_grace_s=gateway.drain_s + GATEWAY_GRACE_S,
        ),
    )


def _telemetry(settings: Settings) -> tuple[str, ...]:
    """Names of variables at most: what they hold is read by the gateway itself."""
    options = settings.telemetry_options
    if options == TelemetryOptions():
        return ()
    import msgspec

    return ("--telemetry", msgspec.json.encode(options).decode())


def _tls_options(home: Home, tls: TlsSettings) -> tuple[str, ...]:
    folder = home.config.parent
    return (
        *("--tls-cert", str(folder / tls.cert_file.expanduser())),
        *("--tls-key", str(folder / tls.key_file.expanduser())),
    )


async def _end_workers(home: Home) -> None:
    """End every worker of the home, whoever started it; the state may be away."""
    from modelyard.launchers.docker import DockerLauncher
    from modelyard.launchers.process import ProcessLauncher

    await asyncio.gather(
        ProcessLauncher(home, "supervisor").stop_all(WORKER_GRACE_S),
        DockerLauncher(home, "supervisor").stop_all(WORKER_GRACE_S),
    )


class _Greeter:
    """Tells where everything is, deploys what was asked for, and says when it answers.

    Runs in a thread of its own, beside the supervisor.
    """

    def __init__(self, home: Home, settings: Settings, deploy: tuple[str, ...]) -> None:
        self._home = home
        self._settings = settings
        self._deploy = deploy
        self._began = time.monotonic()
        self.stopping = False
        self.failure: ModelyardError | None = None
        self.on_failure: Callable[[], object] = _nothing

    def greet(self) -> None:
        """Do all of it; what goes wrong ends the supervisor, unless it is ending anyway."""
        try:
            self._greet()
        except ModelyardError as error:
            if not self.stopping:
                self.failure = error
                self.on_failure()

    def _greet(self) -> None:
        self._wait_for("controller")
        self._wait_for("gateway")
        if self.stopping:
            return
        gateway = _gateway_url(self._settings)
        management = _url(self._settings.controller.host, self._settings.controller.port)
        print(f"Modelyard {__version__} on {self._home.root}")
        keyed = _has_key(self._home, self._settings)
        print(f"gateway     {gateway}/v1{'  (every request needs an API key)' if keyed else ''}")
        print(f"management  {management}  (token in {self._home.admin_token})")
        print(f"logs        {self._home.logs}", flush=True)
        served = self._bring_up()
        if served is None:
            print("\nNothing is deployed yet. In another terminal:")
            print(f"  {hint('register NAME FOLDER', self._home)}")
            print(f"  {hint('deploy NAME:1', self._home)}")
        else:
            print("\nAsk it something:")
            print(
                f"  curl {gateway}/v1/chat/completions -H 'content-type: application/json' \\\n"
                + ("    -H 'authorization: Bearer KEY' \\\n" if keyed else "")
                + f'''    -d '{{"model": "{served}", "messages": '''
                """[{"role": "user", "content": "What is 2+2?"}]}'"""
            )
        print("Ctrl-C ends all of it.", flush=True)

    def _bring_up(self) -> str | None:
        """Wait for what is deployed; the name that a first question goes to."""
        from modelyard.api.messages import DeployRequest
        from modelyard.client import Client

        with Client.from_home(self._home) as client:
            for ref in self._deploy:
                asked = client.deploy(DeployRequest(ref=ref))
                self._wait_until_live(client, asked)
            names = []
            for view in client.deployments():
                if view.live is None and view.incoming is None:
                    print(f"{view.name:<11} {view.state.value}: {view.message}", flush=True)
                    continue
                if view.model and f"{view.model}:{view.version}" not in self._deploy:
                    self._look_at(client, view)
                names.append((not view.default, view.name))
            return min(names)[1] if names else None

    def _look_at(self, client: "Client", view: "DeploymentView") -> None:
        """A deployment from an earlier start that fails is told of; the others serve."""
        try:
            self._wait_until_live(client, view)
        except ModelyardError as error:
            if not self.stopping:
                told = f"{error.message}\nnext: {error.next_step}"
                print(f"{view.name:<11} {told}", file=sys.stderr, flush=True)

    def _wait_until_live(self, client: "Client", view: "DeploymentView") -> None:
        if sys.stdout.isatty():
            print(f"{view.name:<11} starting {view.model}:{view.version} …", flush=True)
        live = client.wait_for(view)
        print(
            f"{live.name:<11} live: {live.model}:{live.version} on {live.engine}, "
            f"{time.monotonic() - self._began:.1f} s after the start",
            flush=True,
        )

    def _wait_for(self, name: str) -> None:
        """Return when the child of that name has written that it listens."""
        record: Path = self._home.run / f"{name}.json"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not record.exists() and not self.stopping:
            if time.monotonic() > deadline:
                path = self._home.logs / f"{name}.log"
                raise LaunchFailed(
                    f"the {name} did not start within {START_TIMEOUT_S:g} s: {last_lines(path)}",
                    next_step=f"see {path}",
                )
            time.sleep(_LOOK_EVERY_S)


def _nothing() -> None:
    """Nobody is to be told yet."""


def _gateway_url(settings: Settings) -> str:
    url = _url(settings.gateway.host, settings.gateway.port)
    return url if settings.gateway.tls is None else url.replace("http:", "https:", 1)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
