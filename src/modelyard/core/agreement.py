"""How far two answers to the same request agree."""


def agreement(one: str, other: str) -> float:
    """Length of their common beginning, as a share of the longer one, 0 to 1.

    1 if and only if they are equal. Answers that were drawn at random (a temperature above 0) part
    early, whoever gives them: it tells something of greedy ones.
    """
    longer = max(len(one), len(other))
    return _common(one, other) / longer if longer else 1.0


def _common(one: str, other: str) -> int:
    """Length of the common beginning, found by halving: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
