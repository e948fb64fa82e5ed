"""Guesses of what a request will use, learnt from those before it; one per model and process.

Reservations are made from them before anything is known for certain, so they lean to the high side
until there is evidence.
"""

_FIRST_BYTES_PER_TOKEN = 3.0
"""English text has about 4; other scripts, code and small vocabularies fewer."""
_WEIGHT = 0.05
_FIRST_TOKENS_PER_S = 20.0
_FIRST_S_PER_WORK = 0.05
_PROMPT_WORK = 1 / 8
"""Of a token that is read, against one that is made: prompts are read many tokens at a time."""
_MOST_S_PER_WORK = 60.0
_FEW_BYTES_PER_TOKEN = 0.25
_MANY_BYTES_PER_TOKEN = 16.0


class Estimate:
    """What is known of one model's tokens."""

    __slots__ = (
        "_answers", "_bytes_per_token", "_prompts", "_s_per_work", "_spread", "_time_spread",
        "_times", "_tokens_per_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self._prompts = self._answers = 0
        self._bytes_per_token = _FIRST_BYTES_PER_TOKEN
        self._spread = 0.0
        self._tokens_per_s = _FIRST_TOKENS_PER_S
        self._times = 0
        self._s_per_work = _FIRST_S_PER_WORK
        self._time_spread = 0.0

    def prompt_tokens(self, size_bytes: int) -> int:
        """Tokens of a prompt of so many bytes: the mean, and what it was off by lately."""
        ratio = max(self._bytes_per_token - 2 * self._spread, self._bytes_per_token / 2)
        return max(1, round(size_bytes / ratio))

    def completion_tokens(self, seconds: float) -> int:
        """Tokens that one request generated in so many seconds, where nobody counted them."""
        return max(0, round(seconds * self._tokens_per_s))

    def replica_s(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Seconds of a replica that such a request will have for itself: the mean, and what it
        was off by lately."""
        pace = self._s_per_work + 2 * self._time_spread
        return pace * _work(prompt_tokens, completion_tokens)

    def learn_time(self, prompt_tokens: int, completion_tokens: int, seconds: float) -> None:
        """A request of so many tokens had a replica for itself for so long."""
        work = _work(prompt_tokens, completion_tokens)
        if work <= 0 or seconds < 0:
            return
        seen = min(seconds / work, _MOST_S_PER_WORK)
        off = abs(seen - self._s_per_work)
        weight = _weight(self._times)
        self._times += 1
        self._s_per_work += weight * (seen - self._s_per_work)
        self._time_spread += weight * (off - self._time_spread)

    def learn_prompt(self, size_bytes: int, tokens: int) -> None:
        """An engine said how many tokens a prompt had."""
        if tokens <= 0 or size_bytes <= 0:
            return
        seen = min(max(size_bytes / tokens, _FEW_BYTES_PER_TOKEN), _MANY_BYTES_PER_TOKEN)
        off = abs(seen - self._bytes_per_token)
        weight = _weight(self._prompts)
        self._prompts += 1
        self._bytes_per_token += weight * (seen - self._bytes_per_token)
        self._spread += weight * (off - self._spread)

    def learn_speed(self, tokens: int, seconds: float) -> None:
        """An answer of so many tokens took so long."""
        if tokens > 0 and seconds > 0:
            self._tokens_per_s += _weight(self._answers) * (tokens / seconds - self._tokens_per_s)
            self._answers += 1


def _work(prompt_tokens: int, completion_tokens: int) -> float:
    return max(0, prompt_tokens) * _PROMPT_WORK + max(0, completion_tokens)


def _weight(seen: int) -> float:
    """Of the next observation: the first ones count as much as those before them together."""
    return max(_WEIGHT, 1 / (seen + 2))
