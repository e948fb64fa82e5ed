"""Makes a request fit into its model's context, as the policy says (promise G26).

Tokens are counted by the replica's own tokenizer where it has a route for that, and only when it
looks close; else they are estimated, and then nothing is refused on a guess.
"""

import time
from typing import Any

import msgspec

from modelyard.core.errors import ContextOverflow, UpstreamError
from modelyard.core.overflow import Fit, fit, leave_out, oldest_turns
from modelyard.core.routes import ModelRoute, SlotRoute
from modelyard.gateway.asking import ask
from modelyard.gateway.calls import Call
from modelyard.gateway.estimates import Estimates
from modelyard.gateway.routes import RouteTable
from modelyard.wire.openai import ChatView, RequestView, with_bound, with_fields

_CLOSE = 2.0
"""An estimate that fits so many times over is believed."""
_ROUNDS = 4
_TIMEOUT_S = 5.0
_BOUNDED = frozenset({"chat", "completions"})


class _Role(msgspec.Struct):
    role: str = ""


class _Count(msgspec.Struct):
    count: int | None = None
    tokens: list[Any] | None = None

    @property
    def number(self) -> int | None:
        if self.count is not None:
            return self.count
        return len(self.tokens) if self.tokens is not None else None


class _Prompt(msgspec.Struct):
    prompt: str


class ContextFitter:
    """Rejects, clamps or shortens requests that are too long."""

    def __init__(self, routes: RouteTable, estimates: Estimates) -> None:
        self._routes = routes
        self._estimates = estimates

    async def fit(self, call: Call, route: ModelRoute, slot: SlotRoute) -> None:
        """Change the call's body where the policy wants that; raises ContextOverflow."""
        view, context = call.view, slot.context_length
        if view is None or context is None or call.operation not in _BOUNDED:
            return
        policy, wanted = route.policy.context_overflow, view.wanted_tokens
        guess = self._estimates.of(route.name).prompt_tokens(view.prompt_bytes)
        if _CLOSE * guess + (wanted or 1) <= context:
            return
        for _ in range(_ROUNDS):
            counted = await self._count(view, slot)
            if counted is None and policy == "reject":
                return  # nothing is refused on a guess: the engine knows
            prompt = guess if counted is None else counted
            decided = fit(policy, prompt=prompt, wanted=wanted, context=context)
            call.trail.append(("context", (prompt, wanted, context, decided.action)))
            if decided.action == "send" or (counted is None and decided.action == "reject"):
                return
            if decided.action == "clamp" and decided.max_tokens is not None:
                self._clamp(call, view, decided.max_tokens)
                return
            shorter = _shortened(view, prompt, decided) if decided.action == "truncate" else None
            if shorter is None:
                raise _overflow(prompt, wanted, context)
            view, left_out = shorter
            call.overflow = f"left out {left_out + _left_out(call)} messages"
            call.body = with_fields(call.body, {"messages": view.messages})
            call.view = view
            guess = self._estimates.of(route.name).prompt_tokens(view.prompt_bytes)
        raise _overflow(guess, wanted, context)

    def _clamp(self, call: Call, view: RequestView, tokens: int) -> None:
        if call.operation is not None:
            call.body = with_bound(view, call.operation, call.body, tokens)
        call.overflow = f"max_tokens clamped to {tokens}"

    async def _count(self, view: RequestView, slot: SlotRoute) -> int | None:
        """Tokens of the prompt by the replica's own tokenizer; None when nobody can tell."""
        now = time.monotonic()
        live = [each for each in self._routes.live(slot) if each.circuit.takes(now)]
        if slot.tokenizer == "none" or not live:
            return None
        replica = live[0]
        key = self._routes.authorization(replica)

        async def post(target: str, fields: dict[str, Any]) -> bytes:
            body = msgspec.json.encode(fields)
            return await ask(
                replica.pool, b"POST", target, body, timeout_s=_TIMEOUT_S, authorization=key
            )

        chat = view if isinstance(view, ChatView) else None
        prompt: Any = view.prompt_parts[0] if chat is None else None
        try:
            if slot.tokenizer == "messages":
                said = {"prompt": prompt} if chat is None else {"messages": chat.messages}
                named = {"model": replica.route.upstream_model or view.model} | said
                told = await post("/tokenize", named)
                return msgspec.json.decode(told, type=_Count).number
            content = prompt
            if chat is not None:
                templated = await post("/apply-template", {"messages": chat.messages})
                content = msgspec.json.decode(templated, type=_Prompt).prompt
            told = await post(
                "/tokenize", {"content": content, "add_special": True, "parse_special": True}
            )
            return msgspec.json.decode(told, type=_Count).number
        except (UpstreamError, msgspec.MsgspecError):
            return None


def _shortened(view: RequestView, prompt: int, decided: Fit) -> tuple[ChatView, int] | None:
    """The request without its oldest turns, and how many messages are gone; None: impossible."""
    if not isinstance(view, ChatView):
        return None
    messages = view.messages
    sizes = [len(bytes(message)) for message in messages]
    share = prompt / max(1, sum(sizes))
    try:
        roles = [msgspec.json.decode(message, type=_Role).role for message in messages]
    except msgspec.MsgspecError:
        return None
    gone = leave_out(oldest_turns(roles), [round(size * share) for size in sizes], decided.excess)
    if not gone:
        return None
    kept = [message for index, message in enumerate(messages) if index not in gone]
    return msgspec.structs.replace(view, messages=kept), len(gone)


def _left_out(call: Call) -> int:
    digits = "".join(letter for letter in call.overflow if letter.isdigit())
    return int(digits or 0)


def _overflow(prompt: int, wanted: int | None, context: int) -> ContextOverflow:
    answer = f" and {wanted} of the answer" if wanted else ""
    return ContextOverflow(
        f"the model's context is {context} tokens; the request has {prompt} of the prompt{answer}",
        next_step="shorten the messages" + (", or ask for fewer max_tokens" if wanted else ""),
        param="messages",
    )
