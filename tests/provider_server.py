"""A small real HTTP server that speaks OpenAI's chat completions and embeddings, well or badly.

In a test: `async with ProviderServer() as server: … server.base_url …`. As a process of its own:
`python tests/provider_server.py --port 0` prints the port on one line and serves until killed.

What it does is a *scenario*: a name and `key=value` parameters, taken from the text
`[[provider: cut after=3]]` in the last message, else from the request header `X-Scenario`, else
from the model's name (`cut`, `status-429-2`, `n=200,delay_ms=5`; comma or blank between the parts).
Any other model name streams `n` tokens (`tok-0 tok-1 …`, default 20), `delay_ms` (0) apart.

With `response_format` of the type `json_schema` the answer follows the schema; the scenario
`no-schema` refuses it, `broken-once` follows it the second time only. `/embeddings` gives the local
vectors of `machina.connectors.llm`, in the reverse order with their `index`; scenarios of its own
begin with `vectors-`.

Everything asked is remembered: `server.requests`, `server.connections`; over HTTP at `/_seen`.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import gzip
import hashlib
import hmac
import json
import re
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final

from machina.connectors.llm.local_embedding import embed_text
from machina.connectors.llm.schema_answer import answer_for

MAX_REMEMBERED: Final = 10_000
DEFAULT_TOKENS: Final = 20
_MARKER = re.compile(r"\[\[provider:([^\]]*)\]\]")
_FOR_EVER: Final = 3600.0


def token_texts(n: int) -> list[str]:
    """The deltas of an answer of `n` tokens; joined they read `tok-0 tok-1 …`."""
    return [f"tok-{i}" if i == 0 else f" tok-{i}" for i in range(n)]


@dataclass(slots=True)
class SeenConnection:
    """One TCP connection that asked for a chat completion. Times are `time.time()`."""

    id: int
    opened_at: float
    closed_at: float | None = None
    requests: int = 0


@dataclass(slots=True)
class SeenRequest:
    """One request as it arrived; the key itself is not kept."""

    connection: int
    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    scenario: str
    key_digest: str | None
    answered: bool = False
    """Whether the whole answer went out before the client left."""

    def bears(self, key: str) -> bool:
        """Whether it was authorized with this key."""
        digest = hashlib.sha256(f"Bearer {key}".encode()).hexdigest()
        return self.key_digest is not None and hmac.compare_digest(self.key_digest, digest)

    def as_json(self) -> dict[str, Any]:
        return {
            "connection": self.connection,
            "at": self.at,
            "path": self.path,
            "headers": self.headers,
            "body": self.body,
            "scenario": self.scenario,
            "authorized": self.key_digest is not None,
            "answered": self.answered,
        }


@dataclass(slots=True)
class Scenario:
    """A name and its parameters."""

    name: str = "ok"
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Scenario:
        scenario = cls()
        for part in re.split(r"[\s,]+", text.strip()):
            key, is_param, value = part.partition("=")
            if is_param:
                scenario.params[key] = value
            elif key:
                scenario.name = key
        return scenario

    def number(self, key: str, default: float) -> float:
        return float(self.params.get(key, default))

    def count(self, key: str, default: int) -> int:
        return int(self.params.get(key, default))


class Exchange:
    """One request being answered: what the scenarios write with."""

    def __init__(self, writer: asyncio.StreamWriter, body: dict[str, Any], scenario: Scenario):
        self.writer = writer
        self.body = body
        self.scenario = scenario
        self.keep_alive = True
        self.hit = 1
        """How often this scenario has been asked for."""
        self._chunked = False

    @property
    def wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def texts(self) -> list[str]:
        """The deltas this scenario answers with."""
        schema = self.body.get("response_format", {}).get("json_schema", {}).get("schema")
        if isinstance(schema, dict):
            return re.findall(r"\S+\s*", json.dumps(answer_for(schema)))
        return token_texts(self.scenario.count("n", DEFAULT_TOKENS))

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, status: int, body: bytes, headers: Iterable[str] = (), type: str = "application/json"
    ) -> None:
        """A whole answer at once."""
        await self.write(_head(status, [f"Content-Type: {type}", *headers], len(body)) + body)

    async def open_stream(self, headers: Iterable[str] = (), *, chunked: bool = True) -> None:
        """The head of a streamed answer; without chunks its end is the connection's end."""
        self._chunked = chunked
        self.keep_alive = chunked
        framing = "Transfer-Encoding: chunked" if chunked else "Connection: close"
        await self.write(_head(200, ["Content-Type: text/event-stream", framing, *headers]))

    async def send(self, data: bytes) -> None:
        """A piece of the body, as one chunk."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def send_json(self, payload: Any) -> None:
        await self.send(b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n")

    async def send_texts(self, texts: Iterable[str]) -> None:
        delay = self.scenario.number("delay_ms", 0) / 1000
        for text in texts:
            await self.send_json(self.chunk({"content": text}))
            await asyncio.sleep(delay)

    async def send_tokens(self, default: int) -> None:
        """The first `after` tokens, for scenarios that then break off."""
        await self.send_texts(token_texts(self.scenario.count("after", default)))

    async def finish(self, tokens: int, *, reason: str = "stop") -> None:
        """Finish reason, usage if asked for, and `[DONE]`."""
        await self.send_json(self.chunk({}, reason))
        if self.wants_usage:
            await self.send_json({**self.chunk(None), "choices": [], "usage": self.usage(tokens)})
        await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def end(self) -> None:
        """The regular end of the body."""
        if self._chunked:
            await self.write(b"0\r\n\r\n")

    def chunk(self, delta: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self.body.get("model"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }

    def usage(self, tokens: int) -> dict[str, int]:
        prompt = sum(len(str(m.get("content")).split()) for m in self.body.get("messages", []))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }

    def cut(self) -> None:
        """Ends the connection where it stands."""
        self.keep_alive = False
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.keep_alive = False
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _head(status: int, headers: Iterable[str], length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


_REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


# The scenarios ------------------------------------------------------------------------------------


async def _ok(x: Exchange) -> None:
    texts = x.texts()
    await x.open_stream()
    await x.send_json(x.chunk({"role": "assistant", "content": ""}))
    await x.send_texts(texts)
    await x.finish(len(texts))


async def _echo(x: Exchange) -> None:
    """Says what the last message said, word by word."""
    texts = re.findall(r"\s*\S+", str(x.body["messages"][-1]["content"]))
    await x.open_stream()
    await x.send_texts(texts)
    await x.finish(len(texts))


async def _slow_headers(x: Exchange) -> None:
    await asyncio.sleep(x.scenario.number("first_ms", _FOR_EVER * 1000) / 1000)
    await _ok(x)


async def _slow_first(x: Exchange) -> None:
    texts = x.texts()
    await x.open_stream()
    await asyncio.sleep(x.scenario.number("first_ms", _FOR_EVER * 1000) / 1000)
    await x.send_texts(texts)
    await x.finish(len(texts))


async def _stall(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(3)
    await asyncio.sleep(_FOR_EVER)


async def _finish_stall(x: Exchange) -> None:
    """Says why it stopped, then neither usage nor `[DONE]` nor an end."""
    await x.open_stream()
    await x.send_tokens(3)
    await x.send_json(x.chunk({}, "stop"))
    await asyncio.sleep(_FOR_EVER)


async def _done_stall(x: Exchange) -> None:
    """Complete up to `[DONE]`, but the body does not end."""
    await x.open_stream()
    await x.send_tokens(3)
    await x.send_json(x.chunk({}, "stop"))
    await x.send(b"data: [DONE]\n\n")
    await asyncio.sleep(_FOR_EVER)


async def _pause_before_break(x: Exchange) -> None:
    # What is sent must reach the client's reader before the break overtakes it.
    await asyncio.sleep(x.scenario.number("pause_ms", 20) / 1000)


async def _cut(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(3)
    await _pause_before_break(x)
    x.cut()


async def _cut_reset(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(3)
    await _pause_before_break(x)
    x.reset()


async def _cut_midline(x: Exchange) -> None:
    """Half a line, then the regular end of a body without chunks."""
    await x.open_stream(chunked=False)
    await x.send_tokens(3)
    await x.send(b'data: {"choices":[{"index":0,"delta":{"cont')
    x.cut()


async def _cut_clean(x: Exchange) -> None:
    """The body ends as it should; the answer does not."""
    await x.open_stream()
    await x.send_tokens(3)
    await x.end()


async def _no_done(x: Exchange) -> None:
    await x.open_stream(chunked=False)
    await x.send_tokens(3)
    await x.send_json(x.chunk({}, x.scenario.params.get("reason", "length")))
    x.cut()


async def _no_finish(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(3)
    await x.send(b"data: [DONE]\n\n")
    await x.end()


async def _endless(x: Exchange) -> None:
    size = x.scenario.count("bytes", 8)
    await x.open_stream()
    while True:
        await x.send_texts(["x" * size])


async def _garbage(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(1)
    await x.send(b"data: {not json\n\n")
    await x.end()


async def _nested(x: Exchange) -> None:
    await x.open_stream()
    await x.send(b"data: " + b"[" * 500_000 + b"\n\n")
    await x.end()


async def _not_an_object(x: Exchange) -> None:
    await x.open_stream()
    await x.send(b'data: ["choices"]\n\n')
    await x.end()


async def _html(x: Exchange) -> None:
    await x.answer(200, b"<!doctype html>\n<p>Welcome</p>\n", type="text/html")


async def _huge_line(x: Exchange) -> None:
    await x.open_stream()
    await x.send_tokens(1)
    await x.send(b"data: " + b"x" * (1024 * 1024 + 1) + b"\n\n")
    await x.end()


async def _split_utf8(x: Exchange) -> None:
    """Every byte of the body in a packet of its own."""
    await x.open_stream()
    for text in ("Zürich ", "→ 東京 ", "🏟️"):
        line = b"data: " + json.dumps(x.chunk({"content": text}), ensure_ascii=False).encode()
        for byte in line + b"\n\n":
            await x.send(bytes([byte]))
    await x.finish(3)


async def _odd_characters(x: Exchange) -> None:
    """Broken UTF-8, raw and escaped NUL, lone surrogates, and a pair torn in two."""
    broken, escaped = (b"a\xff\xc3z", b"b\x00"), (rb"c\u0000", rb"d\ud800e")
    torn = (rb"\ud83d", rb"\ude00", rb"f\udc00", rb"\ud83d")
    await x.open_stream()
    for piece in (*broken, *escaped, *torn):
        await x.send(b'data: {"choices":[{"index":0,"delta":{"content":"' + piece + b'"}}]}\n\n')
    await x.finish(8)


async def _odd_lines(x: Exchange) -> None:
    """Legal, seldom seen: a mark of order, CRLF, no blank after the colon, comments, fields."""
    await x.open_stream(["Set-Cookie: visitor=1"])
    await x.send(b"\xef\xbb\xbf: keep-alive\r\n\r\nevent: message\r\nid: 7\r\nretry: 10\r\n")
    await x.send(b"data\r\ndata:\r\ndatas: no\r\n\r\n")
    for text in token_texts(3):
        line = json.dumps(x.chunk({"content": text})).encode()
        await x.send(b"data:" + line + b"\r\n\r\n: ping\r\n\r\n")
    line = json.dumps(x.chunk({}, "stop")).encode()
    await x.send(b"data:" + line + b"\r\n\r\ndata:[DONE]\r\n\r\n")
    await x.end()


async def _bad_framing(x: Exchange) -> None:
    """A chunk whose size is no number."""
    await x.open_stream()
    await x.send_tokens(3)
    await _pause_before_break(x)
    await x.write(b"zz\r\ndata: x\r\n")


async def _no_http(x: Exchange) -> None:
    x.keep_alive = False
    await x.write(b"220 mail.example.com ESMTP\r\n\r\n")


async def _comments_only(x: Exchange) -> None:
    await x.open_stream()
    await x.send(b": keep-alive\n\n")
    await x.end()


async def _flaky(x: Exchange) -> None:
    """Every other request fails."""
    await (_refuse(x, 500) if x.hit % 2 else _ok(x))


async def _disguised(x: Exchange) -> None:
    """Says it is compressed, and is not."""
    await x.answer(200, b"plain", ["Content-Encoding: gzip"])


async def _odd_deltas(x: Exchange) -> None:
    """Thoughts, tool calls, a second choice, text in parts; only `tok-0 tok-1` is the answer."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    second = {**x.chunk({}), "choices": [{"index": 1, "delta": {"content": "other"}}]}
    parts = [{"type": "thinking", "text": "hm"}, {"type": "text", "text": " tok-1"}]
    await x.open_stream()
    await x.send_json(x.chunk({"role": "assistant", "content": None, "reasoning_content": "hm"}))
    await x.send_json({"object": "chat.completion.chunk", "usage": None})
    await x.send_json(x.chunk({"content": "tok-0"}))
    await x.send_json(second)
    await x.send_json(x.chunk({"tool_calls": [call]}))
    await x.send_json(x.chunk({"content": parts}))
    await x.send_json(x.chunk(None))
    await x.send_json(x.chunk({"content": 17}))
    await x.send_json({**x.chunk({}), "usage": {"prompt_tokens": "many", "completion_tokens": -1}})
    await x.send_json(x.chunk({}, "stop"))
    await x.send(b"data: [DONE]\n\n")
    await x.end()


