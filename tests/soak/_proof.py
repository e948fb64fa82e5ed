"""What every long proof takes: a seed, and how often it repeats."""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple


class Proof(NamedTuple):
    """How one proof is to run."""

    count: int
    seed: int
    random: random.Random


def parse(argv: Sequence[str], what: str, *, count: int) -> Proof:
    """Read `--count`, `--share` (of the full count) and `--seed`; say the seed, to repeat a run."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--count", type=int, default=count, help=f"repetitions ({count})")
    parser.add_argument("--share", type=float, help="share of the full count, 0 to 1")
    parser.add_argument("--seed", type=int, help="default: from the clock")
    chosen = parser.parse_args(argv)
    repetitions = chosen.count if chosen.share is None else max(1, round(count * chosen.share))
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    say(f"{what}: {repetitions} repetitions, seed {seed}")
    return Proof(repetitions, seed, random.Random(seed))


def say(line: str) -> None:
    """Tell on stderr how far it is."""
    sys.stderr.write(f"{line}\n")
