"""The client's errors are those that the controller raised."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from modelyard.client import Client
from modelyard.core import errors
from modelyard.core.errors import ModelyardError, Unavailable
from modelyard.core.home import Home


class Refusing(BaseHTTPRequestHandler):
    """Answers everything with the error that the test sets."""

    error: ModelyardError | None = None

    def do_GET(self) -> None:
        told = self.error
        body = b"a page of somebody else"
        if told is not None:
            fields = {"message": told.message, "code": told.code, "next_step": told.next_step}
            body = json.dumps({"error": {**fields, "param": told.param}}).encode()
        self.send_response(500 if told is None else told.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    one = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidRequest,
        errors.Unauthenticated,
        errors.NotFound,
        errors.Conflict,
        errors.Unsupported,
        errors.IntegrityError,
        errors.StorageError,
        errors.LaunchFailed,
    ],
)
def test_errors_come_back_as_what_they_were(
    server: HTTPServer, kind: type[ModelyardError], monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = kind("what was wrong", next_step="what to do", param="ref")
    monkeypatch.setattr(Refusing, "error", raised)
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url, "t") as client, pytest.raises(ModelyardError) as caught:
        client.status()
    assert type(caught.value) is kind
    told = caught.value
    assert (told.message, told.next_step, told.param) == ("what was wrong", "what to do", "ref")


def test_an_answer_of_somebody_else_is_no_answer(server: HTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url, "t") as client, pytest.raises(Unavailable, match="500 without a reason"):
        client.status()


def test_nothing_that_runs_is_told_with_the_command_that_starts_it(home: Home) -> None:
    with pytest.raises(Unavailable, match="nothing runs") as caught:
        Client.from_home(home)
    assert caught.value.next_step == f"start it with: modelyard up --home {home.root}"


def test_a_record_that_outlived_its_controller_is_no_controller(home: Home, free_port: int) -> None:
    home.run.mkdir(parents=True)
    home.admin_token.parent.mkdir()
    home.admin_token.write_text("t\n")
    (home.run / "controller.json").write_text(
        json.dumps({"pid": 1, "url": f"http://127.0.0.1:{free_port}", "started_at": 1.0})
    )
    with Client.from_home(home) as client, pytest.raises(Unavailable, match="no answer"):
        client.status()