async def _error_in_stream(x: Exchange) -> None:
    code: Any = x.scenario.params.get("code")
    code = int(code) if code is not None and code.isdigit() else code
    await x.open_stream()
    await x.send_tokens(0)
    await x.send_json({"error": {"message": "the engine is on fire", "code": code}})
    await x.end()


async def _no_schema(x: Exchange) -> None:
    """Refuses structured outputs as servers do that have none."""
    if "response_format" in x.body:
        error = {"message": "response_format of type json_schema is not supported"}
        await x.answer(400, json.dumps({"error": error}).encode())
        return
    wanted = str(x.body["messages"][-1]["content"])
    schema = json.loads(wanted[wanted.index("{") :])
    await _say(x, json.dumps(answer_for(schema)))


async def _broken_once(x: Exchange) -> None:
    """Half an answer, until it is told so."""
    if any(m.get("role") == "assistant" for m in x.body["messages"]):
        await _ok(x)
    else:
        await _say(x, "".join(x.texts())[:-1])


async def _fenced(x: Exchange) -> None:
    """A structured answer as talkative models give it."""
    await _say(x, "Sure, here you are:\n```json\n" + "".join(x.texts()) + "\n```\nAnything else?")


async def _say(x: Exchange, text: str) -> None:
    await x.open_stream()
    await x.send_texts([text])
    await x.finish(1)


