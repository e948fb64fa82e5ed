"""The watch over MLflow's catalogue tells what is new, once."""

import threading

from modelyard.control.catalogue import CatalogueWatch
from modelyard.core.errors import Unavailable
from modelyard.registry.aliases import AliasMove
from modelyard.registry.mirror import Synced

MOVE = AliasMove(
    at=1.0, name="yard", alias="production", version=2, actor="external:mlflow", origin="external"
)


class Scripted:
    """Answers or fails in turn; the last one again and again."""

    def __init__(self, *answers: Synced | Exception) -> None:
        self.answers = list(answers)
        self.thorough: list[bool] = []

    def sync_catalogue(self, *, thorough: bool = False) -> Synced:
        self.thorough.append(thorough)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def told_by(registry: Scripted, looks: int) -> list[tuple[str, str, str]]:
    told: list[tuple[str, str, str]] = []
    watch = CatalogueWatch(registry, lambda *event: told.append(event))
    for _ in range(looks):
        watch.look(thorough=False)
    return told


def test_a_move_made_in_mlflow_is_an_event() -> None:
    registry = Scripted(Synced(moves=(MOVE,)), Synced())
    assert told_by(registry, 2) == [
        ("alias.moved", "yard@production", "yard@production means version 2 in MLflow; taken over")
    ]


def test_what_stays_is_told_once_and_an_absence_anew_after_it_ended() -> None:
    away = Unavailable("the MLflow at http://x: nobody answers there")
    tampered = Synced(tampering=("tampering in MLflow with yard:1",))
    registry = Scripted(away, away, tampered, tampered, away, OSError("odd"))
    assert [kind for kind, _, _ in told_by(registry, 6)] == [
        "catalogue.away",
        "catalogue.tampering",
        "catalogue.away",
    ]


def test_it_looks_again_and_again_and_thoroughly_each_tenth_time() -> None:
    seen = threading.Event()

    class Counting(Scripted):
        def sync_catalogue(self, *, thorough: bool = False) -> Synced:
            if thorough:
                seen.set()
            return super().sync_catalogue(thorough=thorough)

    registry = Counting(Synced())
    watch = CatalogueWatch(registry, lambda *_: None, interval_s=0.001)
    watch.start()
    assert seen.wait(10)
    watch.end()
    assert registry.thorough[:10] == [False] * 9 + [True]
