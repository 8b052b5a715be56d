"""LPIPS, a learned distance of images, as torchmetrics computes it: for an optional column.

R. Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018;
version 0.1 with AlexNet, which is what papers report. Lower is better, 0 for equal images.

Needs torchmetrics, and a torchvision for the PyTorch that is installed: ``rglib[lpips]``. What was
learned for LPIPS comes with torchmetrics. The trunk, AlexNet as trained on ImageNet, does not: it
is taken from the cache of `torch.hub` and never downloaded here.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from rglib.core.tensors import to_tensor
from rglib.data.images import read_image
from rglib.files import file_digest
from rglib.progress import progress

SMALLEST = 31  # pixels of a side: AlexNet's second pooling needs them


class LpipsError(RuntimeError):
    """LPIPS cannot be computed; the message says what is missing and what to do."""


def trunk_file() -> Path:
    """The file of AlexNet's weights, there and whole.

    Raises:
        LpipsError: a library, or the file, is missing, or the file is another one.
    """
    try:
        import torchmetrics.image.lpip  # noqa: F401  # what `Lpips` takes
        from torchvision.models import AlexNet_Weights
    except Exception as error:  # a torchvision for another PyTorch raises RuntimeError
        raise LpipsError(
            f"LPIPS needs torchmetrics and the torchvision of this PyTorch, {torch.__version__} "
            f'({type(error).__name__}: {error}): pip install "rglib[lpips]"'
        ) from None
    url = AlexNet_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not file.is_file():
        raise LpipsError(
            f"LPIPS needs AlexNet's weights, and there is no {file}: download {url} there, or name "
            "in TORCH_HOME the folder whose hub/checkpoints/ has them"
        )
    promised = file.stem.rpartition("-")[2]  # the name has the first digits, as torch.hub's do
    if not file_digest(file).startswith(promised):
        raise LpipsError(
            f"{file} is damaged or another file: its sha256 does not begin with {promised}; "
            f"delete it and download {url}"
        )
    return file


class Lpips:
    """LPIPS of images on [0, 1]; beyond that range they are clamped, as an image file would be.

    Raises:
        LpipsError: as `trunk_file`.
    """

    def __init__(self, device: torch.device) -> None:
        trunk_file()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self._device = device
        self._of_batch = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        self._of_batch.to(device)

    @torch.no_grad()
    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The distances (B,) of x from x_hat, both (B, 3, H, W), on the device that was named.

        Raises:
            LpipsError: they have not 3 channels, or a side is below `SMALLEST`.
        """
        if x.shape != x_hat.shape or x.shape[1] != 3 or min(x.shape[-2:]) < SMALLEST:
            raise LpipsError(
                f"LPIPS is of two images (B, 3, H, W) of one size, with sides of at least "
                f"{SMALLEST} pixels, not of {tuple(x.shape)} and {tuple(x_hat.shape)}"
            )
        pairs = zip(*(one.to(self._device).clamp(0, 1).split(1) for one in (x, x_hat)), strict=True)
        return torch.stack([self._of_batch(*pair) for pair in pairs])


def lpips_of_images(lpips: Lpips, restored: Path, truths: Path) -> pd.DataFrame:
    """LPIPS of each restored image of a method's evaluation.

    Args:
        lpips: the metric.
        restored: folder with ``<problem>/<image>.png``, 8 bits a channel.
        truths: folder with ``<problem>/<image>_truth.png``.

    Returns:
        ``problem_id``, ``image`` and ``lpips``, a row for each.

    Raises:
        ImageError: one cannot be read.
        LpipsError: one is too small; the message names it.
    """
    files = sorted(restored.glob("*/*.png"))
    rows = []
    with progress("LPIPS", total=len(files), unit="image") as advance:
        for file in files:
            problem_id, image = file.parent.name, file.stem
            truth = truths / problem_id / f"{image}_truth.png"
            try:
                value = lpips(*(to_tensor(read_image(path)) for path in (file, truth))).item()
            except LpipsError as error:
                raise LpipsError(f"{file}: {error}") from None
            rows.append({"problem_id": problem_id, "image": image, "lpips": value})
            advance(note=f"{problem_id} {image}")
    return pd.DataFrame(rows, columns=["problem_id", "image", "lpips"])
