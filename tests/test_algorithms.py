from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from rglib.core.algorithms import (
    DIHEDRAL,
    ADMMSchedule,
    GradientDescent,
    PnPADMM,
    Tiled,
    restore_together,
)
from rglib.core.fixed_point import Adam, SemiImplicit
from rglib.core.interpolation import interpolated
from rglib.core.operators import Blur, Downsample, Identity, Mask
from rglib.core.problems import (
    Completion,
    Deblurring,
    Observation,
    Problem,
    SeededImage,
    SuperResolution,
    observe,
)

# As in the released code, whose flip is flipud after the turn.
TRANSFORMS = (
    lambda x: x,
    lambda x: np.flipud(np.rot90(x)),
    np.flipud,
    lambda x: np.rot90(x, k=3),
    lambda x: np.flipud(np.rot90(x, k=2)),
    np.rot90,
    lambda x: np.rot90(x, k=2),
    lambda x: np.flipud(np.rot90(x, k=3)),
)
INVERSE = {0: 0, 1: 1, 2: 2, 3: 5, 4: 4, 5: 3, 6: 6, 7: 7}


def transformed(x, number):
    """Transform (1, 3, H, W) by NumPy's account of the list."""
    turned = TRANSFORMS[number](x[0].permute(1, 2, 0).numpy()).copy()
    return torch.from_numpy(turned).permute(2, 0, 1)[None]


def photo(height=32, width=36, batch=1):
    """A smooth image, so that a restoration has something to find."""
    coarse = torch.rand(batch, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def ignore(_):
    pass


TASKS = {
    "completion": (Completion(keep=0.2), 0.01, 1.0),
    "deblurring": (Deblurring(sigma_b=1.6, sigma=0.01), 0.004, 2.55),
    "super-resolution": (SuperResolution(2, "bicubic", 0.0), 0.008, 1.2),
}


# --- the x8 ensemble ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(8))
def test_the_transforms_are_the_released_codes_in_its_order(number):
    x = photo(5, 7)
    assert torch.equal(DIHEDRAL[number](x), transformed(x, number))


@pytest.mark.parametrize("number", range(8))
def test_each_transform_has_its_inverse(number):
    x = photo(5, 7)
    assert torch.equal(DIHEDRAL[number].inverse(DIHEDRAL[number](x)), x)
    assert torch.equal(transformed(transformed(x, number), INVERSE[number]), x)
    assert torch.equal(DIHEDRAL[number].inverse(x), transformed(x, INVERSE[number]))


def test_the_eight_transforms_are_all_different():
    x = photo(5, 5)
    for i, first in enumerate(DIHEDRAL):
        assert not any(torch.equal(first(x), other(x)) for other in DIHEDRAL[:i])


# --- gradient descent -----------------------------------------------------------------------------


def released_loop(G, seen, lr, s_255, iterations):
    """The iterates of the released loop, with torch.optim.Adam."""
    A, y = seen.problem.A, seen.y
    x = seen.x0.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=lr)
    iterates = []
    for i in range(iterations):
        iterates.append(x.detach().clone())
        T, T_inverse = i % 8, INVERSE[i % 8]
        with torch.no_grad():
            gradient = A.adjoint(A(x) - y)
            gradient += (s_255 / 255) ** 2 * transformed(G(transformed(x, T)), T_inverse)
        x.grad = gradient
        adam.step()
    return iterates


def run(method, seen):
    """The iterates that a method shows, and what it returns."""
    shown = []
    result = method.restore(seen, lambda x: shown.append(x.clone()))
    assert len(shown) == method.recorded
    return shown, result


