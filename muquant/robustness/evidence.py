"""What masking checks look at, and what they answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from muquant.attacks import Attack, AttackResult, Threat, TorchTarget
from muquant.attacks.norms import TOLERANCE
from muquant.robustness.runner import Runner, Sample, describe
from muquant.robustness.settings import Settings
from muquant.robustness.statistics import wilson
from muquant.robustness.suites import SuiteAttack

Kind = Literal["disqualifying", "advisory"]

PROBED = 200
"""Images on which a check runs attacks of its own."""


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """An attack of a suite, and what came of it.

    Attributes:
        suite_attack: name, attack, limit, bound.
        result: of the first `suite_attack.limit` images.
    """

    suite_attack: SuiteAttack
    result: AttackResult

    @property
    def withstood(self) -> Tensor:
        """bool [n]: classified correctly, not fooled within the suite's bound nor by what went before."""
        success = self.result.success
        if self.suite_attack.bound is not None:
            success = success & (self.result.l2 <= self.suite_attack.bound)
        return self.result.attacked & ~success

    def withstood_within(self, threat: Threat) -> Tensor:
        """bool [n]: classified correctly, and not fooled inside another threat than the attack's own."""
        return self.result.attacked & ~fooled_within(self.result, threat)


def fooled_within(result: AttackResult, threat: Threat) -> Tensor:
    """bool [n]: fooled by an example that lies inside `threat`, whose radius is not None."""
    assert threat.radius is not None
    return result.success & (result.distance(threat.norm) <= threat.radius + TOLERANCE)


@dataclass(frozen=True, eq=False)
class Evidence:
    """One PyTorch model, the outcome of a suite on it, and the means to try more.

    Attributes:
        module: the model.
        settings: of the suite.
        sample: the images of the suite.
        outcomes: by the attack's name in the suite.
        runner: runs attacks on the model; what it ran once it does not run again.
        abstains: whether the model's last output is no class.
    """

    module: nn.Module
    settings: Settings
    sample: Sample
    outcomes: Mapping[str, AttackOutcome]
    runner: Runner
    abstains: bool = False

    @property
    def threat(self) -> Threat:
        """The ball of the headline figure."""
        return self.settings.threat

    @property
    def probed(self) -> Sample:
        """The first `PROBED` images."""
        return self.sample.first(PROBED)

    @property
    def target(self) -> TorchTarget:
        """The model, to be asked directly."""
        return TorchTarget(self.module, abstains=self.abstains)

    def probe(self, attack: Attack) -> AttackResult:
        """Run an attack on the probed images.

        Several processes run the same checks side by side, so which probes a check runs may depend on
        results of attacks alone, which are equal in all of them.
        """
        return self.runner.run(f"probe {describe(attack)['name']}", attack, PROBED)

    def chance(self, count: int) -> float:
        """What one answer for all of the first `count` images can score, 0..1.

        It is the share of their most common class, or 1 / classes where that is more.
        """
        most_common = int(self.sample.labels[:count].bincount().max()) / count
        return max(most_common, 1 / self.sample.classes)

    def above_chance(self, withstood: Tensor) -> bool:
        """Whether an accuracy, bool [n] of the first n images, exceeds chance by more than its interval."""
        low, _ = wilson(int(withstood.sum()), len(withstood))
        return low > self.chance(len(withstood))


@dataclass(frozen=True)
class Finding:
    """What a check measured. It fires where the value exceeds the threshold.

    Attributes:
        value: in the unit of the explanation.
        threshold: at least the sampling interval of the figures that are compared.
        explanation: one sentence with the measured figures in it.
    """

    value: float
    threshold: float
    explanation: str

    @property
    def fired(self) -> bool:
        """Whether the check fires."""
        return self.value > self.threshold


@dataclass(frozen=True)
class Check:
    """A named way to find out that a robustness figure is inflated.

    Attributes:
        name: such as "scale".
        kind: "disqualifying": where it fires, no robustness is established; "advisory": where it fires, what
            it found is in the worst case already, and a stronger suite is called for.
        examine: returns None where the check does not apply, such as for accuracies at chance level.
    """

    name: str
    kind: Kind
    examine: Callable[[Evidence], Finding | None]
