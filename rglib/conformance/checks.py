"""What is compared: each check calls one method of an adapter with inputs out of the kit.

As no check is given what another one returned, a mistake shows where it is made and nowhere else,
as far as an adapter's methods do not share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from rglib import paper
from rglib.conformance.cases import LR, RHO, STEPS, Case

EVERY = 5  # of the rows and columns of images that are sampled: prime to the factors 2 and 3

COMPLETION, DEBLURRING, SUPER_RESOLUTION = TASKS = ("completion", "deblurring", "super_resolution")


@dataclass(frozen=True)
class Inputs:
    """What the calls of one case are made with; images (1, 3, H, W) float32."""

    case: Case
    image: Tensor
    x_hat: Tensor
    y: Tensor
    x0: Tensor
    P: nn.Module
    G: nn.Module

    @property
    def weights_P(self) -> dict[str, Tensor]:
        """The weights of P by KAIR's names."""
        return dict(self.P.state_dict())

    @property
    def weights_G(self) -> dict[str, Tensor]:
        """The weights of G by KAIR's names."""
        return dict(self.G.state_dict())


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: of the tensor in the kit, under the name of the case.
        method: of the adapter that it calls.
        says: what it compares, and what is easily done otherwise; for people.
        call: of the adapter and the inputs.
        tolerance: on the largest difference over the largest absolute value.
        sampled: the kit holds every `EVERY`-th row and column of images only, or entry of a vector.
        tasks: that it is for.
    """

    name: str
    method: str
    says: str
    call: Callable[[Any, Inputs], Any]
    tolerance: float
    sampled: bool = False
    tasks: tuple[str, ...] = TASKS

    def value(self, adapter: object, inputs: Inputs) -> Tensor:
        """What the adapter returns, as the kit holds it."""
        value = torch.as_tensor(self.call(adapter, inputs)).detach()
        return _sample(value) if self.sampled else value


def _sample(value: Tensor) -> Tensor:
    """Every `EVERY`-th of the last axis, of images of the last two."""
    return value[::EVERY] if value.ndim == 1 else value[..., ::EVERY, ::EVERY]


def _gradient(loss: Tensor, *networks: nn.Module) -> Tensor:
    """Of a loss by the networks' weights, in the order of their names of weights, (n,)."""
    weights = [weight for network in networks for weight in network.parameters()]
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


def _link(adapter: Any, i: Inputs) -> Tensor:
    loss: Tensor = adapter.loss_link(i.case, i.P, i.G, i.x0, i.y, paper.ETA_FB)
    return loss


def _fb(adapter: Any, i: Inputs) -> Tensor:
    loss: Tensor = adapter.loss_fb(i.case, i.P, i.x0, i.y, i.x_hat, paper.ETA_FB)
    return loss


def _gd(adapter: Any, i: Inputs) -> Tensor:
    loss: Tensor = adapter.loss_gd(i.case, i.G, i.x0, i.y, i.x_hat, paper.ETA_GD)
    return loss


