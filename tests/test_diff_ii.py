import math

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.diff_ii import CircleStart, circle_frame, circle_interpolate, diff_ii, turn_of
from genaug.plans import Budget


def pair_at(degrees, ratio=1.0, size=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first, other = torch.randn(2, 1, 8, 8, size // 64, generator=generator, dtype=torch.float64)
    unit = first / first.norm()
    across = other - (other * unit).sum() * unit
    second = math.cos(math.radians(degrees)) * unit + math.sin(math.radians(degrees)) * across / across.norm()
    return (unit * math.sqrt(size)).float(), (second * ratio * math.sqrt(size)).float()


def printed(first, second, lam):
    "v2, Eq. 5, in float64."
    left, right = first.double(), second.double()
    alpha = torch.arccos((left * right).sum() / left.norm() / right.norm())
    return (
        torch.sin((1 + lam) * alpha) / torch.sin(alpha) * left
        - torch.sin(lam * alpha) / torch.sin(alpha) * right
    ), alpha


@pytest.mark.parametrize("degrees", [5, 20, 60, 90, 135, 175])
def test_the_frame_form_equals_the_printed_formula(degrees):
    first, second = pair_at(degrees)
    for position in (0.0, 0.1, 0.37, 0.5, 0.93):
        alpha = printed(first, second, 0.0)[1]
        expected = printed(first, second, -2 * math.pi * position / float(alpha))[0]
        got = circle_interpolate(first, second, torch.tensor([position]))
        assert torch.allclose(got.double(), expected.view_as(got), atol=2e-4)
        assert float(got.norm()) == pytest.approx(math.sqrt(512), rel=1e-5)


@pytest.mark.parametrize("ratio", [0.7, 1.3])
def test_the_radius_stays_between_the_two_lengths_however_close_they_are(ratio):
    for degrees in (0.5, 5, 90, 179.5):
        first, second = pair_at(degrees, ratio)
        lengths = (
            circle_interpolate(
                first.expand(200, -1, -1, -1), second.expand(200, -1, -1, -1), torch.linspace(0, 1, 200)
            )
            .flatten(1)
            .norm(dim=1)
        )
        low, high = sorted([math.sqrt(512), ratio * math.sqrt(512)])
        assert low - 1e-3 <= lengths.min()
        assert lengths.max() <= high + 1e-3
    wild = circle_interpolate(
        *[value.expand(200, -1, -1, -1) for value in pair_at(1, ratio)],
        torch.linspace(0, 1, 200),
        radius="sine",
    )
    assert wild.flatten(1).norm(dim=1).max() > 5 * math.sqrt(512)


@pytest.mark.parametrize("factor", [1.0, -1.0, 1 + 1e-7])
def test_parallel_inversions_fall_back_to_noise(factor):
    first, _ = pair_at(90)
    got = circle_interpolate(
        first,
        factor * first,
        torch.tensor([0.25]),
        fallback=torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1)),
    )
    assert torch.isfinite(got).all()
    assert float(got.norm()) == pytest.approx(math.sqrt(512), rel=1e-4)
    assert abs(float((got * first).sum())) < 1e-2 * 512


def test_inner_and_outer_arcs_meet_at_the_second_photograph():
    first, second = pair_at(80, 1.2)
    ends = [
        circle_interpolate(first, second, torch.tensor([position]), arc)
        for arc, position in (("inner", 1.0), ("outer", 0.0))
    ]
    assert all(torch.allclose(end, second.view_as(end), atol=1e-4) for end in ends)
    assert torch.allclose(
        circle_interpolate(first, second, torch.tensor([1.0]), "outer"), first.view_as(ends[0]), atol=1e-4
    )
    _, _, alpha = circle_frame(*[value.expand(1, -1, -1, -1) for value in pair_at(90)], first)
    share = (
        (
            turn_of(torch.rand(4000, generator=torch.Generator().manual_seed(0)), alpha.expand(4000), "full")
            <= alpha
        )
        .double()
        .mean()
    )
    assert float(share) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(GenaugError):
        turn_of(torch.zeros(1), alpha, "half")
    with pytest.raises(GenaugError):
        circle_interpolate(first, second, torch.zeros(1), radius="round")


def plan(real, budget=Budget(5), **settings):
    method = diff_ii(
        **{"naming": ClassName(), "backbone": toy_backbone(), "guidance_scale": 1.0, **settings}
    ).fit(real)
    return method, method.plan(real, budget, 0)


def test_pairs_are_distinct_photographs_of_the_class_and_all_occur():
    real = toy_photographs((4, 3))
    method, rows = plan(real, Budget(40))
    targets = dict(zip(real.ids, real.targets))
    pairs = set()
    for row in rows:
        (first, _), (second, _) = row.inputs
        assert first != second
        assert targets[first] == targets[second] == row.label.index(1)
        pairs.add(frozenset((first, second)))
    assert len(pairs) == 6 + 3
    positions = np.array([row.settings["position"] for row in rows])
    assert positions.min() >= 0
    assert positions.max() < 1
    assert abs(positions.mean() - 0.5) < 4 / math.sqrt(12 * len(rows))


def test_a_copied_file_is_no_partner_and_one_photograph_starts_from_noise():
    base = toy_photographs((1, 1))
    real = LabeledImages(
        [base.image(0), base.image(0), base.image(1)], [0, 0, 1], base.class_names, ["a", "b", "c"]
    )
    method, rows = plan(real, Budget(2))
    assert all(row.inputs == () and row.fitted_on == real.fingerprint() for row in rows)
    assert all(np.isfinite(image).all() for image in method.paint(rows, real))


