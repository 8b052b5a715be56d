"""DRUNet, the proximal operator P and the regularizing gradient G, and their weights on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rglib import paper
from rglib.core import fused
from rglib.core.state_dicts import WeightsError as WeightsError
from rglib.core.state_dicts import mismatch, named_as, read_state_dict
from rglib.extensions import make
from rglib.files import file_digest, replacing

HEAD = "m_head.weight"  # of the first convolution, whose last input of a P is the noise map
PAD_TO = 16  # the released PnP-ReG code pads to multiples of 16; 8 would do


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), bias-free 3x3, nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res = nn.Sequential(_conv3(width, width), nn.ReLU(inplace=True), _conv3(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        first, second = (part.weight for part in self.res if isinstance(part, nn.Conv2d))
        if fused.possible(x, first):
            return fused.conv3_plus(fused.conv3_relu(x, first), second, x)
        y: Tensor = self.res(x)
        return y.add_(x)  # in place: a fresh image-sized tensor costs more than the sum


class DRUNet(nn.Module):
    """The bias-free U-Net of residual blocks of DPIR, with KAIR's names of weights.

    Images are float32 (B, C, H, W) of any size: they are replicate-padded at the bottom and the
    right to multiples of 16 and the result is cropped. ``arithmetic`` is the number format inside;
    the output is always float32.
    """

    in_channels: ClassVar[int]
    ends_in_float32: ClassVar[bool]  # the last convolution, whatever the arithmetic

    def __init__(
        self,
        *,
        widths: Sequence[int] = paper.WIDTHS,
        blocks: int = paper.BLOCKS,
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"a DRUNet has four widths, got {list(widths)}")
        w1, w2, w3, w4 = widths
        self.arithmetic = arithmetic
        self.m_head = _conv3(self.in_channels, w1)
        self.m_down1 = _down(w1, w2, blocks)
        self.m_down2 = _down(w2, w3, blocks)
        self.m_down3 = _down(w3, w4, blocks)
        self.m_body = nn.Sequential(*_blocks(w4, blocks))
        self.m_up3 = _up(w4, w3, blocks)
        self.m_up2 = _up(w3, w2, blocks)
        self.m_up1 = _up(w2, w1, blocks)
        self.m_tail = _conv3(w1, 3)
        channels_last(self)

    def unet(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 3, H, W) float32."""
        height, width = x.shape[-2:]
        padding = (0, -width % PAD_TO, 0, -height % PAD_TO)
        if any(padding):  # torch.compile mistakes the memory layout of padding by nothing
            x = functional.pad(x, padding, mode="replicate")
        device = x.device.type
        x = x.to(self.m_head.weight.dtype, memory_format=torch.channels_last)
        low = self.arithmetic != torch.float32
        with torch.autocast(device, dtype=self.arithmetic if low else None, enabled=low):
            x1 = self.m_head(x)
            x2 = self.m_down1(x1)
            x3 = self.m_down2(x2)
            x4 = self.m_down3(x3)
            x = self.m_body(x4)
            x = self.m_up3(x.add_(x4))
            x = self.m_up2(x.add_(x3))
            x = self.m_up1(x.add_(x2))
            x = x.add_(x1)
        with torch.autocast(device, enabled=False):
            x = self.m_tail(x.to(self.m_tail.weight.dtype)).float()
        return x[..., :height, :width]


