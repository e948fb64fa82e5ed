"""The main job as one story, from weights to a version that is refused. `modelyard demo`."""

import importlib.resources
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelyard.api.messages import DeploymentView, DeployRequest, RolloutView
from modelyard.cli.asking import Answer, Asker
from modelyard.cli.load import Load
from modelyard.cli.output import human_bytes, human_count, short_digest
from modelyard.cli.shuffling import shuffled
from modelyard.client import Client
from modelyard.control.supervisor import last_lines
from modelyard.core.errors import LaunchFailed, ModelyardError
from modelyard.core.home import Home
from modelyard.core.rollout import OVER, Phase
from modelyard.registry.origin import Origin
from modelyard.registry.versions import Recipe

if TYPE_CHECKING:
    from modelyard.registry.registry import Registry

NAME = "yardling"
BROKEN = 3
SEED = 7
_SHOWN = 60
BAKE_S = 2.0
"""How long version 1 stands by; 60 s where nobody says otherwise."""
QUESTIONS = ("Hello, how are you?", "What is 2+2?")
START_TIMEOUT_S = 60.0
LIVE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.05
Progress = Callable[[str, int, int], None]


class Teller(Protocol):
    """Who shows the story."""

    def begin(self, step: str) -> Progress:
        """A step begins; what is returned is told how far it is."""

    def end(self, step: str, outcome: str, took_s: float) -> None:
        """It is done."""

    def question(self, text: str) -> None:
        """A question is asked."""

    def piece(self, text: str) -> None:
        """Some text of its answer came."""

    def answered(self, answer: Answer) -> None:
        """The answer is whole."""


class Asked(msgspec.Struct, frozen=True):
    """One question with its answer."""

    question: str
    answer: str
    completion_tokens: int | None
    tokens_per_s: float | None
    ttft_s: float | None
    version: str
    digest: str


class Report(msgspec.Struct, frozen=True):
    """Where everything is, and how long each step took."""

    home: str
    gateway_url: str
    controller_url: str
    version: str
    digest: str
    engine: str
    logs: str
    requests_sent: int
    """Of the users who asked while versions changed."""
    requests_lost: int
    """Failed, cut, given twice, or answered by a version that nobody should see."""
    answers_by_version: dict[str, int]
    switch_ms: float
    """From the first gateway that could route to the new version to the last one that did."""
    refused: str
    """The broken version, and why it never answered anybody."""
    steps_s: dict[str, float]
    answers: list[Asked]


