"""Limits of a key hold exactly, and what is refused costs nothing and nobody (G13)."""

from modelyard.conformance.answers import Answer, Stream, whole_stream
from modelyard.conformance.bench import COMPLETIONS, MINUTE_S, Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Look, expect
from modelyard.conformance.client import Cut
from modelyard.conformance.refusals import expect_refusal
from modelyard.conformance.target import LimitKind, Need

EXTRA = 5
"""Requests beyond a limit."""
_DEADLINE_S = 90.0
"""A check may have to wait until a key is fresh."""
_FREED_WITHIN_S = 5.0


async def _requests_at_once(bench: Bench) -> str:
    key, limit = await bench.limited_key("requests_per_min")
    questions = [bench.ask("tokens=2") for _ in range(limit + EXTRA)]
    answers = await together(bench.whole(question, key=key) for question in questions)
    admitted = _admitted(answers)
    arrived = await _arrived(bench, questions)
    expect(
        admitted == limit,
        f"{limit} of {len(questions)} at once should be let in, {admitted} were",
    )
    expect(arrived == limit, f"{limit} should reach the engines, {arrived} did")
    return f"{admitted} of {len(questions)} at once were let in, {EXTRA} got 429"


async def _refusal_form(bench: Bench) -> str:
    key, limit = await bench.limited_key("requests_per_min")
    for _ in range(limit):
        await bench.good(bench.ask("tokens=1"), key=key)
    seen = []
    for stream in (False, True):
        question = bench.ask("tokens=1").but(stream=stream)
        answer = await bench.whole(question, key=key)
        expect_refusal(answer, {429}, f"request {limit + 1} of a minute")
        wait = answer.headers.get("retry-after", "")
        expect(
            wait.isdigit() and 1 <= int(wait) <= MINUTE_S,
            f"Retry-After of 1 to {MINUTE_S:g} seconds was expected, came: {wait or 'none'!r}",
        )
        expect(not await bench.seen(question), "a refused request reached an engine")
        seen.append(wait)
    return f"429 in OpenAI's form with Retry-After {seen[0]}, streamed or not, no engine asked"


async def _others_untouched(bench: Bench) -> str:
    key, limit = await bench.limited_key("requests_per_min")
    await together(bench.whole(bench.ask("tokens=1"), key=key) for _ in range(limit))
    answer = await bench.whole(bench.ask("tokens=1"), key=key)
    expect(answer.status == 429, f"429 was expected of the exhausted key, came: {answer.brief}")
    await together(bench.good(bench.ask("tokens=1")) for _ in range(limit + 1))
    return f"an exhausted key got 429, {limit + 1} requests of another one were answered"


