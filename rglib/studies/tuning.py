"""Settings at test time that the paper leaves open, tried out on validation images.

The grid is over what the configuration calls ours or tuned; what is the paper's, released or forced
by the noise stays as it is. Gradient descent is tuned for one method, pnpReG, and its settings are
frozen for all others, as in the paper's section 5.3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch

from rglib.core.metrics import psnr
from rglib.core.problems import Observation, degradations, observe_image
from rglib.core.tensors import centre, to_tensor
from rglib.data.images import read_listed
from rglib.data.manifest import Manifest
from rglib.plan.open_settings import SECTIONS, candidates
from rglib.progress import progress
from rglib.restoration.evaluation import GroundTruth
from rglib.restoration.restorers import Restorer, restorer

Config = Mapping[str, Any]

COLUMNS = {
    "algorithm": "gradient_descent or pnp_admm",
    "method": "id of the method whose network restored",
    "target": "what the settings are for: a problem, or for PnP-ADMM a task",
    "settings": "the values tried for what is open, as JSON in the configuration's words",
    "problem_id": "id of the restoration problem",
    "psnr_db": "PSNR of the result in dB, mean over the images; empty if one diverged",
    "target_psnr_db": "mean of psnr_db over the target's problems, by which is chosen",
    "chosen": "whether these settings are chosen: the cheapest of the best of their target",
}


class LeakError(ValueError):
    """Validation images that are test images too."""


def validation_images(
    manifest: Manifest, *, count: int, crop: int, test_set: Manifest
) -> list[GroundTruth]:
    """Centre crops of ``count`` images, evenly over the data set.

    Raises:
        LeakError: an image of the data set is one of the test set.
        ValueError: there are fewer images.
    """
    tested = {image.sha256: image.path for image in test_set.images}
    for image in manifest.images:
        if image.sha256 in tested:
            raise LeakError(
                f"tuning.data: {image.path} is {tested[image.sha256]} of the test set; tuning on "
                "test images would make every number worthless: name another data set"
            )
    if count > len(manifest.images):
        raise ValueError(f"tuning.images: {manifest.title} has {len(manifest.images)}, not {count}")
    spread = [manifest.images[i * len(manifest.images) // count] for i in range(count)]
    return [GroundTruth(i.name, centre(to_tensor(read_listed(i)), crop)) for i in spread]


def tune(
    target: str,
    algorithm: str,
    network: torch.nn.Module,
    images: Sequence[GroundTruth],
    *,
    method: str,
    config: Config,
    device: torch.device,
) -> pd.DataFrame:
    """Try out every candidate of a target on its problems.

    Args:
        target: a problem, or a task for PnP-ADMM.
        algorithm: gradient_descent or pnp_admm.
        network: its G or P.
        images: validation images.
        method: id of the method that the network is of, for the table.
        config: with ``evaluation``, ``problems``, ``admm`` and ``tuning``.
        device: where to compute.

    Returns:
        One row per candidate and problem, with `COLUMNS`. Of the candidates within
        ``tuning: tolerance_db`` of the best those with the fewest iterations are left, and the best
        of these is chosen.

    Raises:
        ValueError: every candidate diverges.
    """
    section = SECTIONS[algorithm]
    entry = config[section][target]
    kinds = {
        problem: kind
        for problem, kind in degradations(config["problems"]).items()
        if target in (problem, kind.task)
    }
    seen = {
        problem: [observe_image(kind, image.pixels).to(device) for image in images]
        for problem, kind in kinds.items()
    }
    methods = {}
    for settings in candidates(entry, config["tuning"][algorithm]):
        changed = {**config, section: {**config[section], target: {**entry, **settings}}}
        methods[json.dumps(settings)] = {
            problem: restorer(algorithm, problem, network, changed, degradation=kind)
            for problem, kind in kinds.items()
        }
    work = len(images) * sum(m.recorded for by in methods.values() for m in by.values())
    with progress(f"tuning {target}", total=work, unit="iteration") as advance:
        reached = {
            settings: {
                problem: mean_psnr(made, seen[problem], partial(advance, note=settings))
                for problem, made in by.items()
            }
            for settings, by in methods.items()
        }
    table = pd.DataFrame(
        [
            {
                "algorithm": algorithm,
                "method": method,
                "target": target,
                "settings": settings,
                "problem_id": problem,
                "psnr_db": value,
                "target_psnr_db": sum(values.values()) / len(values),
            }
            for settings, values in reached.items()
            for problem, value in values.items()
        ]
    )
    best = _best(table, tolerance_db=config["tuning"]["tolerance_db"])
    return table.assign(chosen=table["settings"] == best)


def _best(table: pd.DataFrame, *, tolerance_db: float) -> str:
    if table["target_psnr_db"].isna().all():
        target, algorithm = table.loc[0, ["target", "algorithm"]]
        raise ValueError(
            f"{target} diverges with every candidate: try others in tuning.{algorithm}"
        )
    reached = table["target_psnr_db"].fillna(-math.inf)
    near = table[reached >= reached.max() - tolerance_db]
    iterations = near["settings"].map(lambda settings: json.loads(settings).get("iterations", 0))
    cheapest = near[iterations == iterations.min()]
    return str(cheapest.loc[reached[cheapest.index].idxmax(), "settings"])


def mean_psnr(
    method: Restorer, observations: Sequence[Observation], advance: Callable[[], None]
) -> float:
    """Mean PSNR (dB) of the last iterate; nan if one restoration is not finite.

    ``advance`` is called for every iterate.
    """
    values = [
        psnr(method.restore(seen, lambda _: advance()), seen.x_hat).item() for seen in observations
    ]
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.nan
