"""Traffic over time: a model's hours summed up, or stretch by stretch."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from modelyard.api.figures import figures, machine_view, together, workers_view
from modelyard.api.parts import ApiParts
from modelyard.api.trend_messages import Point, Summary, Trends, VersionFigures
from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.core.machines import worker_key
from modelyard.core.rollups import KEPT_S, Span, Step, Sums, spans

LONGEST_H = 24 * 366 * 10
"""What can be asked for at once."""
MOST_POINTS = 3000
_HOUR_S = 3600.0
_NAMED_AT_MOST = 20
Hours = Annotated[float, Query(gt=0, le=LONGEST_H)]


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    @routes.get("/summary")
    def summary(model: str, hours: Hours = 24.0) -> Summary:
        _see_that_it_is_known(parts, model)
        now = parts.clock()
        asked = spans(now - hours * _HOUR_S, now, now)
        series = parts.store.trends.totals(asked, model=model)
        machines = parts.store.machines.total(asked)
        since, until = asked[0].since, min(float(asked[-1].until), now)
        return Summary(
            model=model,
            hours=hours,
            since=since,
            until=until,
            **dict(figures(together(series.values()), until - since)),
            workers=workers_view(machines, model, whole_model=True),
            versions=tuple(
                VersionFigures(
                    version=each.version,
                    digest=each.digest,
                    slot=each.slot,
                    workers=workers_view(machines, worker_key(model, each.version, each.slot)),
                    **dict(figures(sums, until - since)),
                )
                for each, sums in sorted(series.items())
            ),
            machines=tuple(machine_view(host, sums) for host, sums in sorted(machines.items())),
        )

    @routes.get("/trends")
    def trends(
        model: str, hours: Hours = 24.0, step: Annotated[int | None, Query(ge=60)] = None
    ) -> Trends:
        length_s = _length_s(hours, step)
        _see_that_it_is_known(parts, model)
        now = parts.clock()
        begin = int((now - hours * _HOUR_S) // length_s) * length_s
        found = parts.store.trends.points(_steps_for(begin, now, length_s), length_s, model=model)
        return Trends(
            model=model,
            hours=hours,
            step_s=length_s,
            points=tuple(
                _point(at, length_s, now, found.get(at) or Sums())
                for at in range(begin, int(now) + 1, length_s)
            ),
        )

    return routes


def _length_s(hours: float, asked: int | None) -> int:
    """Seconds of a point; refuses what makes too many, or what is not kept as finely."""
    if asked is None:
        fine = Step.MINUTE if hours <= 6 else Step.QUARTER if hours <= 24 * 14 else Step.DAY
        return int(fine)
    base = _base_of(asked)
    kept_s = KEPT_S[base]
    if asked % Step.MINUTE or (asked > Step.DAY and asked % Step.DAY):
        raise InvalidRequest(
            f"step={asked} is no whole number of minutes, or of days where it is over one",
            next_step="ask for 60, 900 or 86400, or a multiple",
            param="step",
        )
    if kept_s is not None and hours * _HOUR_S > kept_s:
        raise InvalidRequest(
            f"steps of {asked} s need what is kept for {kept_s / _HOUR_S:g} hours, "
            f"and {hours:g} were asked for",
            next_step="ask for a longer step, or fewer hours",
            param="step",
        )
    if hours * _HOUR_S / asked > MOST_POINTS:
        raise InvalidRequest(
            f"that would be {hours * _HOUR_S / asked:.0f} points; {MOST_POINTS} are the most",
            next_step="ask for a longer step, or fewer hours",
            param="step",
        )
    return asked


def _base_of(length_s: int) -> Step:
    """The longest step that such a stretch is made of."""
    return next(step for step in reversed(Step) if length_s % step == 0 or step is Step.MINUTE)


def _steps_for(begin: int, now: float, length_s: int) -> Sequence[Span]:
    base = _base_of(length_s)
    until = -base.begin(-now) or base
    # What is not over yet is there at every length.
    return (Span(base, begin, max(until, begin + base)),)


def _point(at: int, length_s: int, now: float, sums: Sums) -> Point:
    # A minute's requests within its first second are no rate to go by.
    passed_s = min(max(now - at, 1.0), float(length_s))
    return Point(at=at, length_s=passed_s, **dict(figures(sums, passed_s)))


def _see_that_it_is_known(parts: ApiParts, model: str) -> None:
    if parts.store.deployments.get(model) is not None or parts.store.trends.knows(model):
        return
    known = {each.name for each in parts.store.deployments.all()}
    known |= set(parts.store.trends.models()) - {""}
    named = ", ".join(sorted(known)[:_NAMED_AT_MOST])
    raise NotFound(
        f"nobody has asked for a model {model[:100]!r} yet; known: {named or 'none'}",
        next_step="modelyard status shows what is deployed",
        param="model",
    )
