"""How well a P denoises: mean PSNR at the noise levels at which denoisers are compared.

``python -m rglib.restoration.denoised BSDS500/val --names rglib/data/cbsd68.txt`` prints a Markdown
table of it for the denoiser that ships, or with ``--models work/states`` for that of another folder
of networks. The images are those of CBSD68.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rglib import __version__
from rglib.core.devices import device_named
from rglib.core.metrics import psnr
from rglib.core.networks import WeightsError, load_frozen
from rglib.core.problems import SeededImage
from rglib.core.tensors import to_tensor
from rglib.data.images import ImageError, read_image
from rglib.files import file_digest
from rglib.restoration.weights_folder import Models, ModelsError

LEVELS = (15, 25, 50)  # of 255
METHOD = "gauss"  # the one that restores with the denoiser


@torch.no_grad()
def denoising_psnr(
    P: nn.Module, images: Iterable[Tensor], level: float, *, device: torch.device
) -> list[float]:
    """PSNR (dB) of each image (1, 3, H, W) with white noise of ``level`` / 255, once denoised.

    Every image has the noise of seed 0, not clipped, and the result is rounded to 8 bits, as in
    KAIR's script.
    """
    found = []
    for x_hat in images:
        noisy = x_hat + level / 255 * SeededImage().normal(x_hat.shape)
        restored = (P(noisy.to(device), level / 255).clamp(0, 1) * 255).round() / 255
        found.append(psnr(restored.cpu(), x_hat).item())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table with a row for each level; 2 with a line on what is wrong."""
    options = parser().parse_args(arguments)
    try:
        files = image_files(options.folder, options.names)
        images = [to_tensor(read_image(path)) for path in files]
        device = device_named(options.device)
        models = Models.open(options.models)
        weights = models.weights(METHOD)
        network = load_frozen(
            "P",
            weights,
            network=models.card(METHOD).network,
            device=device,
            precision=options.precision,
        )
    except (ImageError, ModelsError, WeightsError, ValueError, OSError) as error:
        print(f"rglib.restoration.denoised: {error}", file=sys.stderr)
        return 2
    print("| noise | PSNR (dB) | images |\n|---|---|---|", flush=True)
    for level in LEVELS:
        values = denoising_psnr(network, images, level, device=device)
        print(f"| {level}/255 | {sum(values) / len(values):.2f} | {len(values)} |", flush=True)
    print(
        f"\nP: `{weights.name}`, sha256 {file_digest(weights)}, rglib {__version__}, "
        f"{options.precision} on {device.type}. Noise of seed 0, not clipped; what P returns is "
        "clipped and rounded to 8 bits."
    )
    return 0


def image_files(folder: Path, names: Path | None) -> list[Path]:
    """The images of a folder, or those whose names without ending a file lists, one a line.

    Raises:
        ValueError: there is none, or one that is listed is missing.
    """
    there = {path.stem: path for path in sorted(folder.glob("*.*"))}
    listed = list(there)
    if names is not None:
        lines = names.read_text(encoding="utf-8").splitlines()
        listed = [name for line in lines if (name := line.strip())]
    if missing := [name for name in listed if name not in there]:
        raise ValueError(f"{folder} has no image {missing[0]}, which {names} lists")
    if not listed:
        raise ValueError(f"no images in {folder}")
    return [there[name] for name in listed]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m rglib.restoration.denoised", description=__doc__)
    made.add_argument("folder", type=Path, help="of images")
    made.add_argument("--names", type=Path, help="file with the names of those to take")
    made.add_argument("--models", type=Path, help="folder of networks; those that ship")
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--precision", default="float32", help="float32, bfloat16 or auto")
    return made


if __name__ == "__main__":
    sys.exit(main())