class ProximalOperator(DRUNet):
    """P, the Gaussian denoiser: RGB and a constant map of the noise std -> RGB."""

    in_channels = 4
    ends_in_float32 = True  # bfloat16 would round an image to 8 bits

    def forward(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """P_{sigma^2}(z) for z (B, 3, H, W) and sigma the noise std on [0, 1], one or (B,)."""
        if not isinstance(sigma, Tensor):
            sigma = z.new_full((1,), sigma)  # a number sent to a GPU would be waited for
        noise_map = sigma.to(z).reshape(-1, 1, 1, 1).expand(len(z), 1, *z.shape[-2:])
        return self.unet(torch.cat((z, noise_map), dim=1))


class RegularizingGradient(DRUNet):
    """G, the gradient of the implicit regularizer: RGB -> RGB, without sigma and without y."""

    in_channels = 3
    ends_in_float32 = False  # what is rounded is a step, which is small beside the image

    def forward(self, x: Tensor) -> Tensor:
        """G(x) for x (B, 3, H, W)."""
        return self.unet(x)


NETWORKS: dict[str, type[DRUNet]] = {"P": ProximalOperator, "G": RegularizingGradient}


def build(
    role: str,
    *,
    widths: Sequence[int],
    blocks: int,
    P: str | None = None,
    G: str | None = None,
    arithmetic: torch.dtype = torch.float32,
) -> nn.Module:
    """A network for the role "P" or "G" with PyTorch's default initialisation.

    ``P`` and ``G`` name modules of your own instead of the DRUNets, as ``module:Class``; of
    widths, blocks and arithmetic a class is given those that it has parameters for.

    Raises:
        ExtensionError: yours cannot be made.
    """
    own = {"P": P, "G": G}[role]
    if own is None:
        return NETWORKS[role](widths=widths, blocks=blocks, arithmetic=arithmetic)
    size = {"widths": widths, "blocks": blocks, "arithmetic": arithmetic}
    network: nn.Module = make(own, {}, given=size)
    return network


def orthogonal_(network: nn.Module, *, gain: float = 0.2) -> None:
    """KAIR's initialisation of a Gaussian denoiser: every convolution orthogonal, gain 0.2."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # a plain tensor first: PyTorch cannot do it on channels-last weights
            weight = nn.init.orthogonal_(torch.empty(module.weight.shape), gain=gain)
            module.weight.data.copy_(weight)


def channels_last(network: nn.Module) -> None:
    """Weights in the layout that convolutions are fastest in, in place."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot it


def for_inference(network: nn.Module, device: torch.device, *, compiled: bool = False) -> nn.Module:
    """The network on the device and not trainable; a DRUNet's weights in its arithmetic.

    But for the last convolution of one that `DRUNet.ends_in_float32`.
    ``compiled`` has torch.compile fuse it, at the first image of each size.
    """
    network = network.to(device).eval().requires_grad_(False)
    if isinstance(network, DRUNet):
        channels_last(network.to(dtype=network.arithmetic))
        if network.ends_in_float32:
            network.m_tail.float()
    if compiled:
        network.compile(dynamic=False)
    return network


@dataclass(frozen=True)
class InferenceOnly:
    """A DRUNet in inference mode, where it is faster and nothing can be differentiated.

    What it returns is a tensor like any other, and a constant.
    """

    network: DRUNet

    def __call__(self, *inputs: Any) -> Tensor:
        """What the network returns.

        Raises:
            RuntimeError: torch.func differentiates, and would find that the slope is zero.
        """
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError("in inference mode nothing is differentiated: take `network` itself")
        with torch.inference_mode():
            value: Tensor = self.network(*inputs)
        return value.clone()


def inference_only(network: nn.Module) -> nn.Module | InferenceOnly:
    """A DRUNet in inference mode; one of your own as it is, which may differentiate inside."""
    return InferenceOnly(network) if isinstance(network, DRUNet) else network


def preferred_arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The number format for a ``precision`` of float32, bfloat16 or auto.

    "auto" is bfloat16 where the hardware multiplies it natively, else float32.

    Raises:
        ValueError: any other precision.
    """
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        precision = "bfloat16" if native else "float32"
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in formats:
        raise ValueError(f"precision: {precision!r}; allowed: auto, float32, bfloat16")
    return formats[precision]


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, beside the target first and then renamed."""
    from safetensors.torch import save

    plain = {name: tensor.contiguous().cpu() for name, tensor in weights.items()}
    with replacing(path) as partial:
        partial.write_bytes(save(plain))  # save_file would make it unreadable for others


def load_weights(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict, float32, see `rglib.core.state_dicts`.

    Raises:
        WeightsError: the file is missing, has another checksum, is damaged, holds no state dict or
            several, tensors that are not dense, or values that are not finite.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if sha256 and (found := file_digest(path)) != sha256:
        raise WeightsError(f"{path}: sha256 is {found}, expected {sha256}")
    weights = read_state_dict(path)
    for name, tensor in weights.items():
        plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)
        if not plain or tensor.is_complex():
            raise WeightsError(f"{path}: {name} is no dense tensor of real numbers")
        if tensor.ndim > 1 and tensor.dtype in (torch.int8, torch.uint8):
            raise WeightsError(f"{path}: {name} is quantized, without its scale; save it as floats")
    numbers = {name: tensor.detach().float() for name, tensor in weights.items()}
    if broken := [name for name, tensor in numbers.items() if not tensor.isfinite().all()]:
        raise WeightsError(f"{path}: {broken[0]} has values that are not finite")
    return numbers


def load_into(network: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Load weights into a network, every name and shape as it has them (a DRUNet KAIR's).

    A prefix of all names, such as ``module.`` or ``denoiser.``, is left out; of a checkpoint of
    several networks it is the one that has them.

    Raises:
        WeightsError: as `load_weights`; or names or shapes belong to another network.
    """
    _fill(network, named_as(network.state_dict(), load_weights(path, sha256=sha256), path), path)


def _fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    if differences := mismatch(weights, network.state_dict()):
        raise WeightsError(f"{path}: weights of another network: {differences}")
    network.load_state_dict(weights, strict=True)


def load_trainable(
    role: str,
    weights: Path,
    *,
    network: Mapping[str, Any],
    arithmetic: torch.dtype = torch.float32,
    sha256: str | None = None,
) -> nn.Module:
    """The network for a role from its weights, on the CPU, to be trained or looked at.

    Args:
        role: "P" or "G".
        weights: the file.
        network: the section of the configuration or of a model card, as `build` takes it.
        arithmetic: the number format inside.
        sha256: that the file must have.

    Raises:
        ExtensionError: a network of your own cannot be made.
        WeightsError: as `load_into`.
    """
    made = build(role, **network, arithmetic=arithmetic)
    load_into(made, weights, sha256=sha256)
    return made


def load_G_from_P(
    weights: Path, *, network: Mapping[str, Any], arithmetic: torch.dtype = torch.float32
) -> nn.Module:
    """G with the layers of a P, to be trained, without the filters of the noise map.

    Both are the same DRUNet but for this map, the last channel of P's input. G does not begin as P
    does, whose output is an image and not noise, but what the layers tell apart is there.

    Raises:
        ExtensionError, WeightsError: as `load_trainable`, whose arguments these are.
    """
    G = build("G", **network, arithmetic=arithmetic)
    found = dict(named_as(G.state_dict(), load_weights(weights), weights))
    if HEAD in found:
        found[HEAD] = found[HEAD][:, :-1]
    _fill(G, found, weights)
    return G


def load_frozen(
    role: str,
    weights: Path,
    *,
    network: Mapping[str, Any],
    device: torch.device,
    precision: str = "float32",
    compiled: bool = False,
) -> nn.Module:
    """The network for a role from its weights, on a device and not trainable, to restore with.

    Args:
        role: "P" or "G".
        weights: the file.
        network: as `load_trainable`.
        device: where it computes.
        precision: auto, float32 or bfloat16, see `preferred_arithmetic`.
        compiled: have torch.compile fuse it, at the first image of each size.

    Raises:
        ExtensionError, WeightsError: as `load_trainable`.
        ValueError: there is no such precision.
    """
    arithmetic = preferred_arithmetic(precision, device)
    made = load_trainable(role, weights, network=network, arithmetic=arithmetic)
    return for_inference(made, device, compiled=compiled)


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(count)]


def _down(width: int, wider: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*_blocks(width, blocks), nn.Conv2d(width, wider, 2, stride=2, bias=False))


def _up(width: int, narrower: int, blocks: int) -> nn.Sequential:
    shrink = nn.ConvTranspose2d(width, narrower, 2, stride=2, bias=False)
    return nn.Sequential(shrink, *_blocks(narrower, blocks))
