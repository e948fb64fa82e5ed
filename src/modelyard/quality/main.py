"""The fake judge as a process: `python -m modelyard.quality.main --home H --mean sha256:ab=0.9`.

A composition root. It asks the controller what is to be judged, scores it and posts that, as a
judge of somebody else would; it goes on until SIGTERM or Ctrl-C.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from modelyard.api.messages_scores import ScoreWish
from modelyard.client import Client
from modelyard.core.errors import ModelyardError
from modelyard.core.home import Home
from modelyard.quality.fake import FakeJudge

_AT_ONCE = 500


def main(argv: list[str] | None = None) -> int:
    """Judge until told to end; 1 with one line on stderr when nothing runs on the home."""
    parser = argparse.ArgumentParser(prog="modelyard.quality.main")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--mean",
        metavar="DIGEST=MEAN",
        type=_mean,
        action="append",
        default=[],
        help="mean score, 0 to 1, of the version whose digest begins so; may be repeated",
    )
    parser.add_argument("--abstains", type=_share, default=0.0, help="share it does not score")
    parser.add_argument("--name", default=FakeJudge.name, help="of the judge")
    parser.add_argument("--every-s", type=float, default=0.5, help="seconds between two looks")
    chosen = parser.parse_args(argv)
    judge = FakeJudge(means=dict(chosen.mean), abstains=chosen.abstains, name=chosen.name)
    told_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_end.set())
    try:
        with Client.from_home(Home(chosen.home.absolute())) as client:
            while not told_to_end.is_set():
                _look(client, judge)
                told_to_end.wait(chosen.every_s)
    except ModelyardError as error:
        print(f"{error.message}; {error.next_step}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _look(client: Client, judge: FakeJudge) -> None:
    """Judge what is due, all of it."""
    while due := client.due(judge.name, limit=_AT_ONCE):
        said = (judge.score(each.request_id, each.digest) for each in due)
        client.judge(
            [
                ScoreWish(
                    request_id=each.request_id,
                    judge=each.judge,
                    score=each.score,
                    reason=each.reason,
                )
                for each in said
            ]
        )


def _mean(text: str) -> tuple[str, float]:
    digest, _, mean = text.rpartition("=")
    if not digest:
        raise argparse.ArgumentTypeError(f"{text!r} is not DIGEST=MEAN")
    return digest, _share(mean)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
