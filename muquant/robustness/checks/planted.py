"""The check that plants adversarial examples: an attack must find what is known to be there."""

from collections.abc import Iterator

import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from muquant.attacks import APGDCE, RandomSearch, Threat, TorchTarget
from muquant.attacks.norms import project, random_start, unit
from muquant.base.seeds import generator_for
from muquant.compression.layers import weight_owners
from muquant.robustness.checks.measures import share
from muquant.robustness.evidence import Evidence, Finding
from muquant.robustness.sweep import radius

MISSED = 0.05
"""Share of the planted examples that counts, the paper's."""

IMAGES, FEWEST = 30, 10
"""Images in whose balls an example is planted, and the number below which there is no answer."""

INNER, INSIDE = 200, 0.95
"""Points of each ball that the readout must tell from the planted one, and how much smaller their ball is."""

CLOSE = 0.95
"""Where the decision changes between the points inside and the planted one: the nearer to it, the harder."""


def planted_missed(evidence: Evidence) -> Finding | None:
    """Fires where APGD-CE misses over 5 % of the adversarial examples that are known to exist.

    The binarization test (Zimmermann et al. 2022). For each image a linear readout is fitted to the features
    before the last weighted layer, so that it tells one point at the edge of the ball from the image and 200
    points inside. That point is then an adversarial example of the model with this readout, and an attack
    that works finds one. How many a random search finds with as many queries tells how hard that is. The
    attack is the one that figures rest on: with steps of fixed length, PGD misses some in honest networks.
    """
    seed, attack = evidence.runner.seed, APGDCE(epsilon=radius(evidence), norm=evidence.threat.norm)
    search = RandomSearch(epsilon=attack.epsilon, norm=attack.norm, samples=attack.steps)
    inner_class = torch.zeros(1, dtype=torch.int64)
    found: list[bool] = []
    by_chance: list[bool] = []
    for readout, image in _plants(evidence):
        for attempt, successes in ((attack, found), (search, by_chance)):
            result = attempt.attack(TorchTarget(readout), image, inner_class, seed=seed)
            successes.append(bool(result.success))
    if len(found) < FEWEST:
        return None
    explanation = (
        f"of {len(found)} planted examples APGD-CE finds {sum(found)}, random search {sum(by_chance)}"
    )
    return share(len(found) - sum(found), len(found), MISSED, explanation)


class Readout(nn.Module):
    """A model whose last layer is replaced by one with two logits, -score and score.

    Args:
        module: the model.
        layer: the layer in it that is replaced; its input, flattened, is the feature vector.
        weight: float32 [features].
        bias: added to the score.
    """

    def __init__(self, module: nn.Module, layer: nn.Module, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.module, self.layer, self.weight, self.bias = module, layer, weight, bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [N, 2]."""
        score = features(self.module, self.layer, inputs) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


def features(module: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
    """What a layer of the module is given, float32 [N, features]; [N, 0] where it is not called."""
    seen = [inputs.flatten(1)[:, :0]]
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].flatten(1)))
    try:
        TorchTarget(module).logits(inputs)
    finally:
        hook.remove()
    return seen[-1].float()


def plant(
    module: nn.Module, layer: nn.Module, image: Tensor, threat: Threat, generator: torch.Generator
) -> Readout | None:
    """A readout that takes `image` [1, ...] for class 0, and a point of the ball around it for class 1.

    None where no linear readout does, or where the features have no gradient.
    """
    assert threat.radius is not None
    crowd = image.expand(INNER, *image.shape[1:])
    inner = random_start(crowd, INSIDE * threat.radius, threat.norm, generator)
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    edge = noise.sign() if threat.norm == "linf" else unit(noise)
    planted = project(image + threat.radius * edge, image, threat.radius, threat.norm)
    with TorchTarget(module).ready():
        with torch.no_grad():
            fitted = _fit(features(module, layer, torch.cat([image, inner, planted])))
        if fitted is None:
            return None
        readout = Readout(module, layer, *fitted)
        leaf = torch.cat([image, planted]).requires_grad_()
        logits = readout(leaf)
    if logits.argmax(1).tolist() != [0, 1] or not logits.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), leaf, allow_unused=True)
    return None if gradient is None else readout


def _fit(points: Tensor) -> tuple[Tensor, float] | None:
    """Weight and bias of a linear score that is positive for the last of [n, features] alone, or None.

    It is that of widest margin, moved towards the last point, and scaled so that this one scores 1 more than
    any other.
    """
    spread = float(points.std(correction=0)) if points.numel() else 0.0
    if not 0 < spread < torch.inf:
        return None
    scaled = (points.double() / spread).cpu()
    is_last = torch.arange(len(points)) == len(points) - 1
    machine = SVC(kernel="linear", C=1e4).fit(scaled.numpy(), is_last.numpy())
    weight = torch.tensor(machine.coef_[0])
    scores = scaled @ weight
    highest, last = float(scores[:-1].max()), float(scores[-1])
    if last <= highest:
        return None
    width = last - highest
    bias = -(highest + CLOSE * width) / width
    return (weight / (spread * width)).to(points), bias


def _plants(evidence: Evidence) -> Iterator[tuple[Readout, Tensor]]:
    """Readouts with their images, [1, ...] on the model's device."""
    owners = weight_owners(evidence.module)
    if not owners:
        return
    images = evidence.probed.images[:IMAGES].to(evidence.target.device)
    for number, image in enumerate(torch.split(images, 1)):
        generator = generator_for(evidence.runner.seed, "planted", number)
        readout = plant(evidence.module, owners[-1].module, image, evidence.threat, generator)
        if readout is not None:
            yield readout, image