CHECKS = (
    Check(
        "crop",
        "crop",
        "the ground truth: deblurring top-left to multiples of 8, x2 the centre to multiples of "
        "32, x3 top-left to multiples of 3, else all",
        lambda a, i: a.crop(i.case, i.image),
        1e-6,
    ),
    Check(
        "mask",
        "mask",
        "known pixels: numpy.random.seed(0), then uniform (H, W) > 1 - keep, drawn before "
        "anything else, the same in the three channels",
        lambda a, i: a.mask(i.case),
        1e-6,
        tasks=(COMPLETION,),
    ),
    Check(
        "kernel",
        "kernel",
        "blur: sampled Gaussian, 25x25, sum 1; downsampling: h(x / factor), sum 1, bicubic with "
        "a = -0.75, Gaussian of std 0.5 low-resolution pixels",
        lambda a, i: a.kernel(i.case),
        1e-5,
        tasks=(DEBLURRING, SUPER_RESOLUTION),
    ),
    Check(
        "forward",
        "forward",
        "A x of the ground truth: circular borders; blurs are convolutions, not correlations",
        lambda a, i: a.forward(i.case, i.x_hat),
        1e-5,
        sampled=True,
    ),
    Check(
        "adjoint",
        "adjoint",
        "A^T y",
        lambda a, i: a.adjoint(i.case, i.y),
        1e-5,
        sampled=True,
    ),
    Check(
        "observe",
        "observe",
        "y: numpy.random.seed(0) for each image, the mask first, then the noise in the order "
        "channel, row, column; neither clipped nor rounded",
        lambda a, i: a.observe(i.case, i.x_hat),
        1e-5,
    ),
    Check(
        "start",
        "start",
        "x0: 0.5 where nothing is known; y for deblurring; cubic resize (a = -0.75, half-pixel "
        "centres) of y clipped to [0, 1]",
        lambda a, i: a.start(i.case, i.y),
        1e-5,
    ),
    Check(
        "data_gradient",
        "data_gradient",
        "D(x0) = A^T (A x0 - y)",
        lambda a, i: a.data_gradient(i.case, i.x0, i.y),
        1e-4,
        sampled=True,
    ),
    Check(
        "prox",
        "prox",
        f"argmin 1/2 ||A v - y||^2 + rho/2 ||v - x0||^2 with rho = {RHO}",
        lambda a, i: a.prox(i.case, i.x0, i.y, RHO),
        1e-4,
        sampled=True,
    ),
    Check(
        "proximal_operator",
        "proximal_operator",
        "P(x0, s): replicate-padded below and on the right to multiples of 16, cropped after",
        lambda a, i: a.proximal_operator(i.weights_P, i.x0, i.case.s),
        1e-4,
        sampled=True,
    ),
    Check(
        "regularizing_gradient",
        "regularizing_gradient",
        "G(x0), padded likewise; no noise level goes in",
        lambda a, i: a.regularizing_gradient(i.weights_G, i.x0),
        1e-4,
        sampled=True,
    ),
    Check(
        "forward_backward",
        "forward_backward",
        f"f(x0) = P(x0 - eta D(x0), sqrt(eta) s), eta = {paper.ETA_FB}",
        lambda a, i: a.forward_backward(i.case, i.P, i.x0, i.y, paper.ETA_FB),
        1e-4,
        sampled=True,
    ),
    Check(
        "gradient_step",
        "gradient_step",
        f"g(x0) = x0 - eta (D(x0) + s^2 G(x0)), eta = {paper.ETA_GD}",
        lambda a, i: a.gradient_step(i.case, i.G, i.x0, i.y, paper.ETA_GD),
        1e-4,
        sampled=True,
    ),
    Check(
        "descend",
        "descend",
        f"{STEPS} iterates of Adam on the image (lr {LR}, 0.9, 0.999, 1e-8) along D + s^2 T^-1 G T "
        "with the eight transforms in turn, the identity first",
        lambda a, i: a.descend(i.case, i.G, i.x0, i.y, LR, STEPS),
        1e-4,
        sampled=True,
    ),
    Check(
        "psnr",
        "psnr",
        "PSNR of x0, dB: peak value 1, over channels and pixels, no clamp, no border",
        lambda a, i: a.psnr(i.x0, i.x_hat),
        1e-5,
    ),
    Check(
        "ssim",
        "ssim",
        "SSIM of x0: mean over channels, 11x11 Gaussian window of std 1.5, valid area",
        lambda a, i: a.ssim(i.x0, i.x_hat),
        1e-4,
    ),
    Check(
        "loss_link",
        "loss_link",
        "L_link at x~ = x0 - eta D(x0): mean of (eta s^2 G(p) - (x~ - p))^2 with "
        "p = P(x~, sqrt(eta) s)",
        _link,
        1e-4,
    ),
    Check("loss_fb", "loss_fb", "L_FB at x0: mean of (f(x0) - x_hat)^2", _fb, 1e-4),
    Check("loss_gd", "loss_gd", "L_GD at x0: mean of (g(x0) - x_hat)^2", _gd, 1e-4),
    Check(
        "loss_link_gradient",
        "loss_link",
        "gradient of L_link by the weights of P, then of G; x~ is a constant, p is not",
        lambda a, i: _gradient(_link(a, i), i.P, i.G),
        1e-4,
        sampled=True,
    ),
    Check(
        "loss_fb_gradient",
        "loss_fb",
        "gradient of L_FB by the weights of P: one application of f, x0 a constant (JFB)",
        lambda a, i: _gradient(_fb(a, i), i.P),
        1e-4,
        sampled=True,
    ),
    Check(
        "loss_gd_gradient",
        "loss_gd",
        "gradient of L_GD by the weights of G: one step g, x0 a constant (JFB)",
        lambda a, i: _gradient(_gd(a, i), i.G),
        1e-4,
        sampled=True,
    ),
)