def test_the_suffix_rules_the_first_part_only():
    real = toy_photographs()
    for split_ratio, parts in ((0.0, 1), (0.3, 2), (1.0, 1)):
        _, rows = plan(real, suffixes=("on grass", "on water"), split_ratio=split_ratio)
        assert all(len(row.prompts) == parts for row in rows)
        assert all(row.prompts[0][0].endswith(("on grass", "on water")) == (split_ratio > 0) for row in rows)
        assert {row.prompts[0][0].split(" on ")[-1] for row in rows} >= (
            {"grass", "water"} if split_ratio else set()
        )
    assert all(
        row.prompts[-1][0].split()[-1] in ("square", "bar")
        for row in plan(real, suffixes=("on grass",), split_ratio=0.3)[1]
    )


@pytest.mark.parametrize("mode", ["circle", "slerp", "extrapolate", "linear"])
def test_every_mode_paints_the_class(mode):
    real = toy_photographs((4, 4))
    method, rows = plan(real, Budget(2), mode=mode)
    images = np.stack(method.paint(rows, real)).astype(float)
    means = method.backbone.decode(method.backbone.means).mul(255).permute(0, 2, 3, 1).numpy()
    nearest = np.abs(images[:, None] - means[None]).mean((2, 3, 4)).argmin(1)
    assert nearest.tolist() == [row.label.index(1) for row in rows]


def test_position_zero_reconstructs_the_photograph():
    """Diff-II at its anchor is inversion and back; the closed form and ten fixed-point iterations leave one
    grey level."""
    import dataclasses

    real = toy_photographs((3, 3))
    method, rows = plan(real, Budget(1), fixed_point_iterations=10)
    rows = [dataclasses.replace(row, settings={**row.settings, "position": 0.0}) for row in rows]
    for row, image in zip(rows, method.paint(rows, real)):
        assert np.abs(image.astype(int) - real.image(row.inputs[0][0]).astype(int)).max() <= 6


def test_guidance_moves_the_image_away_from_the_other_class():
    real = toy_photographs((3, 3))
    method, rows = plan(real, Budget(2))
    strong, _ = plan(real, Budget(2), guidance_scale=3.0)
    plain, guided = (np.stack(item.paint(rows, real)).astype(float) for item in (method, strong))
    assert np.abs(plain - guided).max() > 1


def test_bad_settings_name_the_good_ones():
    with pytest.raises(GenaugError, match="circle, slerp"):
        diff_ii(mode="spiral")
    with pytest.raises(GenaugError, match="split_ratio=1.5"):
        plan(toy_photographs(), suffixes=("x",), split_ratio=1.5)
    assert isinstance(diff_ii().start, CircleStart)
    assert diff_ii().naming.steps == 35_000


def test_the_printed_averages_agree_with_the_printed_cells_but_for_the_known_row():
    from pathlib import Path

    import pandas as pd

    printed_rows = pd.read_csv(Path(__file__).parents[1] / "nbs/results/paper/diff_ii_few_shot.csv")
    cells = printed_rows.pivot_table("value", ["classifier", "shots", "method"], "data")
    off = (cells[["cub", "aircraft", "pet", "cars"]].mean(axis=1) - cells["average"]).abs() > 0.011
    assert len(cells) == 32
    assert list(cells[off].index) == [("resnet50@224", 10, "real-filter")]


def test_the_paper_scale_on_a_miniature_of_cub():
    """CUB at five shots: 1000 photographs of 200 classes, 5 copies, 25 steps with guidance, 25 inversion
    steps (shared brief 2.2, 3.1, 4.7)."""
    from genaug.diffusion import ToyBackbone
    from genaug.prompts import ClassPrompt
    from genaug.sampling import suffixed_steps
    from genaug.training_presets import training_preset

    names = [f"{index + 1:03d}.Bird_{index + 1}" for index in range(200)]
    pixels = list(np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8))
    real = LabeledImages(
        pixels, np.repeat(np.arange(200), 5), names, [f"{index}.jpg" for index in range(1000)]
    )
    method = diff_ii(
        backbone=ToyBackbone(torch.zeros(2, 3, 4, 4), 1.0, ["a", "b"]),
        class_prompt=ClassPrompt(metaclass="bird"),
        suffixes=("flying over water",),
    )
    paper = {"steps": 35_000, "learning_rate": 5e-5, "batch_size": 2, "rank": 10, "tokens_per_class": 1}
    assert {name: getattr(method.naming, name) for name in paper} == paper
    assert method.guidance_scale == 7.5
    method.naming = ClassName()
    rows = method.fit(real).plan(real, Budget(5), 0)
    assert len(rows) == 5000
    assert np.bincount([row.label.index(1) for row in rows]).tolist() == [25] * 200
    assert method.evaluations(rows) == 5000 * 25 * 2 + 1000 * 25
    assert rows[0].prompts == (
        ("a photo of a Bird 1 bird flying over water", 0.3),
        ("a photo of a Bird 1 bird", 0.7),
    )
    assert suffixed_steps(0.3, method.backbone.timesteps(25)) == 7
    preset = training_preset("few_shot_resnet50")
    assert preset.epochs * (1000 // preset.batch_size) == 360
    assert (
        preset.learning_rate,
        preset.label_smoothing,
        preset.view.size,
    ) == (0.05, 0.1, 224)