@pytest.mark.parametrize("task", TASKS)
def test_gradient_descent_equals_the_papers_loop_with_torchs_adam(task, tiny, in_double):
    # in float64 and with a G that never vanishes: Adam turns a gradient of rounding errors into
    # steps of full length
    degradation, lr, s_255 = TASKS[task]
    weights = tiny("G")
    seen = observe(degradation, photo(), SeededImage())
    A = in_double(seen.problem.A)
    seen = Observation(
        Problem(A, seen.problem.sigma), seen.x_hat.double(), seen.y.double(), seen.x0.double()
    )

    def G(x):
        return 0.5 + weights(x.float()).double()

    shown, result = run(GradientDescent(G, solver=Adam(lr=lr), s=s_255 / 255, iterations=30), seen)
    expected = released_loop(G, seen, lr, s_255, iterations=30)
    assert len(shown) == 30
    for ours, theirs in zip(shown, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert torch.equal(result, shown[-1])
    assert (result - seen.x0).abs().max() > lr


@pytest.mark.parametrize("task", TASKS)
def test_in_float32_the_restorations_agree_in_psnr(task, tiny):
    degradation, lr, s_255 = TASKS[task]
    seen, G = observe(degradation, photo(), SeededImage()), tiny("G")
    shown, _ = run(GradientDescent(G, solver=Adam(lr=lr), s=s_255 / 255, iterations=30), seen)
    for ours, theirs in zip(shown, released_loop(G, seen, lr, s_255, iterations=30), strict=True):
        error = [10 * (x - seen.x_hat).square().mean().log10().item() for x in (ours, theirs)]
        assert error[0] == pytest.approx(error[1], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_over_1500_iterations_the_curves_agree_at_every_one(task, gain, tiny):
    """For any weights: here random ones, and larger ones, over all of the paper's iterations."""
    degradation, lr, s_255 = TASKS[task]
    seen, weights = observe(degradation, photo(), SeededImage()), tiny("G")

    def G(x):
        return gain * weights(x)

    method = GradientDescent(G, solver=Adam(lr=lr), s=s_255 / 255, iterations=1500)
    ours, theirs = [], []
    method.restore(seen, lambda x: ours.append(decibels(x, seen)))
    for x in released_loop(G, seen, lr, s_255, iterations=1500):
        theirs.append(decibels(x, seen))
    assert len(ours) == len(theirs) == 1500
    np.testing.assert_allclose(ours, theirs, atol=0.02, rtol=0)
    assert np.ptp(ours) > 0.1  # neither stands still


def decibels(x, seen):
    return -10 * (x - seen.x_hat).square().mean().log10().item()


@pytest.mark.parametrize("iterations", [1, 2, 9])
def test_the_curve_starts_at_x0_and_has_one_entry_per_iteration(iterations, tiny):
    seen = observe(TASKS["completion"][0], photo(), SeededImage())
    shown, _ = run(
        GradientDescent(tiny("G"), solver=Adam(lr=0.01), s=0.1, iterations=iterations), seen
    )
    assert len(shown) == iterations
    assert torch.equal(shown[0], seen.x0)


def test_the_transform_changes_with_every_step_and_comes_back_after_eight():
    seen = observe(TASKS["completion"][0], photo(6, 6), SeededImage())
    images = []

    def G(x):
        images.append(x.clone())
        return torch.zeros_like(x)

    GradientDescent(G, solver=Adam(lr=0.0), s=0.1, iterations=11).restore(seen, ignore)
    for number, image in enumerate(images):
        assert torch.equal(image, transformed(seen.x0, number % 8))


def test_without_the_ensemble_g_is_applied_as_it_is():
    seen = observe(TASKS["completion"][0], photo(6, 8), SeededImage())
    images = []
    method = GradientDescent(
        lambda x: images.append(x) or 0 * x, solver=Adam(lr=0.0), s=0.1, iterations=9
    )
    replace(method, ensemble=False).restore(seen, ignore)
    assert all(torch.equal(image, seen.x0) for image in images)


def test_gradient_descent_neither_clamps_nor_reimposes_known_pixels():
    seen = observe(Completion(keep=0.5), photo(6, 6), SeededImage())
    x = GradientDescent(torch.ones_like, solver=Adam(lr=0.1), s=3.0, iterations=30).restore(
        seen, ignore
    )
    assert x.min() < 0
    assert not torch.allclose(seen.problem.A(x), seen.y, atol=1e-2)


def test_a_batch_is_restored_as_its_images_are_one_by_one(tiny):
    seen = observe(Deblurring(sigma_b=1.6, sigma=0.01), photo(batch=3), SeededImage())
    method = GradientDescent(tiny("G"), solver=Adam(lr=0.004), s=0.01, iterations=10)
    together = method.restore(seen, ignore)
    for i in range(3):
        one = slice(i, i + 1)
        alone = Observation(seen.problem, seen.x_hat[one], seen.y[one], seen.x0[one])
        torch.testing.assert_close(method.restore(alone, ignore), together[one], atol=1e-4, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_psnr_is_the_same_alone_or_in_a_batch(task, tiny):
    degradation, lr, s_255 = TASKS[task]
    method = GradientDescent(tiny("G"), solver=Adam(lr=lr), s=s_255 / 255, iterations=60)
    images = [observe(degradation, x[None], SeededImage()) for x in photo(batch=3)]
    batch = observe(degradation, photo(batch=3), SeededImage())  # for an operator of this batch
    A = batch.problem.A
    if isinstance(A, Mask):
        A = Mask(torch.cat([seen.problem.A.mask for seen in images]))
    x_hat, y, x0 = (
        torch.cat([getattr(seen, name) for seen in images]) for name in ("x_hat", "y", "x0")
    )
    together = Observation(Problem(A, batch.problem.sigma), x_hat, y, x0)
    x = method.restore(together, ignore)
    for i, seen in enumerate(images):
        alone = decibels(method.restore(seen, ignore), seen)
        assert decibels(x[i : i + 1], seen) == pytest.approx(alone, abs=1e-5)


def test_adams_defaults_are_torchs():
    theirs = torch.optim.Adam([torch.zeros(1)]).defaults
    ours = Adam(lr=1.0)
    assert (ours.beta1, ours.beta2, ours.epsilon) == (*theirs["betas"], theirs["eps"])


# --- PnP-ADMM -------------------------------------------------------------------------------------


def plain_admm(P, seen, plan, matrix):
    """The outputs of P in PnP-ADMM, in float64 and with A as a matrix on (3, H, W)."""
    shape, noiseless_mask = seen.x0.shape, None
    if isinstance(seen.problem.A, Mask) and seen.problem.sigma == 0:
        noiseless_mask = seen.problem.A.mask.bool()
    y, x = seen.y.double().flatten(), seen.x0.double()
    w = max(seen.problem.sigma, plan.sigma_min)
    N, rho = plan.iterations, (w / plan.sigma_first) ** 2
    alpha = (plan.sigma_first / plan.sigma_last) ** (2 / (N - 1))
    dual, outputs = torch.zeros_like(x), []
    for i in range(1, N + 1):
        u = (x - dual / rho).flatten()
        hessian = matrix.T @ matrix + rho * torch.eye(len(u))
        v = torch.linalg.solve(hessian, matrix.T @ y + rho * u).view(shape)
        T = (i - 1) % 8
        x = transformed(P(transformed(v + dual / rho, T), w / rho**0.5), INVERSE[T])
        if noiseless_mask is not None:
            x = torch.where(noiseless_mask, seen.y.double(), x)
        outputs.append(x)
        dual = dual + rho * (v - x)
        rho = alpha * rho
    return outputs


SMALL = {
    "completion": lambda: Completion(keep=0.4).operator((1, 3, 6, 8), SeededImage()),
    "deblurring": lambda: Blur.from_kernel(torch.full((3, 5), 1 / 15), height=6, width=8),
    "super-resolution": lambda: Downsample.by(2, kernel="bicubic", height=6, width=8),
}


def smoothing(z, sigma):
    """A non-linear denoiser, different along the two axes, whose strength is sigma."""
    neighbours = (2 * z.roll(1, -1) + z.roll(-1, -1) + z.roll(1, -2)) / 4
    return z + torch.tanh(3 * sigma * (neighbours - z))


@pytest.mark.parametrize("task", SMALL)
@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_pnp_admm_equals_its_plain_loop_in_float64(task, sigma, dense):
    A, x_hat = SMALL[task](), photo(6, 8)
    noise = torch.randn(A(x_hat).shape, generator=torch.Generator().manual_seed(0))
    seen = Observation(Problem(A, sigma), x_hat, A(x_hat) + sigma * noise, 0.5 + 0 * x_hat)
    plan = ADMMSchedule(iterations=12, sigma_first=0.5, sigma_last=0.01, sigma_min=0.001)
    shown, result = run(PnPADMM(smoothing, plan), seen)
    expected = plain_admm(smoothing, seen, plan, dense(A, (3, 6, 8)))
    assert torch.equal(shown[0], seen.x0)
    for ours, theirs in zip(shown[1:], expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-4, rtol=0)
    assert torch.equal(result, shown[-1])


def test_the_denoisers_strength_goes_from_the_first_sigma_to_the_last_geometrically():
    told = []
    plan = ADMMSchedule(iterations=5, sigma_first=0.2, sigma_last=0.01, sigma_min=0.001)
    seen = observe(Completion(keep=0.5), photo(6, 6), SeededImage())
    PnPADMM(lambda z, sigma: told.append(sigma) or z, plan).restore(seen, ignore)
    np.testing.assert_allclose(told, np.geomspace(0.2, 0.01, 5))


@pytest.mark.parametrize("task", SMALL)
def test_with_a_constant_penalty_and_a_linear_prior_admm_ends_at_the_map_estimate(
    task, linear_prior, in_double, dense
):
    A, prior, sigma = in_double(SMALL[task]()), linear_prior(144), 0.8
    y = A(photo(6, 8).double())
    seen = Observation(Problem(A, sigma), photo(6, 8).double(), y, 0 * photo(6, 8).double())
    plan = ADMMSchedule(iterations=400, sigma_first=0.8, sigma_last=0.8, sigma_min=0.001)
    x = PnPADMM(prior.P, plan, ensemble=False).restore(seen, ignore)
    expected = prior.minimiser(dense(A, (3, 6, 8)), y, sigma)
    torch.testing.assert_close(x.flatten(1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("keep", [0.01, 0.2, 1.0])
def test_noiseless_completion_keeps_known_pixels(keep, tiny):
    seen = observe(Completion(keep=keep), photo(), SeededImage())
    plan = ADMMSchedule(iterations=6, sigma_first=1, sigma_last=1 / 255, sigma_min=0.001)
    for x in run(PnPADMM(tiny("P"), plan), seen)[0]:
        assert torch.equal(seen.problem.A(x), seen.y)


def test_noisy_completion_lets_known_pixels_move(tiny):
    seen = observe(Completion(keep=0.2, sigma=0.1), photo(), SeededImage())
    plan = ADMMSchedule(iterations=6, sigma_first=1, sigma_last=0.1, sigma_min=0.001)
    x = PnPADMM(tiny("P"), plan).restore(seen, ignore)
    assert not torch.allclose(seen.problem.A(x), seen.problem.A(seen.y), atol=1e-3)


# --- tiles ----------------------------------------------------------------------------------------


def released_tiles(G, x, above):
    """The released code: quarters with 32 pixels and more beyond the middle, as slices."""
    height, width = x.shape[-2:]
    if height * width <= above:
        return G(x)
    tall, wide = ((side // 2 // 32 + 1) * 32 for side in (height, width))
    inner = G if height * width <= 4 * above else lambda part: released_tiles(G, part, above)
    upper, lower = x[..., :tall, :], x[..., height - tall :, :]
    left = [inner(half[..., :wide]) for half in (upper, lower)]
    right = [inner(half[..., width - wide :]) for half in (upper, lower)]
    rows = [
        torch.cat((a[..., : width // 2], b[..., -(width - width // 2) :]), dim=-1)
        for a, b in zip(left, right, strict=True)
    ]
    return torch.cat(
        (rows[0][..., : height // 2, :], rows[1][..., -(height - height // 2) :, :]), -2
    )


@pytest.mark.parametrize("size", [(96, 96), (97, 130), (150, 64), (64, 64)])
@pytest.mark.parametrize("above", [1500, 4096, 100_000])
def test_tiles_are_the_released_codes(size, above, tiny):
    x, G = photo(*size), tiny("G")
    seen = []

    def spy(part):
        seen.append(tuple(part.shape[-2:]))
        return G(part)

    torch.testing.assert_close(Tiled(spy, above)(x), released_tiles(G, x, above))
    pixels = size[0] * size[1]
    assert len(seen) == 1 if pixels <= above else len(seen) >= 4


def test_tiles_of_a_function_of_each_pixel_leave_no_seam():
    x = photo(100, 120)
    assert torch.equal(Tiled(torch.sin, 2000)(x), torch.sin(x))


def test_tiles_change_a_restoration_only_above_their_size(tiny):
    seen = observe(Completion(keep=0.2), photo(96, 96), SeededImage())
    method = GradientDescent(tiny("G"), solver=Adam(lr=0.01), s=0.5, iterations=6)
    whole = method.restore(seen, ignore)
    assert torch.equal(replace(method, tile_above=96 * 96).restore(seen, ignore), whole)
    assert not torch.equal(replace(method, tile_above=96 * 96 - 1).restore(seen, ignore), whole)


# --- where it begins ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "lr", "s"), TASKS.values(), ids=TASKS)
def test_completion_alone_can_begin_from_an_interpolation(kind, lr, s, tiny):
    seen = observe(kind, photo(64, 64), SeededImage())
    plan = ADMMSchedule(iterations=2, sigma_first=0.2, sigma_last=0.02, sigma_min=0.001)
    for method in (
        GradientDescent(tiny("G"), solver=Adam(lr=lr), s=s / 255, iterations=3),
        PnPADMM(tiny("P"), plan),
    ):
        released, _ = run(method, seen)
        assert torch.equal(released[0], seen.x0)
        begun = run(replace(method, x0="interpolated"), seen)[0][0]
        if not isinstance(kind, Completion):
            assert torch.equal(begun, seen.x0)
            continue
        mask = seen.problem.A.mask
        assert torch.equal(begun, interpolated(seen.y, mask, otherwise=0.5))
        assert torch.equal(mask * begun, mask * seen.x_hat)
        nearer = [(x - seen.x_hat).square().mean() for x in (begun, seen.x0)]
        assert nearer[0] < 0.1 * nearer[1]


def test_completion_ends_at_one_zero_wherever_it_begins(linear_prior, in_double):
    """G = Q: the zero is known, and an interpolation is only a way to it."""
    prior, truth = linear_prior(3 * 6 * 6), photo(6, 6).double()
    mask = in_double(Mask((torch.rand(1, 1, 6, 6, generator=torch.Generator()) < 0.5).float()))
    x0 = torch.where(mask.mask.bool(), truth, 0.5)
    seen = Observation(Problem(mask, 0.0), truth, mask(truth), x0)
    method = GradientDescent(
        prior.G, solver=SemiImplicit(), s=0.7, iterations=400, ensemble=False, average=True
    )
    A = torch.diag(mask.mask.expand_as(truth).flatten())
    expected = prior.minimiser(A, seen.y, 0.7)
    for start in ("released", "interpolated"):
        _, x = run(replace(method, x0=start), seen)
        torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-6)


# --- several images at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("solver", [Adam(lr=0.01), SemiImplicit()])
def test_images_of_several_problems_are_restored_together_as_alone(solver, in_double):
    kinds = (*(kind for kind, _, _ in TASKS.values()), SuperResolution(3, "gaussian", 0.01))
    images = photo(48, 48, batch=4).split(1)
    seen = []
    for kind, image in zip(kinds, images, strict=True):
        one = observe(kind, image, SeededImage())
        problem = Problem(in_double(one.problem.A), one.problem.sigma)
        seen.append(Observation(problem, image, one.y.double(), one.x0.double()))

    def G(x):
        return x + torch.sin(5 * x).roll(1, dims=-1)  # smooth, and no pixel for itself

    methods = [GradientDescent(G, solver=solver, s=0.1 + i / 10, iterations=12) for i in range(4)]
    shown = []
    together = restore_together(methods, seen, lambda x: shown.append(x.clone()))
    assert len(shown) == 12
    for i, (method, one) in enumerate(zip(methods, seen, strict=True)):
        alone, last = run(method, one)
        torch.testing.assert_close(together[i : i + 1], last, rtol=0, atol=1e-9)
        torch.testing.assert_close(shown[5][i : i + 1], alone[5], rtol=0, atol=1e-9)


def test_descents_are_alike_but_for_s(tiny):
    method = GradientDescent(tiny("G"), solver=Adam(lr=0.01), s=0.1)
    assert method.alike(replace(method, s=0.2))
    assert not method.alike(replace(method, solver=Adam(lr=0.02)))
    assert not method.alike(replace(method, tolerance=1e-7))
    assert not method.alike(replace(method, G=tiny("G", seed=1)))


def test_an_image_that_has_arrived_rests(linear_prior):
    """A = I and G = Q: the zero is known; G sees no image any more that has come near to it."""
    prior, truth = linear_prior(3 * 6 * 6), photo(6, 6).double()
    truth = torch.cat((truth, 0 * truth))
    seen = Observation(Problem(Identity(), 0.0), truth, truth, truth.clone())
    asked = []

    def G(x):
        asked.append(len(x))
        return prior.G(x)

    method = GradientDescent(
        G, solver=SemiImplicit(), s=0.7, iterations=400, ensemble=False, tolerance=1e-16
    )
    shown, x = run(method, seen)
    assert len(shown) == 400
    assert asked[:17] == [2] * 17  # nine for the slope, and the first round of eight
    assert asked[17] == 1  # the second image began at its zero
    assert len(asked) < 200
    expected = prior.minimiser(torch.eye(108, dtype=torch.float64), truth, 0.7)
    torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-6)
    assert torch.equal(shown[-1], shown[-100])


def test_without_a_tolerance_nothing_rests(tiny):
    seen = observe(Completion(keep=0.2), photo(), SeededImage())
    asked = []
    network = tiny("G")

    def G(x):
        asked.append(len(x))
        return network(x)

    GradientDescent(G, solver=Adam(lr=0.0), s=0.1, iterations=30).restore(seen, ignore)
    assert asked == [1] * 29


def test_the_average_is_of_the_last_eight_iterates(tiny):
    seen = observe(Completion(keep=0.2), photo(), SeededImage())
    method = GradientDescent(tiny("G"), solver=Adam(lr=0.01), s=0.5, iterations=21)
    plain, _ = run(method, seen)
    averaged, last = run(replace(method, average=True), seen)
    assert torch.equal(averaged[0], plain[0])
    for k in (1, 3, 8, 20):
        expected = torch.stack(plain[1 : k + 1][-8:]).mean(dim=0)
        torch.testing.assert_close(averaged[k], expected)
    assert torch.equal(averaged[-1], last)


def test_an_averaged_image_leaves_once_a_round_moves_the_average_by_less(linear_prior):
    prior, truth = linear_prior(3 * 6 * 6), photo(6, 6).double()
    truth = torch.cat((truth, truth / 1e6))
    seen = Observation(Problem(Identity(), 0.0), truth, truth, 5 * truth)
    method = GradientDescent(
        prior.G, solver=SemiImplicit(), s=0.7, iterations=120, ensemble=False, tolerance=1e-9
    )
    plain, _ = run(replace(method, tolerance=None), seen)
    averaged, last = run(replace(method, average=True), seen)
    means = [plain[0], *(torch.stack(plain[k - 7 : k + 1]).mean(dim=0) for k in range(8, 120, 8))]
    ends = []
    for image in range(2):
        moved = [(after - before)[image].square().mean() for before, after in pairwise(means)]
        rounds = next(i for i, one in enumerate(moved, 1) if one < method.tolerance)
        torch.testing.assert_close(last[image], means[rounds][image])
        assert torch.equal(averaged[8 * rounds][image], last[image])
        ends.append(rounds)
    assert ends[0] > ends[1]  # the first image goes on
