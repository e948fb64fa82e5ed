"""Asking a model through the gateway, as any program would: with the official `openai` client."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai

from modelyard.core.errors import InvalidRequest, ModelyardError, Unavailable

Message = dict[str, str]


@dataclass
class Answer:
    """What came back for one question; it grows while it is streamed."""

    asked_at: float = field(default_factory=time.perf_counter)
    text: str = ""
    version: str = ""
    """`name:3`, from the response's headers; empty when they don't say."""
    digest: str = ""
    completion_tokens: int | None = None
    ttft_s: float | None = None
    """From sending the question to the first text that came back."""
    e2e_s: float | None = None
    """Until the end of the answer; None when it was stopped before."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens after the first over the time they took; None for fewer than two."""
        if self.completion_tokens is None or self.completion_tokens < 2:
            return None
        if self.ttft_s is None or self.e2e_s is None or self.e2e_s <= self.ttft_s:
            return None
        return (self.completion_tokens - 1) / (self.e2e_s - self.ttft_s)

    def measured(self) -> str:
        """`12 tokens · 180 tokens/s · first token after 41 ms`."""
        parts = []
        if self.completion_tokens is not None:
            parts.append(f"{self.completion_tokens} tokens")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.0f} tokens/s")
        if self.ttft_s is not None:
            parts.append(f"first token after {self.ttft_s * 1000:.0f} ms")
        return " · ".join(parts)


class Asker:
    """Asks one gateway. No proxy of the environment comes between, nothing is tried twice.

    Raises Unavailable when nobody answers there, and ModelyardError in the gateway's own words
    when it refuses.
    """

    def __init__(self, gateway_url: str, key: str | None = None) -> None:
        """`key`: the API key that the gateway wants, where it wants one."""
        self._url = gateway_url
        # The certificate of a gateway on this machine names it as its clients know it.
        local = urlsplit(gateway_url).hostname in ("127.0.0.1", "::1", "localhost")
        self._client = openai.OpenAI(
            base_url=f"{gateway_url}/v1",
            api_key=key or "none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False, verify=not local),
        )

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def models(self) -> list[str]:
        """Public names that the gateway serves."""
        with self._own_errors():
            return [model.id for model in self._client.models.list()]

    def ask(
        self,
        answer: Answer,
        model: str,
        messages: Sequence[Message],
        on_text: Callable[[str], None],
        **parameters: float,
    ) -> None:
        """Stream one answer into `answer`, handing each piece of text to `on_text` as it comes.

        `parameters` are the request's: `temperature`, `max_tokens`. When it is interrupted, the
        connection is closed (which ends the generation) and `answer` holds what came until then.
        """
        conversation: Any = list(messages)
        options: Any = parameters
        with self._own_errors():
            raw = self._client.chat.completions.with_raw_response.create(
                model=model,
                messages=conversation,
                stream=True,
                stream_options={"include_usage": True},
                **options,
            )
            answer.version = raw.headers.get("x-modelyard-version", "")
            answer.digest = raw.headers.get("x-modelyard-digest", "")
            with raw.parse() as chunks:
                for chunk in chunks:
                    if chunk.usage is not None:
                        answer.completion_tokens = chunk.usage.completion_tokens
                    text = chunk.choices[0].delta.content if chunk.choices else None
                    if text:
                        if answer.ttft_s is None:
                            answer.ttft_s = time.perf_counter() - answer.asked_at
                        answer.text += text
                        on_text(text)
        answer.e2e_s = time.perf_counter() - answer.asked_at

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except openai.APIConnectionError as error:
            raise Unavailable(
                f"the gateway at {self._url} does not answer", next_step="modelyard status"
            ) from error
        except openai.APIStatusError as error:
            said = error.body if isinstance(error.body, dict) else {}
            message = f"the gateway answered {error.status_code}: {said.get('message', error)}"
            kind = InvalidRequest if error.status_code < 500 else Unavailable
            raise kind(
                message, next_step=str(said.get("next_step") or "modelyard status")
            ) from error
        except openai.APIError as error:
            raise ModelyardError(
                f"the answer broke off: {error.message}", next_step="modelyard status"
            ) from error
