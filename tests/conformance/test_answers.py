"""What a stream amounts to: whole, broken, told, and what is wrong with it."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from modelyard.conformance.answers import Answer, Stream, broken_stream, checked, whole_stream
from modelyard.conformance.check import Broken
from modelyard.conformance.client import Connection, Reply
from modelyard.engines.fake_server.answers import answer_seed, answer_text

PROMPT = "tell me"
TEXT = answer_text(answer_seed(PROMPT), 3)
DONE = b"data: [DONE]\n\n"


def event(content: str = "", *, finish: str | None = None, index: int = 0, **more: object) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return f"data: {json.dumps({'model': 'm', 'choices': [choice], **more})}\n\n".encode()


WORDS = [event(word) for word in TEXT.replace(" ", "| ").split("|")]
END = event(finish="stop")


def reply(
    body: bytes, *, status: int = 200, kind: str = "text/event-stream", whole: bool = True
) -> Reply:
    reader = asyncio.StreamReader()
    reader.feed_data(body)
    reader.feed_eof()
    headers = {"content-type": kind, "content-length": str(len(body) + (0 if whole else 10))}
    return Reply(reader, status, headers, bodiless=False)


async def stream(events: Sequence[bytes], **how: object) -> Stream:
    """A stream that has ended, however it did."""
    made = Stream(reply(b"".join(events), **how), Connection(None, None))  # type: ignore[arg-type]
    return await made.rest()


async def test_a_whole_stream_is_whole() -> None:
    found = await stream([b": hello\n\n", *WORDS, END, DONE])

    assert whole_stream(found, PROMPT).tokens == 3
    assert (found.tokens, found.finish, found.done) == (3, {0: "stop"}, 1)
    assert found.models == {"m"}
    with pytest.raises(Broken, match="must not look whole"):
        broken_stream(found)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([*WORDS, END], "no \\[DONE\\]"),
        ([*WORDS, END, DONE, DONE], "2 \\[DONE\\]"),
        ([*WORDS, END, DONE, event("x")], "events came after|a whole answer"),
        ([WORDS[0], WORDS[2], END, DONE], "1 lost"),
        ([WORDS[0], WORDS[1], WORDS[1], WORDS[2], END, DONE], "repeated"),
        ([*WORDS[:2], END, DONE], "the end is missing"),
        ([*WORDS, END, b'data: {"error":{"message":"no","type":"x"}}\n\n', DONE], "error 'no'"),
        ([*WORDS, b"data: {half\n\n", END, DONE], "not an event"),
    ],
)
async def test_what_is_wrong_with_a_stream_is_said(events: list[bytes], why: str) -> None:
    with pytest.raises(Broken, match=why):
        whole_stream(await stream(events), PROMPT)


async def test_another_prompts_answer_is_not_taken_for_ours() -> None:
    with pytest.raises(Broken, match="a whole answer was expected"):
        whole_stream(await stream([*WORDS, END, DONE]), "another prompt")


async def test_a_cut_stream_is_broken() -> None:
    found = await stream(WORDS[:2], whole=False)

    assert broken_stream(found) == "the connection was cut"
    assert "10 bytes short" in found.summary
    assert found.tokens == 2


async def test_an_error_event_makes_a_stream_broken() -> None:
    found = await stream([*WORDS[:2], b'data: {"error":{"message":"gone","type":"x"}}\n\n'])

    assert broken_stream(found) == "an error event came"
    assert found.error == "gone"


async def test_a_stream_that_just_ends_is_neither() -> None:
    found = await stream(WORDS[:2])

    with pytest.raises(Broken, match="must not look whole"):
        broken_stream(found)


async def test_a_status_is_an_end_too() -> None:
    found = await stream([b'{"error":{}}'], status=502, kind="application/json")

    assert not found.is_stream
    assert broken_stream(found) == "status 502"


async def test_events_may_be_awaited() -> None:
    made = Stream(reply(b"".join([*WORDS, END, DONE])), Connection(None, None))  # type: ignore[arg-type]

    await made.until_tokens(2)

    assert made.tokens == 2
    with pytest.raises(Broken, match="ended too early"):
        await made.until_tokens(9)


async def test_errors_and_texts_of_whole_answers() -> None:
    good = json.dumps({"choices": [{"index": 0, "message": {"content": TEXT}}]}).encode()
    answer = Answer(reply(b""), good)
    assert checked(answer.text(), PROMPT).tokens == 3
    with pytest.raises(Broken, match="choice 1 was expected"):
        answer.text(1)
    with pytest.raises(Broken, match="an error of the form"):
        answer.error()
    wrong = Answer(reply(b"", status=500), b'{"error":{"message":"a","type":"b","code":null}}')
    assert (wrong.error().message, wrong.error().type) == ("a", "b")
    with pytest.raises(Broken, match="no answer in OpenAI's form"):
        Answer(reply(b""), b"<html>").read()