async def _tokens_at_once(bench: Bench) -> str:
    key, limit = await bench.limited_key("tokens_per_min")
    size = max(1, limit // 5)
    questions = [bench.ask(max_tokens=size) for _ in range(10)]
    answers = await together(bench.whole(question, key=key) for question in questions)
    admitted = _admitted(answers)
    used = sum(map(_tokens, answers))
    expect(admitted > 0, f"a request of {size} tokens under {limit} should be let in, none was")
    expect(
        used <= limit,
        f"at most {limit} tokens should be used in a minute, "
        f"{admitted} of 10 at once were let in and used {used}",
    )
    arrived = await _arrived(bench, questions)
    expect(arrived == admitted, f"{admitted} were let in, {arrived} reached the engines")
    return f"{admitted} of 10 at once were let in and used {used} of {limit} tokens"


async def _tokens_settled(bench: Bench) -> str:
    key, limit = await bench.limited_key("tokens_per_min")
    wanted = limit * 6 // 10
    for turn in ("first", "second"):
        answer = await bench.whole(bench.ask("tokens=2", max_tokens=wanted), key=key)
        expect(
            answer.status == 200,
            f"the {turn} request that may use {wanted} of {limit} tokens and uses few "
            f"should be let in, came: {answer.brief}",
        )
    return f"two requests that might have used {wanted} of {limit} tokens each, and did not"


async def _tokens_of_streams(bench: Bench) -> str:
    key, limit = await bench.limited_key("tokens_per_min")
    used = 0
    size = max(1, limit // 4)
    for _ in range(8):
        question = bench.ask(max_tokens=size)
        stream = await (await bench.stream(question, key=key)).rest()
        if stream.status == 429:
            break
        used += whole_stream(stream, question.prompt).tokens
    else:
        raise Broken(f"429 was expected under {limit} tokens, 8 streams made {used}")
    expect(used <= limit, f"at most {limit} tokens should be made, streams made {used}")
    return f"streams that did not ask for usage made {used} of {limit} tokens, then came 429"


async def _tokens_of_many(bench: Bench) -> str:
    """What multiplies an answer, or has no bound, must be held before it is let in."""
    key, limit = await bench.limited_key("tokens_per_min")
    many = bench.ask(path=COMPLETIONS)
    prompts = [f"{many.tag} {number}" for number in range(20)]
    cases = {
        "20 prompts in one request": many.but(prompt=prompts, max_tokens=limit // 10),
        "20 choices": bench.ask(n=20, max_tokens=limit // 10),
        "an answer without a bound": bench.ask(f"tokens={2 * limit}"),
        "a prompt twice as long as the limit": bench.ask(text="word" * 2 * limit, max_tokens=1),
        "two bounds, of which one is small": bench.ask(
            max_completion_tokens=2 * limit, max_tokens=1
        ),
    }
    used = 0
    for what, question in cases.items():
        answer = await bench.whole(question, key=key)
        if answer.status != 200:
            expect_refusal(answer, {400, 429}, what)
        used += _tokens(answer)
        expect(used <= limit, f"{what}: at most {limit} tokens should be used, {used} were")
    return f"{len(cases)} kinds of requests for more than {limit} tokens used {used}"


class _Held:
    """Streams that take up all places of a key, and questions beyond them."""

    def __init__(self, bench: Bench, key: str, limit: int) -> None:
        self.bench = bench
        self.key = key
        self.limit = limit
        self.streams: list[Stream] = []

    async def fill(self, script: str = "tokens=10000") -> None:
        """Begin as many as there are places."""
        self.streams = await together(
            self.bench.stream(self.bench.ask(script), key=self.key) for _ in range(self.limit)
        )
        for stream in self.streams:
            expect(stream.status == 200, f"a free place was expected, came: {stream.summary}")
            await stream.until_tokens(1)

    async def expect_full(self) -> None:
        """Raise Broken when one more gets a place."""
        answer = await self.bench.whole(self.bench.ask("tokens=1"), key=self.key)
        expect_refusal(answer, {429}, f"request {self.limit + 1} at once")

    async def until_free(self, after: str) -> None:
        """Wait until one more gets a place."""

        async def look() -> Answer:
            return await self.bench.whole(self.bench.ask("tokens=1"), key=self.key)

        await until(
            look,
            lambda answer: answer.status == 200,
            within_s=_FREED_WITHIN_S,
            otherwise=lambda answer: f"a free place was expected {after}, came: {answer.brief}",
        )


async def _concurrent_at_once(bench: Bench) -> str:
    key, limit = await bench.limited_key("concurrent_requests")
    held = _Held(bench, key, limit)
    await held.fill()
    questions = [bench.ask("tokens=1") for _ in range(EXTRA)]
    over = [await bench.post(question, key=key) for question in questions]
    answers = await together(bench.answer(connection) for connection in over)
    for answer in answers:
        expect_refusal(answer, {429}, f"a request beyond {limit} at once")
    arrived = await _arrived(bench, questions)
    expect(arrived == 0, f"{limit} at once should reach the engines, {limit + arrived} did")
    return f"{limit} were served at once, {EXTRA} more got 429 and reached no engine"


async def _freed_by_end(bench: Bench) -> str:
    key, limit = await bench.limited_key("concurrent_requests")
    held = _Held(bench, key, limit)
    await held.fill("tokens=40")
    for stream in held.streams:
        await stream.rest()
    await held.until_free("after an end")
    for _ in range(3 * limit):
        await bench.good(bench.ask("tokens=1"), key=key)
    await held.fill()
    await held.expect_full()
    return f"all {limit} places were free again after their requests' ends, and no more than those"


async def _freed_by_leaving(bench: Bench) -> str:
    key, limit = await bench.limited_key("concurrent_requests")
    held = _Held(bench, key, limit)
    await held.fill()
    await held.expect_full()
    held.streams[0].leave()
    await held.until_free("after a client's leaving")
    return "a place was free again after its client's leaving"


async def _freed_by_error(bench: Bench) -> str:
    key, limit = await bench.limited_key("concurrent_requests")
    held = _Held(bench, key, limit)
    for script in ("status=400", "truncate_after=2"):
        for _ in range(limit):
            answer = await _whole_or_cut(bench, bench.ask(script), key)
            expect(
                answer is None or answer.status not in (200, 429),
                f"an error was expected of {script}, came: {answer.brief if answer else ''}",
            )
    for _ in range(limit):
        stream = await bench.stream(bench.ask("truncate_after=2"), key=key)
        expect(stream.status != 429, f"a free place was expected, came: {stream.summary}")
        await stream.rest()
    await held.fill()
    await held.expect_full()
    return f"after {3 * limit} failed requests {limit} at once were let in, and no more"


async def _whole_or_cut(bench: Bench, question: Question, key: str) -> Answer | None:
    try:
        return await bench.whole(question, key=key)
    except Cut:
        return None


def _admitted(answers: list[Answer]) -> int:
    """How many were answered; raises Broken where another was not refused."""
    for answer in answers:
        if answer.status != 200:
            expect_refusal(answer, {429}, "a request beyond the limit")
    return sum(answer.status == 200 for answer in answers)


def _tokens(answer: Answer) -> int:
    """What it used; raises Broken where it does not say."""
    if answer.status != 200:
        return 0
    usage = answer.read().usage
    if usage is None:
        raise Broken(f"usage was expected, came: {answer.brief}")
    return usage.prompt_tokens + usage.completion_tokens


async def _arrived(bench: Bench, questions: list[Question]) -> int:
    return sum([len(await bench.seen(question)) for question in questions])


def _check(name: str, need: Need, look: Look, meaning: str) -> Check:
    return Check(
        name=f"limits/{name}", meaning=meaning, look=look, needs=(need,), deadline_s=_DEADLINE_S
    )


_REQUESTS: LimitKind = "requests_per_min"
_TOKENS: LimitKind = "tokens_per_min"
_CONCURRENT: LimitKind = "concurrent_requests"
CHECKS: tuple[Check, ...] = (
    _check(
        "requests-at-once",
        _REQUESTS,
        _requests_at_once,
        "of more requests at once than a minute may have, exactly those are let in",
    ),
    _check(
        "refusal-form",
        _REQUESTS,
        _refusal_form,
        "a refusal is a 429 with Retry-After in OpenAI's form, and no engine is asked",
    ),
    _check(
        "others-untouched",
        _REQUESTS,
        _others_untouched,
        "a key that is used up takes nothing from another one",
    ),
    _check(
        "tokens-at-once",
        _TOKENS,
        _tokens_at_once,
        "requests at once never use more tokens than a minute may have",
    ),
    _check(
        "tokens-settled",
        _TOKENS,
        _tokens_settled,
        "what a request might have used and did not is free again after its end",
    ),
    _check(
        "tokens-of-many",
        _TOKENS,
        _tokens_of_many,
        "many prompts, many choices and answers without a bound never use more than the limit",
    ),
    _check(
        "tokens-of-streams",
        _TOKENS,
        _tokens_of_streams,
        "streams count, whether or not their client asked for usage",
    ),
    _check(
        "concurrent-at-once",
        _CONCURRENT,
        _concurrent_at_once,
        "no more than the limit are served at once, the rest get 429 at once",
    ),
    _check(
        "freed-by-end",
        _CONCURRENT,
        _freed_by_end,
        "a place is free again after its request's end, and once only",
    ),
    _check(
        "freed-by-leaving",
        _CONCURRENT,
        _freed_by_leaving,
        "a place is free again after its client's leaving",
    ),
    _check(
        "freed-by-error",
        _CONCURRENT,
        _freed_by_error,
        "places are free again after errors, and once only",
    ),
)