class Status(StrEnum):
    """How a comparison ended."""

    AGREES = "agrees"
    DEPARTS = "departs"
    NOT_OFFERED = "not offered"


@dataclass(frozen=True)
class Finding:
    """A check on a case: by how much it departs, of the largest value, and where or why."""

    check: str
    case: str
    status: Status
    deviation: float = 0.0
    detail: str = ""


def compare(
    adapter: object, case: Inputs, expected: Mapping[str, Tensor], *, checks: Sequence[Check]
) -> Iterator[Finding]:
    """Hold an adapter against the kit's tensors of one case, by name of the check."""
    for check in checks:
        if case.case.task not in check.tasks:
            continue
        if not hasattr(adapter, check.method):
            yield Finding(check.name, case.case.name, Status.NOT_OFFERED)
            continue
        try:
            found = check.value(adapter, case)
        except NotImplementedError as error:
            yield Finding(check.name, case.case.name, Status.NOT_OFFERED, detail=str(error))
        except Exception as error:  # whatever a stranger's code may raise
            told = " ".join(str(error).split())[:200]
            detail = f"it raises {type(error).__name__}: {told}"
            yield Finding(check.name, case.case.name, Status.DEPARTS, float("inf"), detail)
        else:
            yield _judged(check, case.case.name, found, expected[check.name])


def _judged(check: Check, case: str, found: Tensor, expected: Tensor) -> Finding:
    found = found.cpu().to(torch.float64)
    if found.squeeze().shape == expected.squeeze().shape:
        found = found.reshape(expected.shape)
    if found.shape != expected.shape:
        sampled = f", of every {EVERY}th row and column" if check.sampled else ""
        detail = f"its shape is {tuple(found.shape)} instead of {tuple(expected.shape)}{sampled}"
        return Finding(check.name, case, Status.DEPARTS, float("inf"), detail)
    difference = (found - expected.double()).abs().nan_to_num(nan=torch.inf)
    scale = max(expected.abs().max().item(), torch.finfo(torch.float32).tiny)
    deviation = difference.max().item() / scale
    if deviation <= check.tolerance:
        return Finding(check.name, case, Status.AGREES, deviation)
    at = torch.unravel_index(difference.argmax(), difference.shape)
    place = f" at {_place(check, at)}" if expected.numel() > 1 else ""
    detail = f"{found[at].item():.6g} instead of {expected[at].item():.6g}{place}"
    return Finding(check.name, case, Status.DEPARTS, deviation, detail)


def _place(check: Check, at: Sequence[Tensor]) -> list[int]:
    """The index in the whole tensor, of which images are sampled along two axes."""
    index = [int(i) for i in at]
    return index[:-2] + [EVERY * i for i in index[-2:]] if check.sampled else index
