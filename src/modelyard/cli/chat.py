"""`modelyard chat`"""

import sys
from typing import Annotated

import typer

from modelyard.cli.asking import Answer, Asker, Message
from modelyard.cli.interrupting import interruptible
from modelyard.cli.options import HomeOption, JsonOption, resolve_home
from modelyard.cli.output import print_json
from modelyard.cli.running import gateway_url
from modelyard.client import Client
from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.core.home import Home


def chat(
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", help="Asked once; without it, a conversation begins."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Public name; by default the default."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="SECRET",
            envvar="MODELYARD_API_KEY",
            show_default=False,
            help="API key; better given by the variable than for all to see.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a deployed model through the gateway.

    Ctrl-C stops an answer; /exit or Ctrl-D ends the conversation.
    """
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
    if question is None and as_json:
        raise InvalidRequest("--json needs a question", next_step='modelyard chat "…" --json')
    where = resolve_home(home)
    with Asker(gateway_url(where), key) as asker:
        name = model or _the_model(asker, where)
        if question is None:
            _converse(asker, name)
        elif as_json:
            _ask_for_json(asker, name, question)
        elif not _ask(asker, name, [{"role": "user", "content": question}]):
            raise KeyboardInterrupt


def _the_model(asker: Asker, home: Home) -> str:
    names = asker.models()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFound("nothing is deployed", next_step="modelyard deploy NAME:VERSION")
    with Client.from_home(home) as client:
        for deployment in client.deployments():
            if deployment.default:
                return deployment.name
    raise InvalidRequest(
        f"several models are deployed: {', '.join(names)}", next_step="choose one with --model NAME"
    )


def _converse(asker: Asker, model: str) -> None:
    import readline  # noqa: F401 - gives input() line editing and a history

    print(f"Talking to {model}. /exit or Ctrl-D ends, Ctrl-C stops an answer.")
    history: list[Message] = []
    while True:
        try:
            said = input("\n> ").strip()
        except EOFError:
            print()
            return
        if said == "/exit":
            return
        if said:
            history.append({"role": "user", "content": said})
            _ask(asker, model, history)


def _ask(asker: Asker, model: str, messages: list[Message]) -> bool:
    """Print an answer as it comes and add it to the conversation; False when it was stopped."""
    answer = Answer()
    try:
        with interruptible():
            asker.ask(answer, model, messages, _show)
    except KeyboardInterrupt:
        pass
    finally:
        print()
    messages.append({"role": "assistant", "content": answer.text})
    stopped = answer.e2e_s is None
    _show_dim("stopped" if stopped else f"{answer.measured()} · {answer.version}")
    return not stopped


def _ask_for_json(asker: Asker, model: str, question: str) -> None:
    answer = Answer()
    asker.ask(answer, model, [{"role": "user", "content": question}], lambda _: None)
    print_json(
        {
            "model": model,
            "version": answer.version,
            "digest": answer.digest,
            "answer": answer.text,
            "completion_tokens": answer.completion_tokens,
            "tokens_per_s": answer.tokens_per_s,
            "ttft_s": answer.ttft_s,
            "e2e_s": answer.e2e_s,
        }
    )


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _show_dim(text: str) -> None:
    if sys.stderr.isatty():
        text = f"\x1b[2m{text}\x1b[0m"
    print(text, file=sys.stderr)
