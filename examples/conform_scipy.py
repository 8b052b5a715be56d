"""The operators, noise and masks of the protocol with NumPy and SciPy, for `rglib conform`."""

import numpy as np
from scipy import ndimage


class Adapter:
    """Of the methods of `rglib.conformance.reference.Reference`, those that concern data."""

    def mask(self, case):
        keep = {"completion80": 0.2, "completion90": 0.1}[case.name]
        np.random.seed(0)
        return np.random.uniform(size=(case.height, case.width)) > 1 - keep

    def kernel(self, case):
        if case.name == "deblur_lopsided":
            return case.kernel.numpy()
        if case.task == "deblurring":
            std, x = float(case.name[-3:]), np.arange(-12, 13)
            kernel = np.exp(-(x**2 + x[:, None] ** 2) / (2 * std**2))
        else:
            x = np.arange(len(case.kernel)) + case.first - (case.factor - 1) / 2
            h = cubic if "bicubic" in case.name else lambda x: np.exp(-2 * x**2)
            kernel = h(np.abs(x / case.factor))
        return kernel / kernel.sum()

    def forward(self, case, x):
        if case.task == "completion":
            return self.mask(case) * x.numpy()
        kernel = self.kernel(case)
        if case.task == "deblurring":
            return ndimage.convolve(x.numpy(), kernel[None, None], mode="wrap")
        for axis in (2, 3):
            origin = -case.first - len(kernel) // 2
            x = ndimage.correlate1d(x, kernel, axis=axis, mode="wrap", origin=origin)
        return x[..., :: case.factor, :: case.factor]

    def observe(self, case, x_hat):
        y = self.forward(case, x_hat)
        np.random.seed(0)
        return y + case.sigma * np.random.normal(size=y.shape)

    def psnr(self, x, x_hat):
        return -10 * np.log10(np.mean((x - x_hat).numpy() ** 2))


def cubic(x, a=-0.75):
    """Keys' cubic kernel for x >= 0."""
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
