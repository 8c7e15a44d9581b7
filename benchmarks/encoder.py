"""A transformer encoder of the shape of a small sentence encoder, on a task that every Python brings along.

The task: bytes of the standard library's sources, 15 % of them masked; say which they were. The shape: 6
layers, 384 wide, 12 heads, 1,536 in between (MiniLM's). Test files are files of their own.

    python benchmarks/encoder.py [--out runs/encoder] [--steps 1600]

trains it (half an hour on two cores; an interrupted training goes on) and prints its accuracy on the masked
bytes of the test files.
"""

import argparse
import hashlib
import math
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from muquant.base.files import atomic_path

LENGTH, MASK, SHARE = 128, 256, 0.15
WIDTH, HEADS, LAYERS = 384, 12, 6
FOLDER, SEED = Path("runs/encoder"), 0
EACH = 50
"""Steps between two lines of the log, and two checkpoints."""
AVERAGES = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""


class Layer(nn.Module):
    """Attention and two dense layers, each behind a LayerNorm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.output = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        """[N, LENGTH, WIDTH] -> the same; `near` is added to what attention compares."""
        seen = self.norm1(x)
        query, key, value = (
            part(seen).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, near)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Bytes, some of them masked -> logits of what each was: int64 [N, LENGTH] -> [N, LENGTH, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = nn.Embedding(257, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)
        with torch.no_grad():  # as BERT and GPT-2 begin, what is added to the rest being quiet
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
            for layer in self.layers:
                assert isinstance(layer, Layer)
                for last in (layer.output, layer.down):
                    last.weight.div_(math.sqrt(2 * LAYERS))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x, near = self.bytes(tokens), nearness(tokens)
        for layer in self.layers:
            x = layer(x, near)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def nearness(tokens: Tensor) -> Tensor:
    """What attention knows of places, float32 [HEADS, LENGTH, LENGTH]: the farther, the less.

    After ALiBi (Press et al., 2022), but one half of heads prefers what comes before, the other what comes
    after; each half has its slopes. Places are counted in `tokens`, so that files do not hold the result.
    """
    places = (tokens[0] >= 0).cumsum(0)
    distance = places - places[:, None]
    slopes = 2.0 ** -torch.arange(HEADS // 2)[:, None, None]
    before, after = (slopes * (side + 1).abs() for side in (distance, -distance))
    return -torch.cat((before, after))


@dataclass(frozen=True, eq=False)
class Corpus:
    """The sources as bytes.

    Attributes:
        train: int64 [bytes].
        test: of other files.
        digest: SHA-256 of both.
    """

    train: Tensor
    test: Tensor
    digest: str


def load_corpus() -> Corpus:
    """Read the standard library; one file in twenty, chosen by the hash of its name, is a test file."""
    root = Path(sysconfig.get_paths()["stdlib"])
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(Path(name).parts):
            parts[hashlib.sha256(name.encode()).digest()[0] < 13].append(path.read_bytes())
    train, test = (b"\n".join(parts[held_out]) for held_out in (False, True))
    digest = hashlib.sha256(train + test).hexdigest()
    return Corpus(_bytes(train), _bytes(test), digest)


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def windows(text: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masked windows and what they were, int64 [count, LENGTH] each; bytes that are not masked are -100."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(len(text) - LENGTH, (count, 1), generator=generator)
    whole = text[start + torch.arange(LENGTH)]
    masked = torch.rand(whole.shape, generator=generator) < SHARE
    return whole.masked_fill(masked, MASK), whole.masked_fill(~masked, -100)


@torch.no_grad()
def accuracy(model: nn.Module, tokens: Tensor, wanted: Tensor) -> float:
    """The share of masked bytes that `model` knows."""
    right = total = 0
    for rows in torch.arange(len(tokens)).split(64):  # type: ignore[no-untyped-call]
        masked = wanted[rows] >= 0
        found = model(tokens[rows]).argmax(2)
        right += int((found == wanted[rows])[masked].sum())
        total += int(masked.sum())
    return right / total


def train(corpus: Corpus, folder: Path, steps: int, batch: int = 16, lr: float = 1e-3) -> Encoder:
    """Train, go on where an interrupted training stopped, or read what was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    done, partial = (folder / f"encoder-{steps}{kind}.safetensors" for kind in ("", "-partial"))
    torch.manual_seed(SEED)
    model = Encoder()
    if done.exists():
        model.load_state_dict(load_file(done))
        return model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.05)
    first = restore(partial, model, optimizer) if partial.exists() else 0
    begin, mean = time.perf_counter(), 0.0
    for step in track(range(first, steps), "Training", disable=not sys.stderr.isatty()):
        tokens, wanted = windows(corpus.train, batch, SEED + 1 + step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * rate(step / steps, (step + 1) / 100)
        optimizer.step()
        mean += loss.item() / EACH
        if step % EACH == EACH - 1:
            print(f"step {step + 1}: loss {mean:.3f}, {time.perf_counter() - begin:.0f} s", flush=True)
            keep(partial, model, optimizer, step + 1)
            mean = 0.0
    save_file(model.state_dict(), done)
    partial.unlink(missing_ok=True)
    return model.eval()


def rate(progress: float, warmup: float) -> float:
    """The share of the learning rate: a ramp, then half a cosine."""
    return min(warmup, 0.5 + 0.5 * math.cos(math.pi * progress))


def keep(path: Path, model: Encoder, optimizer: torch.optim.AdamW, step: int) -> None:
    """Write what training goes on from, whole or not at all."""
    tensors = {"step": torch.tensor(step)}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        for part, value in (("value", parameter.detach()), *((part, state[part]) for part in AVERAGES)):
            tensors[f"{part}.{name}"] = value.contiguous()
    with atomic_path(path) as new:
        save_file(tensors, new)


def restore(path: Path, model: Encoder, optimizer: torch.optim.AdamW) -> int:
    """Read it, and return how many steps were taken."""
    tensors = load_file(path)
    step = int(tensors["step"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"value.{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                **{part: tensors[f"{part}.{name}"] for part in AVERAGES},
            }
    return step


def main() -> None:
    """Train and say how good it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args()
    corpus = load_corpus()
    print(f"{len(corpus.train):,} bytes to train on, {len(corpus.test):,} to test, {corpus.digest[:12]}")
    model = train(corpus, options.out, options.steps)
    print(f"{accuracy(model, *windows(corpus.test, 2000, SEED)):.2%} of the masked bytes of the test files")


if __name__ == "__main__":
    main()