class Story:
    """Tells itself once on an empty home, then holds what runs until it is closed."""

    def __init__(self, home: Home, teller: Teller) -> None:
        self._home = home
        self._teller = teller
        self._steps_s: dict[str, float] = {}
        self._service: subprocess.Popen[bytes] | None = None

    def tell(self) -> Report:
        """Go from the packaged weights to answers. Raises what went wrong; then close it."""
        from modelyard.forms.forms import Forms
        from modelyard.registry.registry import Registry

        registry = Registry(self._home)
        with importlib.resources.as_file(_weights()) as weights, self._step("register") as step:
            version = registry.register(NAME, weights, progress=step.progress).version
            step.outcome = (
                f"{NAME}:{version.version}, {len(version.manifest.files)} files, "
                f"{human_bytes(version.size_bytes)}, "
                f"{human_count(version.facts.parameters)} parameters"
            )
        with self._step("verify") as step:
            registry.verify(f"{NAME}:{version.version}", progress=step.progress)
            step.outcome = f"every byte hashed: {short_digest(version.digest)}"
        with self._step("convert") as step:
            form = Forms(registry).prepare(version, "gguf", progress=step.progress)
            step.outcome = f"safetensors → GGUF, {human_bytes(form.stat().st_size)}"
        with self._step("start") as step:
            client = self._start()
            urls = client.status()
            step.outcome = f"gateway at {urls.gateway.url}"
        with client:
            with self._step("deploy") as step:
                live = self._deploy(client, f"{NAME}:{version.version}", step.progress)
                step.outcome = (
                    f"{live.replicas_ready} replica ready on {live.engine}, tested by "
                    f"{self._tests_of(client, live)} questions"
                )
            with self._step("ask") as step, Asker(urls.gateway.url) as asker:
                answers = [self._ask(asker, question) for question in QUESTIONS]
                step.outcome = f"{len(answers)} questions through the gateway, streamed"
            with Load(urls.gateway.url, NAME, QUESTIONS) as load:
                with self._step("replace") as step:
                    switch_ms = self._replace(client, registry, load, step)
                with self._step("refuse") as step:
                    refused = self._refuse(client, registry, load, step)
        tally = load.tally
        seen = tally.by_version.get(f"{NAME}:{BROKEN}", 0)
        return Report(
            home=str(self._home.root),
            gateway_url=urls.gateway.url,
            controller_url=urls.controller.url,
            version=f"{NAME}:{version.version}",
            digest=version.digest,
            engine=live.engine,
            logs=str(self._home.logs),
            requests_sent=tally.sent,
            requests_lost=len(tally.lost) + seen,
            answers_by_version=dict(tally.by_version),
            switch_ms=switch_ms,
            refused=refused,
            steps_s=self._steps_s,
            answers=answers,
        )

    def wait(self) -> None:
        """Stay until what runs ends by itself or somebody interrupts."""
        if self._service is not None:
            self._service.wait()

    def close(self) -> None:
        """End what runs, the workers included; bounded in time."""
        service, self._service = self._service, None
        if service is None:
            return
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            service.send_signal(number)  # a second SIGTERM waits for nothing that drains
            try:
                service.wait(STOP_TIMEOUT_S)
                return
            except subprocess.TimeoutExpired:
                continue

    @contextmanager
    def _step(self, name: str) -> Iterator["_Step"]:
        began = time.monotonic()
        step = _Step(self._teller.begin(name))
        yield step
        self._steps_s[name] = time.monotonic() - began
        self._teller.end(name, step.outcome, self._steps_s[name])

    def _start(self) -> Client:
        """Run `modelyard up` in a session of its own: a Ctrl-C is ours to pass on, in order."""
        gateway_port, port = _free_ports(2)
        self._home.logs.mkdir(parents=True, exist_ok=True)
        log = self._home.logs / "up.log"
        with log.open("wb") as output:
            self._service = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    *(sys.executable, "-m", "modelyard.cli.main", "up"),
                    *("--home", str(self._home.root)),
                    *("--gateway-port", str(gateway_port), "--port", str(port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A show on this machine: nothing of it belongs on a team's MLflow server.
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "MODELYARD_REGISTRY__TRACKING_URI": "",
                },
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._service.poll() is not None:
                raise LaunchFailed(f"modelyard up ended at once: {last_lines(log)}")
            if (self._home.run / "controller.json").exists():
                client = Client.from_home(self._home)
                if _serves(client):
                    return client
                client.close()
            if time.monotonic() > deadline:
                raise LaunchFailed(
                    f"modelyard up did not start within {START_TIMEOUT_S:.0f} s: {last_lines(log)}"
                )
            time.sleep(LOOK_EVERY_S)

    def _deploy(self, client: Client, ref: str, progress: Progress) -> DeploymentView:
        plan = {"bake_s": BAKE_S}
        asked = client.deploy(DeployRequest(ref=ref, default=True, plan=plan))

        def show(view: DeploymentView) -> None:
            progress(f"{view.replicas_ready} of {view.replicas_wanted} replicas ready", 0, 0)

        return client.wait_for(asked, LIVE_TIMEOUT_S, on_change=show)

    def _tests_of(self, client: Client, live: DeploymentView) -> int:
        return 0 if live.rollout is None else len(client.rollout(live.rollout.id).smoke)

    def _replace(self, client: Client, registry: "Registry", load: Load, step: "_Step") -> float:
        """Put version 2 live while users ask; how long the switch took, in milliseconds."""
        with importlib.resources.as_file(_weights("2")) as weights:
            registry.register(NAME, weights)
        self._until_answered(load, f"{NAME}:1")
        live = self._deploy(client, f"{NAME}:2", step.progress)
        self._until_answered(load, f"{NAME}:2")
        if live.rollout is None:
            raise LaunchFailed(f"{NAME}:2 became live without a rollout")
        rollout = self._until_over(client, live.rollout.id)
        switch_ms = 1000 * _lasted_s(rollout, Phase.SWITCHING)
        step.outcome = f"{NAME}:2 live under load, switched in {switch_ms:.0f} ms"
        return switch_ms

    def _refuse(self, client: Client, registry: "Registry", load: Load, step: "_Step") -> str:
        """Try to put a broken version live; why it was refused."""
        folder = self._home.root / "broken"
        with importlib.resources.as_file(_weights("2")) as weights:
            shuffled(weights, folder, SEED)
        recipe = Recipe(kind="shuffle", tool="modelyard demo", seed=SEED)
        origin = Origin(parent=f"{NAME}:2", recipe=recipe)
        ref = str(registry.register(NAME, folder, origin=origin).version)
        try:
            self._deploy(client, ref, step.progress)
        except LaunchFailed:
            step.outcome = f"{ref}, its weights shuffled, fails its smoke tests"
        else:
            raise LaunchFailed(f"{ref} is broken, and was not refused")
        known = client.rollouts(NAME, 1)[0]
        self._until_over(client, known.id)
        self._until_answered(load, f"{NAME}:2", more=4)
        failed = next((test for test in known.smoke if not test.passed), None)
        if failed is None:
            return f"{ref}: {known.reason.splitlines()[0]}"
        said = _short(failed.answer)
        return f"{ref} by the smoke test '{failed.test}', which it answered with {said}"

    def _until_answered(self, load: Load, version: str, more: int = 1) -> None:
        """Wait until users had so many more answers of a version."""
        before = load.tally.by_version[version]
        self._until(
            lambda: load.tally.by_version[version] >= before + more,
            f"no user was answered by {version}: {', '.join(load.tally.lost[:1])}",
        )

    def _until_over(self, client: Client, rollout_id: str) -> RolloutView:
        self._until(
            lambda: client.rollout(rollout_id).phase in OVER,
            f"{rollout_id} did not come to its end",
        )
        return client.rollout(rollout_id)

    def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + LIVE_TIMEOUT_S
        while not holds():
            if time.monotonic() > deadline:
                raise LaunchFailed(otherwise)
            time.sleep(LOOK_EVERY_S)

    def _ask(self, asker: Asker, question: str) -> Asked:
        self._teller.question(question)
        answer = Answer()
        conversation = [{"role": "user", "content": question}]
        asker.ask(answer, NAME, conversation, self._teller.piece, temperature=0)
        self._teller.answered(answer)
        return Asked(
            question=question,
            answer=answer.text,
            completion_tokens=answer.completion_tokens,
            tokens_per_s=answer.tokens_per_s,
            ttft_s=answer.ttft_s,
            version=answer.version,
            digest=answer.digest,
        )


class _Step:
    """What a step is told and says."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.outcome = ""


def _weights(version: str = "1") -> Any:
    return importlib.resources.files("modelyard.demo") / "yardling" / version


def _short(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else "·" for letter in text)
    return repr(printable if len(printable) <= _SHOWN else f"{printable[:_SHOWN]}…")


def _lasted_s(rollout: RolloutView, phase: Phase) -> float:
    """How long a phase took that came once."""
    for number, entry in enumerate(rollout.history):
        if entry.phase is phase and number + 1 < len(rollout.history):
            return rollout.history[number + 1].at - entry.at
    return 0.0


def _serves(client: Client) -> bool:
    """Whether controller and gateway both answer."""
    try:
        return client.status().gateway.state == "running"
    except ModelyardError:
        return False


def _free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
