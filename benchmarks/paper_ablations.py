"""What the source varies: mu and the mapped layers, the width, Lipschitz constants, the growth of errors.

    MUQUANT_DATA=... python benchmarks/paper_ablations.py --data mnist [--count 300]

Takes the runs of `paper_tables.py`, which come first. Orig., Adv. and F.L. are tried with PGD on the
cross-entropy and on the logit margin: a gain under the one that is none under the other is masking. Writes
`results/paper_ablations_MODEL.json` and four pictures beside it; a figure that was measured before is kept.
Half an hour for MNIST on two cores.
"""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paper.ablation_plots import plot_growth, plot_lipschitz, plot_mapping, plot_widths
from paper.ablations import Prober, amplification, lipschitz, mapping, widths
from paper.networks import TRAININGS, Made
from paper.recipes import MODELS, RECIPES
from provenance import RESULTS, write_results

from muquant.data import load_dataset
from muquant.robustness import BenchmarkSetup, settings_for
from muquant.robustness.rendering.words import radius
from muquant.robustness.runner import Sample
from muquant.training import read_run

SEED = 0


def main() -> None:
    """Measure, print, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=MODELS, required=True)
    parser.add_argument("--model", choices=RECIPES, help="by default what two cores can train")
    parser.add_argument("--runs", type=Path, help="folder of the runs [runs/paper-MODEL]")
    parser.add_argument("--count", type=int, default=300, help="test images")
    options = parser.parse_args()
    name = options.model or MODELS[options.data]
    folder = options.runs or Path(f"runs/paper-{name}")
    made, settings = Made(RECIPES[name], folder), settings_for(options.data)
    images = read_run(folder / "orig").config.data
    dataset = load_dataset(images, "test")
    rows = BenchmarkSetup("seed", settings, limit=options.count, seed=SEED).draw(dataset)
    sample = Sample.of(dataset, rows)
    prober = Prober(settings, sample, folder / "ablations.json")

    document: dict[str, Any] = {
        "data": options.data,
        "images": images,
        "model": name,
        "count": len(sample),
        "settings": asdict(settings),
        "mapped_for_lipschitz": made.recipe.mu,
        "networks": {},
    }
    grown, epsilons = {}, {}
    for title, run in TRAININGS.items():
        if not (folder / run).is_dir():
            print(f"{title} left out: {folder / run} is not trained")
            continue
        model = made.run(run)
        epsilon = settings.epsilon if run == "adv" else settings.weak
        epsilons[title] = radius(epsilon)
        grown[title] = amplification(model, prober)
        document["networks"][title] = {
            "mapping": said(title, mapping(model, prober)),
            "widths": said(title, widths(model, prober, epsilon)),
            "lipschitz": lipschitz(model, made.recipe.mu),
            "amplification": {form: asdict(found) for form, found in grown[title].items()},
        }
    path = write_results(f"paper_ablations_{name}", SEED, document)
    networks = document["networks"]
    pictures = RESULTS / path.stem
    plot_mapping(networks, Path(f"{pictures}_mapping.png"), radius(settings.epsilon))
    plot_widths(networks, Path(f"{pictures}_widths.png"), epsilons)
    plot_lipschitz(networks, Path(f"{pictures}_lipschitz.png"))
    plot_growth(grown, Path(f"{pictures}_growth.png"))
    print(f"wrote {path} and four pictures")


def said(title: str, found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that is found, printed as it comes."""
    kept = []
    for each in found:
        kept.append(each)
        print(title, *(f"{value:.3g}" if isinstance(value, float) else value for value in each.values()))
    return kept


if __name__ == "__main__":
    main()
