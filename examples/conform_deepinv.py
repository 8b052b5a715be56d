"""deepinv's own operators, data fidelity and DRUNet, for `rglib conform`. Needs deepinv."""

import deepinv
import torch
from deepinv.physics import BlurFFT, Downsampling, Inpainting


class Operators:
    """In float64, since deepinv's closed form of the prox divides by rho."""

    def kernel(self, case):
        if case.name not in ("deblur_s1.6", "deblur_s2.0"):
            raise NotImplementedError("deepinv has no such kernel of its own")
        std = float(case.name[-3:])
        blur = deepinv.physics.functional.gaussian_blur
        return blur(psf_size=(25, 25), sigma=(std, std), dtype=torch.float64)[0, 0]

    def forward(self, case, x):
        return physics(case).A(x.double())

    def adjoint(self, case, y):
        return physics(case).A_adjoint(y.double())

    def data_gradient(self, case, x, y):
        return deepinv.optim.L2().grad(x.double(), y.double(), physics(case))

    def prox(self, case, u, y, rho):
        return physics(case).prox_l2(u.double(), y.double(), 1 / rho)

    def proximal_operator(self, weights, z, sigma):
        network = deepinv.models.DRUNet(3, 3, nc=[2, 2, 3, 3], nb=2, pretrained=None)
        network.load_state_dict(weights)
        return network(z, sigma)

    def psnr(self, x, x_hat):
        return deepinv.metric.PSNR()(x, x_hat)


def physics(case):
    """The operator of a case with its mask or kernel."""
    size = (3, case.height, case.width)
    if case.task == "completion":
        return Inpainting(size, mask=case.mask.double())
    if case.task == "deblurring":
        return BlurFFT(size, filter=case.kernel[None, None])
    # theirs is a convolution centred on its middle tap: mirrored, with zeros at one end
    middle = max(-case.first, case.first + len(case.kernel) - 1)
    profile = torch.zeros(2 * middle + 1, dtype=torch.float64)
    profile[middle - case.first - torch.arange(len(case.kernel))] = case.kernel
    square = (profile[:, None] * profile)[None, None]
    return Downsampling(img_size=size, filter=square, factor=case.factor, padding="circular")
