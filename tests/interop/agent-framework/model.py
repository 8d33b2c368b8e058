"""A scripted model: an HTTP server that answers as a model behind OpenAI's chat completions does.

What it says depends on the conversation alone, so that an answer shows what the model was given:

- to words it names everything that the user said so far,
- to `look up X` it asks for the tool `look_up` first, and then tells what the tool said,
- where a schema is asked for it answers with JSON, and finds good what holds the word `good`.

It keeps each request, and a test can hold an answer back. It listens on the loopback address alone.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sdk import Gate, eventually


@dataclass
class Call:
    """One request: the worker whose address it came to, and the conversation that it sent."""

    worker: str
    messages: list[dict[str, Any]]

    @property
    def said(self) -> list[str]:
        """What the user said, oldest first."""
        return [text(message) for message in self.messages if message["role"] == "user"]

    @property
    def instructions(self) -> str:
        return text(self.messages[0]) if self.messages[0]["role"] == "system" else ""

    @property
    def spoken(self) -> list[tuple[str, str]]:
        """Who said what, without the instructions; a request for a tool is told as `name(arguments)`."""
        return [(message["role"], text(message) or asked(message)) for message in self.messages
                if message["role"] != "system"]


class Model:
    """The server, `start`ed and `stop`ped; `address` is where the worker of that name finds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._gates: dict[str, Gate] = {}
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> "Model":
        self._thread.start()
        return self

    def stop(self) -> None:
        for gate in list(self._gates.values()):
            gate.open()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def address(self, worker: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{worker}"

    def calls(self, words: str) -> list[Call]:
        """The requests so far that answer to these words of the user."""
        with self._lock:
            return [call for call in self._calls if call.said and call.said[-1] == words]

    def until_called(self, words: str, times: int) -> list[Call]:
        eventually(lambda: len(self.calls(words)) >= times, f"{times} calls of the model with {words!r}")
        return self.calls(words)

    @contextmanager
    def holding(self, words: str) -> Iterator[Gate]:
        """Holds back the answers to these words until the gate is opened."""
        gate = self._gates[words] = Gate()
        try:
            yield gate
        finally:
            gate.open()
            del self._gates[words]

    def answer(self, worker: str, request: dict[str, Any]) -> dict[str, Any]:
        """The assistant's message."""
        call = Call(worker, request["messages"])
        with self._lock:
            self._calls.append(call)
        words = call.said[-1] if call.said else ""
        if gate := self._gates.get(words):
            gate.pass_through()
        last = call.messages[-1]
        if last["role"] == "tool":
            return {"role": "assistant", "content": f"the tool said: {text(last)}"}
        if words.startswith("look up ") and request.get("tools"):
            arguments = json.dumps({"word": words.removeprefix("look up ")})
            function = {"name": "look_up", "arguments": arguments}
            return {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call-{len(call.said)}", "type": "function", "function": function}],
            }
        if request.get("response_format"):
            return {"role": "assistant", "content": json.dumps({"good": "good" in words})}
        return {"role": "assistant", "content": f"heard: {' | '.join(call.said)}"}


def text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def asked(message: dict[str, Any]) -> str:
    functions = [call["function"] for call in message.get("tool_calls") or []]
    return ", ".join(f"{function['name']}({function['arguments']})" for function in functions)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    model: Model

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """A worker that was killed no longer reads its answer: that is what some tests are for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        worker, _, path = self.path.removeprefix("/").partition("/")
        if path != "chat/completions":
            self.send_error(404, f"no such path: {self.path}")
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = self.server.model.answer(worker, request)
        self.send_response(200)
        if request.get("stream"):
            self._end_headers("text/event-stream")
            for chunk in _chunks(request["model"], message):
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            choice = {"index": 0, "message": message, "finish_reason": _reason(message)}
            whole = _envelope(request["model"], "chat.completion", choices=[choice], usage=USAGE)
            self._end_headers("application/json")
            self.wfile.write(json.dumps(whole).encode())

    def _end_headers(self, content_type: str) -> None:
        self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """The requests are kept, not printed."""


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def _envelope(model: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": "completion-1", "object": kind, "created": 1700000000, "model": model, **fields}


def _reason(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _chunks(model: str, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message word by word, then why it ended, then what it cost."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for number, call in enumerate(message.get("tool_calls") or []):
        deltas.append({"tool_calls": [{"index": number, **call}]})
    if content := message["content"]:
        deltas += [{"content": word} for word in content.split(" ")[:1]]
        deltas += [{"content": f" {word}"} for word in content.split(" ")[1:]]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield _envelope(model, "chat.completion.chunk", choices=[choice])
    end = {"index": 0, "delta": {}, "finish_reason": _reason(message)}
    yield _envelope(model, "chat.completion.chunk", choices=[end])
    yield _envelope(model, "chat.completion.chunk", choices=[], usage=USAGE)
