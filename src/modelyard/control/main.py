"""The controller process: `python -m modelyard.control.main --home H --port P`.

A composition root: it builds the parts, hands them to each other and serves. SIGTERM ends it and
leaves the replicas running; the next controller on the home adopts them.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from modelyard import __version__
from modelyard.api.alert_desk import AlertDesk
from modelyard.api.app import create_app
from modelyard.api.parts import About, ApiParts
from modelyard.control.alerting import Alerting
from modelyard.control.background import Loop, keep_on
from modelyard.control.catalogue import CatalogueWatch
from modelyard.control.feed import Feed, FeedParts
from modelyard.control.gateways import Gateways
from modelyard.control.judging import Judge
from modelyard.control.ledger import Ledger
from modelyard.control.lifecycle import LifeParts, image_of, resources_of
from modelyard.control.listening import check_loopback, listen, url_of
from modelyard.control.metering import Meter
from modelyard.control.meters import ControllerMeters
from modelyard.control.probing import Prober
from modelyard.control.reconciler import Reconciler, ReconcilerParts
from modelyard.control.runfiles import RunRecord, own_start, remove_own_record, write_record
from modelyard.control.runtime import ControllerRuntime
from modelyard.control.sampling import Forgetting, MachineWatch, RecordsKept
from modelyard.control.scraping import EngineScraper
from modelyard.control.secrets import prepare_home, read_token
from modelyard.control.smoke import SmokeTester, check_schema
from modelyard.control.snapshots import Publisher
from modelyard.control.weights import RegistryWeights
from modelyard.core.errors import Conflict, ModelyardError, StorageError
from modelyard.core.home import Home
from modelyard.core.reconcile import Rules
from modelyard.core.trust import refuse_untrusted
from modelyard.engines.catalogue import ENGINES, VOCABULARY_OF, choose_engine
from modelyard.forms.forms import Forms
from modelyard.launchers.accelerators import Accelerators, count_accelerators
from modelyard.launchers.docker import DockerLauncher
from modelyard.launchers.launcher import Launcher
from modelyard.launchers.process import ProcessLauncher
from modelyard.observe.gpus import Gpus, load_nvml
from modelyard.observe.machine import MachineProbe
from modelyard.observe.receivers import open_receivers
from modelyard.registry.keys import read_public_keys
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion
from modelyard.settings import Settings, load_settings
from modelyard.state.store import Store, open_store

log = logging.getLogger(__name__)
_CONFIRM_EVERY_S = 2.0


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 1 with one line on stderr when it can't start."""
    arguments = _parse(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for chatty in ("httpx", "alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    home = Home(arguments.home.absolute())
    try:
        check_loopback(arguments.host, "--host")
        prepare_home(home)
        settings = load_settings(home.config, {})
        trust = settings.registry.trust
        read_public_keys(trust.keys_of(home))  # a policy that can't be kept starts nothing
        with (
            _only_one(home),
            listen(arguments.host, arguments.port, "--port") as listener,
            contextlib.closing(open_store(home, settings.state.plain_url(), sole=True)) as store,
        ):
            log.info("the state is in %s", store.place)
            controller = _Controller(home, store, listener, arguments.gateway_url, settings)
            asyncio.run(controller.run())
    except ModelyardError as error:
        print(f"{error.message}; {error.next_step}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


class _Controller:
    """The parts of one controller process, on its event loop."""

    def __init__(
        self,
        home: Home,
        store: Store,
        listener: socket.socket,
        gateway_url: str,
        settings: Settings,
    ) -> None:
        self._home = home
        self._settings = settings.registry
        self._state = settings.state
        self._prices = settings.cost.prices()
        rules, webhooks = settings.alerts.in_force()
        receivers = open_receivers(webhooks, home.config.parent, os.environ)
        self._alerting = Alerting(rules, receivers, settings.alerts.every_s)
        self._store = store
        self._listener = listener
        self._gateway_url = gateway_url
        self._url = url_of(listener)
        self._started_at = own_start()
        self._epoch = store.meta.epoch()

    async def run(self) -> None:
        """Serve and reconcile until told to end."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        ledger = Ledger(self._store, time.time, changed.set)
        publisher = Publisher(self._store, ledger, self._epoch, time.time)
        gateways = Gateways(self._epoch, time.time)
        meters = ControllerMeters(ledger, gateways, publisher, self._store.deployments.all)
        gateway_token = read_token(self._home.gateway_token)
        registry = Registry(self._home, tracking_uri=self._settings.tracking_uri)
        trust = self._settings.trust
        async with (
            httpx.AsyncClient(trust_env=False) as http,
            httpx.AsyncClient(trust_env=False, verify=False) as asking,  # noqa: S501 - see there
        ):
            tester = SmokeTester(asking, gateway_token)
            judge = Judge(tester, self._store.records, self._store.scores, ledger)
            feed = Feed(
                FeedParts(
                    token=gateway_token,
                    epoch=self._epoch,
                    store=self._store,
                    ledger=ledger,
                    publisher=publisher,
                    gateways=gateways,
                    hear=judge.hear,
                    wake=changed.set,
                    count=meters.received,
                )
            )
            engines = EngineScraper(http, ledger.all, meters.version_of, VOCABULARY_OF)
            meters.add(engines.sources())
            weights = RegistryWeights(
                registry,
                Forms(registry),
                ENGINES,
                signed_by=trust.keys_of(self._home) if trust.require_signed else None,
            )
            accelerators = Accelerators()
            launchers: Mapping[str, Launcher] = {
                "process": ProcessLauncher(self._home, self._epoch, accelerators),
                "docker": DockerLauncher(self._home, self._epoch, accelerators),
            }
            life = LifeParts(
                owner=self._epoch,
                ledger=ledger,
                weights=weights,
                engines=ENGINES,
                launchers=launchers,
                prober=Prober(http),
            )
            reconciler = Reconciler(
                ReconcilerParts(
                    store=self._store,
                    ledger=ledger,
                    publisher=publisher,
                    gateways=gateways,
                    weights=weights,
                    engines=ENGINES,
                    life=life,
                    judge=judge,
                    wake=changed,
                    rules=Rules(),
                    prices=self._prices,
                )
            )
            alerts = self._alerting.watch(self._store, ledger, gateways.living, self._home.root)
            app = create_app(
                ApiParts(
                    token=read_token(self._home.admin_token),
                    about=self._about(),
                    store=self._store,
                    registry=registry,
                    check_schema=check_schema,
                    prices=self._prices,
                    accelerators=count_accelerators,
                    refuse=lambda version: self._refuse(registry, version),
                    check_launch=lambda spec: launchers[spec.launcher].check(
                        image_of(spec), resources_of(spec)
                    ),
                    choose_engine=lambda facts, wanted: choose_engine(facts, wanted).name,
                    runtime=ControllerRuntime(
                        gateways, publisher, gateway_token, reconciler, judge, loop
                    ),
                    hear_scores=judge.hear_scores,
                    alerts=AlertDesk(alerts, self._store.alerts, loop),
                    wake=lambda: _wake(loop, changed),
                    announce_keys=lambda: _call(loop, publisher.release),
                    clock=time.time,
                )
            )
            app.router.routes.extend(feed.routes())
            app.router.routes.extend(meters.routes(*self._metrics_tokens()))
            ledger.tell("controller.started", f"pid {os.getpid()}", self._url, actor="controller")
            watch = CatalogueWatch(registry, lambda *event: _tell_from_thread(loop, ledger, *event))
            watch.start()
            beside = {**self._background(ledger, reconciler), "alerts": alerts.run}
            beside |= {"metrics": meters.run, "engines' metrics": engines.run}
            await self._until_told(app, reconciler, feed, beside)
            watch.end()
            ledger.tell("controller.stopped", f"pid {os.getpid()}", actor="controller")
        ledger.close()

    def _metrics_tokens(self) -> tuple[str, str]:
        return read_token(self._home.metrics_token), read_token(self._home.admin_token)

    def _background(self, ledger: Ledger, reconciler: Reconciler) -> Mapping[str, Loop]:
        """What goes on beside the reconcile loop, by name; none of it may hold that up."""
        kept = RecordsKept(days=self._state.records_days, rows=self._state.records_rows)
        probe = MachineProbe(Gpus(load_nvml()))
        meter = Meter(self._store, ledger, self._prices, reconciler.adopted)
        return {
            "metering": meter.run,
            "looking at the machine": MachineWatch(self._store, probe, socket.gethostname()).run,
            "forgetting": Forgetting(self._store, kept).run,
        }

    async def _until_told(
        self, app: FastAPI, reconciler: Reconciler, feed: Feed, background: Mapping[str, Loop]
    ) -> None:
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=3,
            )
        )

        def end() -> None:
            feed.close()
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        reconciling = asyncio.create_task(reconciler.run())
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        alone = asyncio.create_task(_stay_alone(self._store))
        beside = [
            asyncio.create_task(keep_on(name, loop), name=name) for name, loop in background.items()
        ]
        loops = (reconciling, alone, *beside)
        record = self._home.run / "controller.json"
        write_record(record, self._record())
        try:
            await asyncio.wait({*loops, serving}, return_when=asyncio.FIRST_COMPLETED)
            end()
            await serving
            for task in loops:
                if task.done():
                    task.result()
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            remove_own_record(record)

    def _record(self) -> RunRecord:
        return RunRecord(
            pid=os.getpid(),
            url=self._url,
            started_at=self._started_at,
            version=__version__,
            epoch=self._epoch,
        )

    def _refuse(self, registry: Registry, version: ModelVersion) -> None:
        """Refuse what the trust policy lets nobody start, before anything is started."""
        trust = self._settings.trust
        if trust.require_signed:
            keys = trust.keys_of(self._home)
            refuse_untrusted(str(version), registry.trust(str(version), keys, require_signed=True))

    def _about(self) -> About:
        return About(
            url=self._url,
            gateway_url=self._gateway_url,
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            home=str(self._home.root),
        )


class _Server(uvicorn.Server):
    """Leaves the signals to the controller: uvicorn would raise them again after its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Hold the home's controller lock: two controllers would each undo what the other does."""
    with (home.run / "controller.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"a controller runs on {home.root} already",
                next_step="use it, or stop it first: modelyard status shows its pid",
            ) from error
        yield


async def _stay_alone(store: Store) -> None:
    """Look from time to time that no other controller has taken the state; Conflict if one has."""
    while True:
        await asyncio.sleep(_CONFIRM_EVERY_S)
        with contextlib.suppress(StorageError):  # the reconcile loop says that it is away
            await asyncio.to_thread(store.confirm)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
        loop.call_soon_threadsafe(function)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to wake
        loop.call_soon_threadsafe(event.set)


def _tell_from_thread(
    loop: asyncio.AbstractEventLoop, ledger: Ledger, kind: str, subject: str, message: str
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: the next start looks again
        loop.call_soon_threadsafe(ledger.tell, kind, subject, message)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="modelyard.control.main")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--gateway-url", default="")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
