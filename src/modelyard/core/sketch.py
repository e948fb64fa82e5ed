"""Distributions in little space: sparse buckets whose borders grow by a constant factor.

The sketch of Masson, Rim and Lee (DDSketch, VLDB 2019, doi:10.14778/3352063.3352135): a value of
bucket i lies in (g^(i-1), g^i], and 2g^i/(g+1) is within `ACCURACY` of every value in it. Merging
adds the counts, so that the quantiles of the whole are those of its parts' values (promise O2).
"""

import math
from collections import Counter
from collections.abc import Iterable

ACCURACY = 0.02
"""The most that a quantile is off, as a share of the value."""
SMALLEST, LARGEST = 1e-6, 1e7
"""What is beyond is counted as these; smaller than the smallest is nothing that we measure."""
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
_FIRST = math.ceil(math.log(SMALLEST) / _LOG_GAMMA)
_LAST = math.ceil(math.log(LARGEST) / _LOG_GAMMA)
_LONGEST_BITS = 56


class Sketch:
    """A distribution of values of at least 0; NaN is refused."""

    __slots__ = ("_counts",)

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._counts: Counter[int] = Counter()
        for value in values:
            self.add(value)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value; ValueError for one below 0, or not a number."""
        if not value >= 0:
            raise ValueError(f"{value!r} is no quantity")
        bounded = min(max(value, SMALLEST), LARGEST)
        self._counts[math.ceil(math.log(bounded) / _LOG_GAMMA - 1e-9) - _FIRST] += times

    def merge(self, other: "Sketch") -> None:
        """Count all that another one has counted."""
        self._counts.update(other._counts)

    @property
    def count(self) -> int:
        """Values counted."""
        return self._counts.total()

    def quantile(self, share: float) -> float | None:
        """The value that this share of the values (0 to 1) is not above; None without values."""
        rank = max(0, math.ceil(share * self.count - 1e-6) - 1)
        for index in sorted(self._counts):
            rank -= self._counts[index]
            if rank < 0:
                return 2 * math.exp((index + _FIRST) * _LOG_GAMMA) / (_GAMMA + 1)
        return None

    def above(self, value: float) -> int:
        """How many values are above this one, to the sketch's accuracy."""
        border = Sketch((value,))
        own = next(iter(border._counts))
        return sum(count for index, count in self._counts.items() if index > own)

    def encode(self) -> bytes:
        """Compact bytes: for each bucket the gap to the one before and its count, as LEB128."""
        found, before = bytearray(), -1
        for index in sorted(self._counts):
            for number in (index - before - 1, self._counts[index]):
                while number > 0x7F:
                    found.append(number & 0x7F | 0x80)
                    number >>= 7
                found.append(number)
            before = index
        return bytes(found)

    def feed(self, encoded: bytes) -> None:
        """Count all that `encode` told; ValueError when these are no such bytes."""
        counts, index, number, shift, gap = self._counts, -1, 0, 0, -1
        for byte in encoded:
            if byte > 0x7F:
                number |= (byte & 0x7F) << shift
                shift += 7
                if shift > _LONGEST_BITS:
                    raise ValueError("the bytes of a distribution hold a number too large")
                continue
            number |= byte << shift
            if gap < 0:
                gap = number
            else:
                index += gap + 1
                counts[index] += number
                gap = -1
            number = shift = 0
        if shift or gap >= 0 or index > _LAST - _FIRST:
            raise ValueError("these are no bytes of a distribution")

    @classmethod
    def decode(cls, encoded: bytes) -> "Sketch":
        """The sketch that `encode` told."""
        made = cls()
        made.feed(encoded)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]
