"""The page in headless Chromium: what it reads is what onnxruntime reads, what it counts is what was sent."""

import gzip
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
SEVEN = [[[0.3, 0.2], [0.6, 0.2], [0.5, 0.8]]]
ONE = [[[0.5, 0.2], [0.5, 0.8]]]
FOUR = [[[0.4, 0.2], [0.3, 0.5], [0.65, 0.5]], [[0.6, 0.2], [0.6, 0.8]]]
ZERO = [
    [[0.5, 0.3], [0.4, 0.35], [0.37, 0.5], [0.42, 0.65], [0.55, 0.66], [0.6, 0.5], [0.58, 0.35], [0.5, 0.3]]
]
DRAWINGS = SEVEN, ONE, FOUR, ZERO
MOVED = SEVEN, ZERO


@dataclass(frozen=True)
class Reply:
    """What a server sends of a file: `body`, or that there is none; and what it says that it sends."""

    body: bytes | None
    stated: int | None = None
    encoding: str | None = None


def first_half(data: bytes) -> Reply:
    return Reply(data[: len(data) // 2])


def broken_off(data: bytes) -> Reply:
    return Reply(data[: len(data) // 2], stated=len(data))


def missing(_: bytes) -> Reply:
    return Reply(None)


def packed(data: bytes) -> Reply:
    return Reply(gzip.compress(data, mtime=0), encoding="gzip")


WAYS: dict[str, dict[str, Callable[[bytes], Reply]]] = {
    "as-they-are": {},
    "packed": {"float32.onnx": packed},
    "cut": {"3bit-web.onnx": first_half},
    "empty": {"3bit-web.onnx": lambda _: Reply(b"")},
    "broken-off": {"3bit-web.onnx": broken_off},
    "damaged": {"3bit-web.onnx": lambda data: Reply(bytes(len(data)))},
    "float-cut": {"float32.onnx": first_half},
    "no-list": {"networks.json": missing},
    "list-cut": {"networks.json": first_half},
    "samples-cut": {"digits.pgm": first_half},
    "no-runtime": {"ort.wasm.bundle.min.mjs": missing},
    "no-program": {"ort-wasm-simd-threaded.wasm": missing},
}
"""The first part of a path -> files that are not sent as they are."""


class Handler(SimpleHTTPRequestHandler):
    """Sends /WAY/PATH."""

    def do_GET(self) -> None:
        _, way, path = self.path.split("/", 2)
        file = Path(self.directory, path, "index.html") if path.endswith("/") else Path(self.directory, path)
        reply = WAYS[way].get(file.name, Reply)(file.read_bytes()) if file.is_file() else Reply(None)
        if reply.body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.send_header("Content-Length", str(reply.stated or len(reply.body)))
        if reply.encoding:
            self.send_header("Content-Encoding", reply.encoding)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def visits(examples: Path, packages: Callable[[Path], Path]) -> Iterator[dict[str, Any]]:
    """Way -> what the page showed, served in that way."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: {', '.join(BROWSERS)}")
    driver = ROOT / "tests/examples/browser"
    packages(driver)
    modules = examples / "web/node_modules"
    modules.symlink_to(packages(ROOT / "examples/web"))
    ink = [
        {
            "lines": [[[u * size + at, v * size + at] for u, v in line] for line in drawing],
            "size": 28,
            "box": 20,
        }
        for drawing in MOVED
        for size, at in ((1.0, 0.0), (0.4, 0.05), (0.4, 0.55))
    ]
    asked: list[dict[str, Any]] = [{"path": f"/{way}/web/"} for way in WAYS]
    asked[0] |= {"drawings": DRAWINGS, "samples": list(range(10)), "ink": ink}
    server = ThreadingHTTPServer(("localhost", 0), lambda *args: Handler(*args, directory=str(examples)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["node", "drive.mjs", browser, f"http://localhost:{server.server_port}", json.dumps(asked)]
        done = subprocess.run(command, cwd=driver, capture_output=True, text=True, timeout=300)
        server.shutdown()
    if done.returncode == 3:
        pytest.skip(f"{browser} does not start: {done.stderr}")
    assert done.returncode == 0, done.stderr
    yield dict(zip(WAYS, json.loads(done.stdout), strict=True))
    modules.unlink()


def probabilities(path: Path, picture: list[int]) -> np.ndarray[Any, Any]:
    side = round(len(picture) ** 0.5)
    session = ort.InferenceSession(path)
    pixels = np.array(picture, np.float32).reshape(1, 1, side, side) / np.float32(255)
    logits = session.run(None, {session.get_inputs()[0].name: pixels})[0][0].astype(np.float64)
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()  # type: ignore[no-any-return]


def test_what_is_drawn_is_read_as_onnxruntime_reads_it(examples: Path, visits: dict[str, Any]) -> None:
    after, read = visits["as-they-are"]["after"], set()
    assert len(after) == len(DRAWINGS) + 10
    for shown in after:
        words = []
        for name, file in (("3 bits", "3bit-web.onnx"), ("float32", "float32.onnx")):
            shares = probabilities(examples / "networks" / file, shown["picture"])
            words.append((name, int(shares.argmax()), shares.max()))
        assert shown["digits"] == [str(digit) for _, digit, _ in words]
        for (name, digit, share), said in zip(words, shown["status"].split(". "), strict=True):
            start, _, percent = said.partition(" (")
            assert start == f"{name}: {digit}"
            assert float(percent.split()[0]) == pytest.approx(100 * share, abs=0.11)  # it has one decimal
        read.add(shown["digits"][0])
    assert len(read) > 6


def test_samples_are_shown_as_they_are(examples: Path, visits: dict[str, Any]) -> None:
    pictures = np.asarray(Image.open(examples / "networks/digits.pgm")).reshape(10, 64)
    shown = visits["as-they-are"]["after"][len(DRAWINGS) :]
    assert [each["picture"] for each in shown] == pictures.tolist()


def test_a_cleared_board_has_no_answer(visits: dict[str, Any]) -> None:
    last = visits["as-they-are"]
    assert (last["digits"], last["status"], sum(last["picture"])) == (["-", "-"], "Draw a digit.", 0)


def test_costs_are_those_of_the_files(examples: Path, visits: dict[str, Any]) -> None:
    shown, networks = visits["as-they-are"], examples / "networks"
    assert (shown["problem"], shown["errors"]) == ("", [])
    sizes = [(networks / file).stat().st_size for file in ("3bit-web.onnx", "float32.onnx")]
    assert [int(text.replace(",", "")) for text in shown["costs"].pop("wire")] == sizes
    accuracies = [
        each["accuracy"] for each in json.loads((networks / "networks.json").read_text())["networks"]
    ]
    assert shown["costs"].pop("accuracy") == [f"{100 * accuracy:.2f} %" for accuracy in accuracies]
    assert set(shown["costs"]) == {"download", "opening", "again", "answer"}
    for texts in shown["costs"].values():
        assert all(0 <= float(text) < 60 for text in texts)


def test_bytes_are_counted_as_they_were_sent(examples: Path, visits: dict[str, Any]) -> None:
    data = (examples / "networks/float32.onnx").read_bytes()
    sent = len(packed(data).body or b"")
    assert sent < len(data)
    assert visits["packed"]["costs"]["wire"][1] == f"{sent:,}"
    assert visits["packed"]["problem"] == ""


def test_whatever_does_not_come_whole_is_said_in_one_line(examples: Path, visits: dict[str, Any]) -> None:
    networks = examples / "networks"
    whole = (networks / "3bit-web.onnx").stat().st_size
    whole_float = (networks / "float32.onnx").stat().st_size
    lines = {
        "cut": f"3bit-web.onnx did not come whole: {whole // 2:,} bytes of {whole:,}.",
        "empty": f"3bit-web.onnx did not come whole: 0 bytes of {whole:,}.",
        "broken-off": "3bit-web.onnx did not come whole: ",
        "damaged": "3bit-web.onnx cannot be opened: ",
        "float-cut": f"float32.onnx did not come whole: {whole_float // 2:,} bytes of {whole_float:,}.",
        "no-list": "networks.json cannot be fetched (404): examples/make_networks.py makes the networks.",
        "list-cut": "networks.json did not come whole.",
        "samples-cut": "digits.pgm did not come whole.",
        "no-runtime": "onnxruntime-web cannot be loaded: run `npm ci` in examples/web.",
        "no-program": "onnxruntime-web does not start: ",
    }
    assert {"as-they-are", "packed", *lines} == set(WAYS)
    for way, line in lines.items():
        assert visits[way]["problem"].startswith(line), way
        assert "\n" not in visits[way]["problem"], way
        assert not visits[way]["errors"], way


def test_the_other_network_goes_on(visits: dict[str, Any]) -> None:
    for way, opened in (("cut", [False, True]), ("float-cut", [True, False]), ("samples-cut", [True, True])):
        assert [text != "-" for text in visits[way]["costs"]["opening"]] == opened
        assert visits[way]["status"] == "Draw a digit."
    for way in ("no-list", "no-runtime", "no-program"):
        assert visits[way]["status"] == ""


def test_pictures_are_made_as_those_of_mnist(visits: dict[str, Any]) -> None:
    """A digit fills a box of 20, its centre of mass in the middle, wherever and however large it is drawn."""
    pictures = np.array(visits["as-they-are"]["pictures"], float).reshape(len(MOVED), 3, 28, 28)
    for drawn in pictures:
        for picture in drawn:
            rows, columns = np.nonzero(picture > 127)
            assert 19 <= 1 + max(np.ptp(rows), np.ptp(columns)) <= 21  # pixels at both ends may be half full
            middle = np.indices((28, 28)) + 0.5
            assert (middle * picture).sum((1, 2)) / picture.sum() == pytest.approx([14, 14], abs=0.1)
            assert picture.max() == 255
        assert np.abs(drawn - drawn[0]).mean() < 3
