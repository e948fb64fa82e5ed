"""One frame of `modelyard top`, as lines that fit into a terminal."""

import time
from collections.abc import Sequence
from typing import Any

from modelyard.api.trend_messages import Live, LiveModel, MachineView
from modelyard.cli import drawing
from modelyard.cli.output import age, human_bytes

_GAUGE = 10
_MANY = 1000
"""Records wait for a moment anyway."""
_NARROWEST = 40
_STATES = {"live": "green", "moving": "cyan", "starting": "cyan", "degraded": "yellow"}


def frame(live: Live, trouble: str, width: int, height: int | None) -> list[Any]:
    """Rich texts, each of at most `width` columns; at most `height` of them, None for all.

    When they don't fit, deployments are left out and counted: those with the least traffic.
    """
    width = max(width, _NARROWEST)
    head = [_head(live, trouble, width, ends="" if height is None else "q ends")]
    alerts, rollouts = _alerts(live, width), _rollouts(live, width)
    machine = _machines(live.machines, width)
    room = None
    if height is not None:
        others = [*alerts, *rollouts, *machine]
        # One for the table's head, one for those left out.
        room = max(height - len(head) - len(others) - 4, 1)
    lines = [*head, _text(""), *_models(live, width, room), *alerts, *rollouts, *machine]
    if height is None or len(lines) <= height:
        return lines
    return [*lines[: height - 1], _text("…", "dim")]


def _head(live: Live, trouble: str, width: int, ends: str) -> Any:
    clock = time.strftime("%H:%M:%S", time.localtime(live.at))
    gateways = f"{live.gateways} gateway{'' if live.gateways == 1 else 's'}"
    waiting = f", {live.records_waiting} records waiting" if live.records_waiting > _MANY else ""
    told = f"modelyard  {clock}  {gateways}{waiting}  the last {live.window_s:.0f} s"
    if trouble:
        return _text(f"modelyard  {clock}  {trouble}"[:width], "bold red")
    if ends and width >= len(told) + 10:
        told = f"{told}{ends:>{width - len(told)}}"
    return _text(told[:width], "bold" if live.gateways else "bold yellow")


def _models(live: Live, width: int, room: int | None) -> list[Any]:
    if not live.models:
        return [_text("nothing is deployed")]
    shown = list(live.models)
    if room is not None and len(shown) > room:
        shown.sort(key=lambda each: (-each.figures.request_count, each.name))
        shown = shown[:room]
    rest = len(live.models) - len(shown)
    fixed = 58
    name_width = max(min(max(len(each.name) for each in shown), width - fixed - 1), 10)
    lines = [
        _text(
            f"{'DEPLOYMENT':<{name_width}} {'VERSION':>7} {'REPLICAS':<8} {'BUSY':>4} {'REQ/S':>6} "
            f"{'ERR':>5} {'TTFT p50':>8} {'p95':>7} {'TOK/S':>6}"[:width],
            "bold",
        )
    ]
    lines += [_model(each, name_width, width) for each in shown]
    if rest:
        lines.append(_text(f"… and {rest} more", "dim"))
    elsewhere = live.elsewhere
    if elsewhere.request_count:
        lines.append(
            _text(
                f"to no deployment: {drawing.amount(elsewhere.request_rate)} requests/s, "
                f"{elsewhere.rejected_count} of {elsewhere.request_count} rejected"[:width],
                "dim",
            )
        )
    return lines


def _model(each: LiveModel, name_width: int, width: int) -> Any:
    of = each.figures
    name = each.name if len(each.name) <= name_width else f"{each.name[: name_width - 1]}…"
    text = _text(f"{name:<{name_width}} ", "bold")
    text.append(f"{each.version or '-':>7} ")
    text.append(f"{_replicas(each):<8} ", _STATES.get(each.state.value, "red"))
    text.append(f"{each.in_flight:>4} {drawing.amount(of.request_rate):>6} ")
    text.append(f"{drawing.share(of.error_rate):>5} ", "red" if of.failed_count else None)
    text.append(
        f"{_short(of.time_to_first_token.p50_s):>8} {_short(of.time_to_first_token.p95_s):>7} "
        f"{drawing.amount(of.token_rate):>6}"
    )
    text.truncate(width)
    return text


def _replicas(each: LiveModel) -> str:
    """`2 ready`, `1/3 ready`, or the deployment's state where none is there."""
    total = sum(each.replicas.values())
    ready = each.replicas.get("ready", 0)
    if not total:
        return each.state.value
    return f"{ready} ready" if ready == total else f"{ready}/{total} rdy"


def _short(seconds: float | None) -> str:
    return drawing.seconds(seconds).replace(" ", "")


def _alerts(live: Live, width: int) -> list[Any]:
    if not live.alerts:
        return []
    lines = [_text(""), _text("ALERTS", "bold red")]
    for alert in live.alerts:
        since = age(max(live.at - alert.since, 0))
        line = f"{alert.severity} {alert.rule} {alert.subject}, {since}: {alert.told}"
        lines.append(_text(_one_line(line, width), "red"))
    return lines


def _rollouts(live: Live, width: int) -> list[Any]:
    lines = []
    for each in live.models:
        rollout = each.rollout
        if rollout is not None:
            paused = ", paused" if rollout.paused else ""
            line = (
                f"{each.name} → {rollout.version} {rollout.strategy}, {rollout.phase.value}{paused}"
            )
            told = rollout.reason or rollout.waits_for
            lines.append(_text(_one_line(f"{line}: {told}" if told else line, width), "cyan"))
        elif each.message:
            lines.append(_text(_one_line(f"{each.name}: {each.message}", width), "yellow"))
    return [_text(""), _text("ROLLOUTS", "bold"), *lines] if lines else []


def _machines(machines: Sequence[MachineView], width: int) -> list[Any]:
    lines = []
    for machine in machines:
        memory = (machine.memory_bytes.average or 0.0) / max(machine.memory_total_bytes, 1)
        cpu = machine.cpu_share.average
        line = (
            f"{_one_line(machine.host, 20)}  "
            f"cpu {drawing.gauge(cpu or 0.0, _GAUGE)} {drawing.share(cpu)}  "
            f"memory {drawing.gauge(memory, _GAUGE)} {drawing.share(memory)} of "
            f"{human_bytes(machine.memory_total_bytes)}"
        )
        lines.append(_text(line[:width]))
        for gpu in machine.gpus:
            used = (gpu.memory_bytes.average or 0.0) / max(gpu.memory_total_bytes, 1)
            busy = gpu.busy_share.average or 0.0
            line = (
                f"GPU {gpu.index}  {drawing.gauge(busy, _GAUGE)} {drawing.share(busy)}  "
                f"memory {drawing.gauge(used, _GAUGE)} {drawing.share(used)} of "
                f"{human_bytes(gpu.memory_total_bytes)}"
            )
            if gpu.power_w.average is not None and gpu.temperature_c.average is not None:
                line += f"  {gpu.power_w.average:.0f} W {gpu.temperature_c.average:.0f} °C"
            lines.append(_text(line[:width]))
    return [_text(""), *lines] if lines else []


def _one_line(text: str, width: int) -> str:
    """Without what would move the cursor or colour the screen: some of it is workers' words."""
    flat = " ".join(text.split())
    flat = "".join(each if each.isprintable() else "\ufffd" for each in flat)
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def _text(content: str, style: str | None = None) -> Any:
    from rich.text import Text

    return Text(content, style=style or "", no_wrap=True, overflow="ellipsis")
