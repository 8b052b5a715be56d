from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rglib.core.fixed_point import Adam, Picard, SemiImplicit, StoppingRule, solve
from rglib.core.kept import Keep, KeptIterates, Pool
from rglib.core.maps import RegularizedGradient
from rglib.core.operators import Mask
from rglib.core.problems import DataGradient

KEEPS = st.builds(Keep, batches=st.integers(1, 9), visits=st.integers(1, 7))


def linear(G=lambda x: 2 * x, sigma=0.3):
    """D + sigma^2 G of a mask, and its zero in closed form where G doubles."""
    mask = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    y = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * mask
    return RegularizedGradient(G, DataGradient(Mask(mask), y), sigma), y / (mask + 2 * sigma**2)


# --- which batch is visited when ------------------------------------------------------------------


@given(keep=KEEPS)
def test_every_batch_is_drawn_at_its_first_visit_and_visited_in_every_round(keep):
    visits = {}
    for step in range(keep.batches * keep.visits * 3):
        visits.setdefault(keep.drawn_at(step), []).append(step)
    for drawn_at, steps in visits.items():
        assert steps[0] == drawn_at
        assert steps == list(range(drawn_at, steps[-1] + 1, keep.batches))
        assert len(steps) <= keep.visits


@given(keep=KEEPS)
def test_after_the_first_ones_batches_are_visited_as_often_as_asked_for(keep):
    steps = range(keep.batches * keep.visits * 4)
    drawn = [keep.drawn_at(step) for step in steps]
    middle = [at for at in set(drawn) if keep.batches * keep.visits <= at < 2 * len(steps) // 4]
    assert middle and all(drawn.count(at) == keep.visits for at in middle)


@given(keep=KEEPS, step=st.integers(0, 500))
def test_the_last_visit_is_followed_by_another_batch(keep, step):
    following = keep.drawn_at(step + keep.batches)
    assert keep.last_visit(step) == (following != keep.drawn_at(step))


def test_the_places_of_the_pool_are_not_filled_anew_all_at_once():
    keep = Keep(batches=64, visits=16)
    for turn in range(16, 40):
        steps = range(turn * 64, (turn + 1) * 64)
        assert sum(keep.drawn_at(step) == step for step in steps) == 4  # 64 / 16


# --- iterates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [SemiImplicit(), Adam(lr=0.05)])
def test_iterates_that_are_kept_are_those_that_never_stopped(solver):
    F, _ = linear()
    x0 = F.D.y
    kept = KeptIterates(Keep(first_steps=5, steps=2))
    for _ in range(4):
        x, _, lost = kept.advance("g", solver, F, x0)
    whole = solve(solver, F, x0, StoppingRule(max_iterations=5 + 3 * 2, tolerance=0))
    assert torch.equal(x, whole.x) and not lost.any()


def test_visits_lead_to_the_zero_although_the_map_changes_on_the_way():
    kept = KeptIterates(Keep(first_steps=24, steps=3))
    for visit in range(30):
        F, zero = linear(lambda x, visit=visit: 2 * x * (1 + 0.5**visit))
        x, _, _ = kept.advance("g", SemiImplicit(), F, F.D.y)
    torch.testing.assert_close(x, zero, atol=1e-4, rtol=0)


def test_iterates_of_two_names_do_not_meet():
    F, zero = linear()
    kept = KeptIterates(Keep(first_steps=200, steps=1))
    x_g, _, _ = kept.advance("g", SemiImplicit(), F, F.D.y)
    x_f, _, _ = kept.advance("f", Picard(), lambda z: 0.5 * z, F.D.y)
    torch.testing.assert_close(x_g, zero, atol=1e-5, rtol=0)
    assert x_f.abs().max() < 1e-6


@dataclass(frozen=True)
class Explodes:
    """G, but not finite or too large for the images where the mask says so."""

    images: torch.Tensor
    value: float

    def __call__(self, x):
        return torch.where(self.images.view(-1, 1, 1, 1), self.value, 2 * x)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e6])
def test_an_image_that_is_lost_starts_again_alone(value):
    solver, which = SemiImplicit(), torch.tensor([False, True, False])
    healthy, _ = linear()
    x0 = healthy.D.y
    begun = {"x": x0, **solver.fields(solver.init(healthy, x0))}
    kept, alone = (KeptIterates(Keep(steps=1), {"g": begun}) for _ in range(2))
    x, state, lost = kept.advance("g", solver, replace(healthy, G=Explodes(which, value)), x0)
    expected, _, _ = alone.advance("g", solver, healthy, x0)
    assert torch.equal(lost, which)
    assert torch.equal(x[which], x0[which]) and torch.equal(state.previous[which], x0[which])
    assert torch.equal(x[~which], expected[~which])


def test_adam_forgets_the_moments_of_what_starts_again():
    solver, x0 = Adam(lr=0.1), torch.zeros(2, 3, 4, 4)
    _, state = solver.step(lambda x: x + 1, x0, solver.init(None, x0))
    again = solver.restarted(state, x0, torch.tensor([True, False]).view(-1, 1, 1, 1))
    assert not again.mean[0].any() and not again.square[0].any()
    assert torch.equal(again.mean[1], state.mean[1]) and again.count == 1


# --- the pool -------------------------------------------------------------------------------------


def draw(step):
    return torch.full((2, 3, 4, 4), float(step))


def visit(pool, step):
    """As an objective does it: the iterates are a running sum that tells the visits apart."""
    drawn_at, images, kept = pool.visit(step, draw)
    x, _, _ = kept.advance("f", Picard(), lambda z: z / 2 + step, images)
    return drawn_at, images, x


def test_a_pool_that_was_saved_goes_on_with_the_same_bits():
    keep = Keep(batches=3, visits=4, first_steps=2, steps=1)
    whole = Pool(keep)
    expected = [visit(whole, step) for step in range(40)]
    for cut in (1, 5, 11, 23):
        first, second = Pool(keep), Pool(keep)
        for step in range(cut):
            visit(first, step)
        second.load(first.state(torch.clone), torch.clone)
        for step in range(cut, 40):
            ours = visit(second, step)
            assert ours[0] == expected[step][0]
            assert torch.equal(ours[1], expected[step][1])
            assert torch.equal(ours[2], expected[step][2])


def test_a_pool_forgets_batches_that_are_not_visited_again():
    pool = Pool(Keep(batches=4, visits=3, first_steps=1, steps=1))
    for step in range(100):
        visit(pool, step)
        assert len(pool.living) <= 4 and len(pool.images) <= 4