async def _strict_messages(x: Exchange) -> None:
    """Refuses keys of messages that are not of the protocol, as OpenAI does."""
    for message in x.body["messages"]:
        for key in message.keys() - {"role", "content"}:
            error = {"message": f"Unknown parameter: 'messages[0].{key}'."}
            await x.answer(400, json.dumps({"error": error}).encode())
            return
    await _ok(x)


def _vectors(x: Exchange) -> list[dict[str, Any]]:
    texts = x.body["input"]
    texts = [texts] if isinstance(texts, str) else texts
    return [{"index": i, "embedding": embed_text(text)} for i, text in enumerate(texts)]


async def _send_vectors(x: Exchange, rows: list[Any], **more: Any) -> None:
    tokens = sum(len(text.split()) for text in x.body["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    await x.answer(200, json.dumps({"data": rows, "usage": usage, **more}).encode())


async def _embeddings(x: Exchange) -> None:
    if "" in x.body["input"]:
        error = {"message": "input cannot be an empty string"}
        await x.answer(400, json.dumps({"error": error}).encode())
    else:
        await _send_vectors(x, _vectors(x)[::-1])


async def _vectors_unnumbered(x: Exchange) -> None:
    await _send_vectors(x, [{"embedding": row["embedding"]} for row in _vectors(x)])


async def _vectors_misnumbered(x: Exchange) -> None:
    await _send_vectors(x, [{**row, "index": [row["index"]]} for row in _vectors(x)])


async def _vectors_too_few(x: Exchange) -> None:
    await _send_vectors(x, _vectors(x)[:-1])


async def _vectors_of_words(x: Exchange) -> None:
    await _send_vectors(x, [{**row, "embedding": ["a", "b"]} for row in _vectors(x)])


async def _vectors_uneven(x: Exchange) -> None:
    rows = [{**row, "embedding": row["embedding"][: 2 + row["index"]]} for row in _vectors(x)]
    await _send_vectors(x, rows)


async def _vectors_none(x: Exchange) -> None:
    await _send_vectors(x, [{**row, "embedding": None} for row in _vectors(x)])


async def _vectors_error(x: Exchange) -> None:
    await _send_vectors(x, [], error={"message": "no such model", "code": "model_not_found"})


async def _vectors_huge(x: Exchange) -> None:
    await x.open_stream()
    for _ in range(20):
        await x.send(b" " * 1024 * 1024)
    await x.end()


def _whole_answer(x: Exchange) -> bytes:
    texts = x.texts()
    choice = {"index": 0, "message": {"content": "".join(texts)}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": x.usage(len(texts))}).encode()


async def _plain_json(x: Exchange) -> None:
    await x.answer(200, b"\n" + _whole_answer(x))


async def _plain_json_cut(x: Exchange) -> None:
    body = _whole_answer(x)
    x.keep_alive = False
    await x.write(_head(200, ["Content-Type: application/json", "Connection: close"]) + body[:-9])
    x.cut()


async def _plain_json_error(x: Exchange) -> None:
    await x.answer(200, b'{"error": {"message": "no such model", "code": "model_not_found"}}')


async def _gzip(x: Exchange) -> None:
    await x.answer(200, gzip.compress(_whole_answer(x)), ["Content-Encoding: gzip"])


async def _refusal_cut(x: Exchange) -> None:
    """A refusal whose body breaks off."""
    await x.write(_head(400, ["Content-Type: text/plain"], 1000) + b"the prompt is")
    await _pause_before_break(x)
    x.cut()


Act = Callable[[Exchange], Awaitable[None]]
SCENARIOS: Final[dict[str, Act]] = {
    "bad-framing": _bad_framing,
    "broken-once": _broken_once,
    "comments-only": _comments_only,
    "disguised": _disguised,
    "flaky": _flaky,
    "no-http": _no_http,
    "cut": _cut,
    "cut-clean": _cut_clean,
    "cut-midline": _cut_midline,
    "cut-reset": _cut_reset,
    "done-stall": _done_stall,
    "echo": _echo,
    "endless": _endless,
    "error-in-stream": _error_in_stream,
    "fenced": _fenced,
    "finish-stall": _finish_stall,
    "garbage": _garbage,
    "gzip": _gzip,
    "html": _html,
    "huge-line": _huge_line,
    "nested": _nested,
    "no-done": _no_done,
    "no-finish": _no_finish,
    "no-schema": _no_schema,
    "not-an-object": _not_an_object,
    "odd-characters": _odd_characters,
    "odd-deltas": _odd_deltas,
    "odd-lines": _odd_lines,
    "plain-json": _plain_json,
    "plain-json-cut": _plain_json_cut,
    "plain-json-error": _plain_json_error,
    "refusal-cut": _refusal_cut,
    "slow-first": _slow_first,
    "slow-headers": _slow_headers,
    "split-utf8": _split_utf8,
    "stall": _stall,
    "strict-messages": _strict_messages,
    "vectors-error": _vectors_error,
    "vectors-huge": _vectors_huge,
    "vectors-none": _vectors_none,
    "vectors-misnumbered": _vectors_misnumbered,
    "vectors-of-words": _vectors_of_words,
    "vectors-too-few": _vectors_too_few,
    "vectors-uneven": _vectors_uneven,
    "vectors-unnumbered": _vectors_unnumbered,
}
_PLACES: Final[dict[str, Act]] = {"/chat/completions": _ok, "/embeddings": _embeddings}
_REFUSAL = re.compile(r"status-(\d{3})(?:-(\d+))?\Z")
_RESET = re.compile(r"reset(?:-(\d+))?\Z")


def _retry_after(value: str | None) -> list[str]:
    if value is None:
        return []
    if value == "date":
        value = email.utils.formatdate(time.time() + 30, usegmt=True)
    elif value == "past":
        value = "Wed, 21 Oct 2015 07:28:00 GMT"
    return [f"Retry-After: {value}"]


async def _refuse(x: Exchange, status: int) -> None:
    """An error in OpenAI's shape; `message` (`_` for a blank), `code`, `retry_after` as wished."""
    params = x.scenario.params
    error = {
        "message": params.get("message", f"refused_with_{status}").replace("_", " "),
        "code": params.get("code"),
    }
    headers = _retry_after(params.get("retry_after"))
    if 300 <= status < 400:
        headers.append("Location: http://127.0.0.1:1/elsewhere")
    await x.answer(status, json.dumps({"error": error}).encode(), headers)


class ProviderServer:
    """The server; an async context manager. Listens on loopback only."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: deque[SeenRequest] = deque(maxlen=MAX_REMEMBERED)
        self.connections: deque[SeenConnection] = deque(maxlen=MAX_REMEMBERED)
        self._closed_count = 0
        self._opened_count = 0
        self._closed_changed = asyncio.Condition()
        self._hits: Counter[str] = Counter()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ProviderServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        handlers = list(self._handlers)
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        """What `OPENAI_BASE_URL` would be."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        """Connections that asked for a completion and are still open."""
        return sum(1 for connection in self.connections if connection.closed_at is None)

    async def wait_closed_connections(self, n: int, within_seconds: float = 1.0) -> None:
        """Waits until `n` connections in all have been closed.

        Raises:
            TimeoutError: if they are not within `within_seconds`.
        """
        async with asyncio.timeout(within_seconds), self._closed_changed:
            await self._closed_changed.wait_for(lambda: self._closed_count >= n)

    async def wait_requests(self, n: int, within_seconds: float = 1.0) -> None:
        """Waits until `n` requests in all have arrived; raises TimeoutError otherwise."""
        async with asyncio.timeout(within_seconds), self._closed_changed:
            await self._closed_changed.wait_for(lambda: len(self.requests) >= n)

    def seen(self) -> dict[str, Any]:
        """What `GET /_seen` answers."""
        return {
            "requests": [request.as_json() for request in self.requests],
            "connections": [asdict(connection) for connection in self.connections],
            "open_connections": self.open_connections,
        }

    # One connection -------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._opened_count += 1
        connection = SeenConnection(self._opened_count, time.time())
        try:
            while await self._serve_one(reader, writer, connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left; that is recorded below
        except asyncio.CancelledError:
            writer.transport.abort()  # the server is closing: its client may be stopped or gone
        finally:
            writer.close()
            self._handlers.discard(task)
            if connection.requests:
                connection.closed_at = time.time()
                async with self._closed_changed:
                    self._closed_count += 1
                    self._closed_changed.notify_all()

    async def _serve_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: SeenConnection,
    ) -> bool:
        method, path, headers, data = await _read_request(reader)
        if method == "GET" and path == "/_seen":
            data = json.dumps(self.seen()).encode()
            await Exchange(writer, {}, Scenario()).answer(200, data)
            return True
        body = json.loads(data) if data else {}
        exchange = Exchange(writer, body, Scenario())
        place = path.partition("?")[0]
        act = next((act for end, act in _PLACES.items() if place.endswith(end)), None)
        if method != "POST" or act is None:
            await _refuse(exchange, 404)
            return True
        text = _scenario_text(body, headers)
        exchange.scenario = Scenario.parse(text)
        authorization = headers.pop("authorization", None)
        seen = SeenRequest(
            connection=connection.id,
            at=time.time(),
            path=path,
            headers=headers,
            body=body,
            scenario=text,
            key_digest=authorization and hashlib.sha256(authorization.encode()).hexdigest(),
        )
        await self._remember(seen, connection)
        seen.answered = await _answer_while_connected(reader, self._act(exchange, text, act))
        return seen.answered and exchange.keep_alive

    async def _remember(self, seen: SeenRequest, connection: SeenConnection) -> None:
        if connection.requests == 0:
            self.connections.append(connection)
        connection.requests += 1
        async with self._closed_changed:
            self.requests.append(seen)
            self._closed_changed.notify_all()

    async def _act(self, exchange: Exchange, text: str, usual: Act) -> None:
        name = exchange.scenario.name
        self._hits[text] += 1
        exchange.hit = self._hits[text]
        refusal, reset = _REFUSAL.match(name), _RESET.match(name)
        if refusal and exchange.hit <= int(refusal[2] or exchange.hit):
            await _refuse(exchange, int(refusal[1]))
        elif reset and exchange.hit <= int(reset[1] or exchange.hit):
            exchange.reset()
        else:
            await SCENARIOS.get(name, usual)(exchange)


async def _answer_while_connected(reader: asyncio.StreamReader, answer: Awaitable[None]) -> bool:
    """Runs the answer until it is done (True) or the client is gone (False)."""
    answering = asyncio.ensure_future(answer)
    watching = asyncio.ensure_future(reader.read(1))  # clients do not pipeline: only the end comes
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
            return True
        return False
    finally:
        answering.cancel()
        watching.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def _scenario_text(body: dict[str, Any], headers: dict[str, str]) -> str:
    messages = body.get("messages") or [{}]
    marker = _MARKER.search(str(messages[-1].get("content")))
    if marker:
        return marker[1]
    return headers.get("x-scenario") or str(body.get("model") or "ok")


async def _serve(port: int) -> None:
    async with ProviderServer(port) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="0: any free port, printed")
    try:
        asyncio.run(_serve(parser.parse_args().port))
    except KeyboardInterrupt:
        print("stopped", flush=True)


if __name__ == "__main__":
    main()
