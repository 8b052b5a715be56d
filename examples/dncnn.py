"""A plain stack of convolutions as the regularizing gradient: a network of your own."""

from torch import Tensor, nn


class StackedGradient(nn.Module):
    """G(x) of ``depth`` convolutions 3x3 without biases, as wide as the finest scale of a DRUNet.

    Args:
        widths: of the configuration's ``network``; the first is used.
        depth: of the stack, 17 in DnCNN.
    """

    def __init__(self, widths: list[int], depth: int = 5) -> None:
        super().__init__()
        width = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape, float32."""
        return self.layers(x)
