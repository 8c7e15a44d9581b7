"""onnxruntime-web in Chromium without a window: files come over HTTP, and run as WebAssembly."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote

import psutil

from muquant.base.files import temporary_folder
from muquant_onnx.verification.runners.javascript import (
    SCRIPTS,
    find_package,
    missing_package,
    package_version,
)
from muquant_onnx.verification.runners.runtime import LIMIT, Measured, Request, Runtime

PACKAGE = "onnxruntime-web"
_NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
_START = 60.0
"""Seconds within which the browser has to ask for the page."""
_TYPES = {
    ".html": "text/html",
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
}


class Chromium(Runtime):
    """WebAssembly, on one thread. Memory is that of the browser's processes for pages."""

    kernels_round = True

    def missing(self) -> str:
        """As in the base."""
        return missing_package(PACKAGE) if _browser() else "needs Chromium; install chromium"

    def version(self) -> str:
        """As in the base: of onnxruntime-web, which computes."""
        return package_version(PACKAGE)

    def measure(self, request: Request) -> Measured:
        """As in the base."""
        page = _Page(request)
        with _served(page) as address, temporary_folder() as profile:
            flags = ["--headless=new", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
            flags += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            browser = subprocess.Popen(  # noqa: S603
                [str(_browser()), *flags, address],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            page.browser = psutil.Process(browser.pid)
            try:
                return page.wait(browser)
            finally:
                _end(page.browser)
                browser.wait()


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def _end(browser: psutil.Process) -> None:
    """End a browser with all its processes."""
    everything = [*browser.children(recursive=True), browser]
    for each in everything:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(everything[:-1], timeout=10)


class _Page:
    """What the page is given, and what it gives back."""

    def __init__(self, request: Request) -> None:
        folder = find_package(PACKAGE)
        assert folder is not None
        self.request, self.package = request, folder
        files = [*request.timed.values(), *request.feeds, *request.external.values()]
        self.readable = {request.path, request.empty, *files}
        self.browser: psutil.Process | None = None
        self.asked, self.done = Event(), Event()
        self.found = Measured("the browser ended before the page did")

    def wait(self, browser: "subprocess.Popen[bytes]") -> Measured:
        """Wait for what the page finds."""
        start = time.monotonic()
        while not self.done.wait(0.05):
            if browser.poll() is not None:
                break
            limit, what = (
                (LIMIT, "the page took") if self.asked.is_set() else (_START, "opening the page took")
            )
            if time.monotonic() - start > limit:
                return Measured(f"{what} longer than {limit:.0f} s")
        return self.found

    def get(self, path: str) -> bytes | None:
        """The answer to a request for `path`; None where there is nothing."""
        self.asked.set()
        place, _, rest = path[1:].partition("/")
        match place:
            case "request":
                return json.dumps(asdict(self.request)).encode()
            case "memory":
                return json.dumps(self.memory(reset=rest == "reset")).encode()
            case "file":
                return Path(f"/{rest}").read_bytes() if f"/{rest}" in self.readable else None
            case "package":
                file = (self.package / rest).resolve()
                return file.read_bytes() if file.is_relative_to(self.package.resolve()) else None
            case "" | "page.mjs" | "measure.mjs":
                return (SCRIPTS / (place or "page.html")).read_bytes()
        return None

    def post(self, path: str, body: bytes) -> None:
        """Take what the page sends to `path`."""
        if path == "/found":
            self.found = Measured.read(json.loads(body))
            self.done.set()
        elif Path(path.removeprefix("/file")).parent == Path(self.request.outputs):
            Path(path.removeprefix("/file")).write_bytes(body)

    def memory(self, reset: bool) -> dict[str, int] | None:
        """Bytes that the processes for pages have, and had at most since `reset`; None where not known."""
        assert self.browser is not None
        resident = peak = 0
        try:
            for each in self.browser.children(recursive=True):
                if "--type=renderer" not in each.cmdline():
                    continue
                folder = Path("/proc", str(each.pid))
                if reset:
                    (folder / "clear_refs").write_text("5")
                lines = (folder / "status").read_text().splitlines()
                found = {name: text for name, _, text in (line.partition(":") for line in lines)}
                resident += int(found["VmRSS"].split()[0]) * 1024
                peak += int(found["VmHWM"].split()[0]) * 1024
        except (OSError, psutil.Error, LookupError):
            return None
        return {"resident": resident, "peak": peak}


@contextmanager
def _served(page: _Page) -> Iterator[str]:
    """Serve a page on this machine alone, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                body = page.get(unquote(self.path))
            except OSError:
                body = None
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", _TYPES.get(Path(self.path).suffix, "text/html"))
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")  # both for a clock that is exact
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            page.post(unquote(self.path), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
