import pytest
import torch
from nst_service.engine.network.layers import WHOLE, Window
from nst_service.engine.objective.losses import StyleLoss
from nst_service.engine.objective.statistics import (
    GramStatistic,
    MomentsStatistic,
    Region,
    SlicedProjectionsStatistic,
    StyleStatistic,
    _rooted_by_eigenvalues,
    _rooted_by_products,
)
from nst_service.engine.sizes import Shape


def features(seed: int, channels: int = 8, height: int = 9, width: int = 11) -> torch.Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def whole(x: torch.Tensor) -> Region:
    return Region.whole(Shape.of(x))


def gram_matrix(x: torch.Tensor) -> torch.Tensor:
    return GramStatistic().gather(x, whole(x), WHOLE)


def statistics() -> list[StyleStatistic]:
    basis, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    return [GramStatistic(), MomentsStatistic(), SlicedProjectionsStatistic(basis[:, :4].contiguous())]


@pytest.mark.parametrize("statistic", statistics(), ids=lambda statistic: type(statistic).__name__)
class TestEveryStyleStatistic:
    def test_the_distance_is_zero_at_the_target_and_falls_towards_it(self, statistic: StyleStatistic):
        here, target = (statistic.gather(f, whole(f), WHOLE) for f in (features(1), 2 * features(2) ** 2))
        aim = statistic.blend([(target, 1.0)])
        distance = statistic.distance_to(aim)
        assert distance(target).item() == pytest.approx(0, abs=1e-5)
        assert distance(here).item() > 1e-4

    def test_the_gradient_is_the_derivative_of_the_distance(self, statistic: StyleStatistic):
        target = features(2)
        region = whole(target)
        loss = StyleLoss(
            "relu1_1", 1.0, statistic, statistic.blend([(statistic.gather(target, region, WHOLE), 1.0)]), region
        )

        def value(x: torch.Tensor) -> torch.Tensor:
            return loss.value(loss.gather(x, WHOLE))

        x = features(1).requires_grad_()
        (gradient,) = torch.autograd.grad(value(x), x)
        step = 1e-2 * gradient / gradient.norm()
        with torch.no_grad():
            derivative = (value(x + step) - value(x - step)).item() / 2
        assert derivative == pytest.approx((gradient * step).sum().item(), rel=0.02)

    def test_parts_combine_to_the_whole(self, statistic: StyleStatistic):
        x = features(1)
        region = whole(x)
        windows = [
            Window(slice(0, 4), slice(None)),
            Window(slice(4, None), slice(0, 5)),
            Window(slice(4, None), slice(5, None)),
        ]
        parts = [statistic.gather(x[(..., *window)], region, window) for window in windows]
        aim = statistic.distance_to(statistic.blend([(statistic.gather(features(2), region, WHOLE), 1.0)]))
        torch.testing.assert_close(aim(statistic.combine(parts)), aim(statistic.gather(x, region, WHOLE)))

    def test_a_mask_leaves_only_its_region(self, statistic: StyleStatistic):
        x = features(1)
        mask = torch.zeros(1, 1, 9, 11)
        mask[..., :6] = 1
        inside = x[..., :6]
        masked = statistic.gather(x, Region(mask, mask.sum().item()), WHOLE)
        torch.testing.assert_close(masked, statistic.gather(inside, whole(inside), WHOLE))

    def test_a_region_too_narrow_for_any_feature_still_counts(self, statistic: StyleStatistic):
        x = features(1)
        mask = torch.zeros(1, 1, 9, 11)
        mask[..., 3:5] = 0.2
        aim = statistic.blend([(statistic.gather(features(2), whole(x), WHOLE), 1.0)])
        here = statistic.gather(x, Region(mask, mask.sum().item()), WHOLE)
        assert 0 < statistic.distance_to(aim)(here).item() < 10

    def test_the_degree_says_how_the_distance_grows_with_the_features(self, statistic: StyleStatistic):
        def distance(factor: float) -> float:
            here, target = (statistic.gather(factor * features(s), whole(features(s)), WHOLE) for s in (1, 2))
            return statistic.distance_to(statistic.blend([(target, 1.0)]))(here).item()

        assert distance(3.0) == pytest.approx(3.0**statistic.degree * distance(1.0), rel=1e-3)


def test_a_blend_of_gram_matrices_has_the_gradient_of_the_sum_of_losses():
    x, one, other = features(0).requires_grad_(), features(1), features(2)
    gram, region = GramStatistic(), whole(x)

    def gradient(targets: list[tuple[torch.Tensor, float]]) -> torch.Tensor:
        losses = [StyleLoss("relu1_1", weight, gram, target, region) for target, weight in targets]
        total = torch.stack([loss.value(loss.gather(x, WHOLE)) for loss in losses]).sum()
        return torch.autograd.grad(total, x)[0]

    shares = [(gram_matrix(one), 0.3), (gram_matrix(other), 0.7)]
    torch.testing.assert_close(gradient([(gram.blend(shares), 1.0)]), gradient(shares))


def test_moments_tell_apart_what_gram_matrices_of_the_same_kind_do_not():
    gaussian = MomentsStatistic()
    region = Region(None, 4)
    # Mean 1 with no spread, and mean 0 with a variance of 1: the same Gram matrix.
    steady, spread = torch.ones(1, 1, 2, 2), torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(gram_matrix(steady), gram_matrix(spread))
    distance = gaussian.distance_to(gaussian.gather(spread, region, WHOLE))
    assert distance(gaussian.gather(steady, region, WHOLE)).item() == pytest.approx(2, rel=1e-2)


def test_sliced_wasserstein_compares_pictures_of_different_sizes():
    sliced = SlicedProjectionsStatistic(torch.eye(3))
    small, large = torch.linspace(0, 1, 12).view(1, 3, 2, 2), None
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    target = sliced.blend([(sliced.gather(large, whole(large), WHOLE), 1.0)])
    assert sliced.distance_to(target)(sliced.gather(small, whole(small), WHOLE)).item() < 1e-3


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_the_root_by_products_is_the_root_by_eigenvalues(spread: float):
    """Spread is the least eigenvalue of the covariances, relative to the largest, before the ridge."""
    generator = torch.Generator().manual_seed(0)

    def covariance(channels: int) -> torch.Tensor:
        basis, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))
        values = torch.logspace(-3, 0, channels, dtype=torch.float64).clamp(min=spread)
        values[: channels // 2] *= spread > 0
        return basis @ ((values + 1e-3 * values.mean())[:, None] * basis.T)

    root, product = covariance(64), covariance(64)
    product = root @ product @ root
    trace, derivative = _rooted_by_eigenvalues(product, root)
    same_trace, same_derivative = _rooted_by_products(product, root)
    torch.testing.assert_close(same_trace, trace, rtol=1e-9, atol=0)
    torch.testing.assert_close(same_derivative, derivative, rtol=1e-6, atol=1e-6 * derivative.abs().max().item())


def test_a_blend_of_moments_is_as_colourful_as_its_styles():
    """Blue and orange have grey as their mean. The colour of their blend is in its covariance."""
    generator = torch.Generator().manual_seed(0)
    statistic = MomentsStatistic()
    moments = []
    for color in ([-0.6, -0.2, 0.8], [0.6, 0.2, -0.8]):
        features = torch.tensor(color).view(1, 3, 1, 1) + 0.1 * torch.randn(1, 3, 8, 8, generator=generator)
        moments.append(statistic.gather(features, whole(features), WHOLE))

    def colour(statistic: torch.Tensor) -> float:
        """The mean square of the features."""
        return statistic[:-1].trace().item()

    blend = statistic.blend([(moments[0], 0.5), (moments[1], 0.5)])
    assert blend[-1].abs().max() < 0.1
    assert colour(blend) == pytest.approx((colour(moments[0]) + colour(moments[1])) / 2)
