from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import PaintContext
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.messages import GenaugError
from genaug.methods.genie import LargestStep, after_largest_step, genie, genie_ada, shares_of_the_way
from genaug.pictures import to_uint8
from genaug.plans import Budget, PlanRow
from genaug.prompts import ClassPrompt
from genaug.synthesis import synthesize


class Plane:
    "A stand-in network: red and blue of the first pixel, as a direction."

    name = "plane"

    def features(self, images):
        return np.stack([images.image(index)[0, 0, [0, 2]] for index in range(len(images))]).astype(float)

    def fingerprint(self):
        return "plane"


@pytest.fixture
def plane(monkeypatch):
    monkeypatch.setattr("genaug.methods.genie.feature_network", lambda *arguments: Plane())


def at(degrees):
    "A picture whose feature points in this direction."
    return np.full(
        (2, 2, 3),
        (round(250 * np.cos(np.radians(degrees))), 0, round(250 * np.sin(np.radians(degrees)))),
        np.uint8,
    )


def world(classes=4, shots=3):
    shapes = torch.randn(classes, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    backbone = ToyBackbone(shapes, 0.1, [f"kind {index}" for index in range(classes)])
    targets = np.repeat(np.arange(classes), shots)
    return backbone, LabeledImages(
        to_uint8(backbone.decode(shapes[targets])),
        targets,
        backbone.class_names,
        [f"{index}.png" for index in range(len(targets))],
    )


def studio():
    return PaintContext(toy_backbone(), None, ClassPrompt(), 4, None)


def group(levels, label=(0, 1), source="a", name="g"):
    return [
        PlanRow(f"{name}{level}", "genie-ada", label, ((source, 1.0),), (), 5, {"strength": level}, name)
        for level in levels
    ]


@pytest.mark.parametrize("kind", [genie, genie_ada])
@pytest.mark.parametrize("classes, shots", [(2, 1), (3, 2), (5, 1)])
def test_every_photograph_visits_every_other_class_once(kind, classes, shots):
    backbone, real = world(classes, shots)
    fitted = kind(backbone=backbone, guidance_scale=1.0).fit(real)
    rows = fitted.plan(real, Budget(classes - 1), 0)
    visits = Counter(
        (row.inputs[0][0], row.label.index(1))
        for row in rows
        if row.settings["strength"] == fitted.start.strengths[0]
    )
    own = dict(zip(real.ids, real.targets))
    assert visits == Counter(
        {(name, index): 1 for name in real.ids for index in range(classes) if index != own[name]}
    )
    assert all(row.prompts == ((f"a photo of a kind {row.label.index(1)}", 1.0),) for row in rows)
    assert set(Counter(target for _, target in visits).values()) == {(classes - 1) * shots}
    again = fitted.plan(real, Budget(2 * (classes - 1)), 0)
    assert again[: len(rows)] == rows
    assert len({(row.seed, row.group) for row in again}) == 2 * len(visits)


def test_a_small_budget_favours_no_class():
    backbone, real = world(4, 50)
    rows = genie(backbone=backbone, guidance_scale=1.0).fit(real).plan(real, Budget(1), 0)
    assert (
        min(
            Counter(
                (real.targets[real.index([row.inputs[0][0]])[0]], row.label.index(1)) for row in rows
            ).values()
        )
        >= 8
    )


def test_a_class_that_is_asked_for_is_painted_over_others():
    backbone, real = world(3, 2)
    rows = (
        genie(backbone=backbone, guidance_scale=1.0).fit(real).plan(real, Budget(per_class={"kind 1": 12}), 0)
    )
    sources = {int(real.targets[real.index([row.inputs[0][0]])[0]]) for row in rows}
    assert len(rows) == 12
    assert {row.label for row in rows} == {(0.0, 1.0, 0.0)}
    assert sources == {0, 2}


def test_the_painted_image_shows_the_target():
    backbone, real = world(3, 1)
    fitted = genie(backbone=backbone, guidance_scale=1.0).fit(real)
    rows = fitted.plan(real, Budget(2), 0)
    means = backbone.decode(backbone.means).mul(255).permute(0, 2, 3, 1).numpy()
    for row, image in zip(rows, fitted.paint(rows, real)):
        assert np.abs(image.astype(float) - means).mean((1, 2, 3)).argmin() == row.label.index(1)


def test_levels_of_a_group_share_their_noise_and_their_target():
    backbone, real = world(3, 2)
    rows = genie_ada(backbone=backbone).fit(real).plan(real, Budget(2), 0)
    for start in range(0, len(rows), 5):
        members = rows[start : start + 5]
        assert len({(row.seed, row.group, row.label, row.inputs, row.round) for row in members}) == 1
        assert len({row.id for row in members}) == 5
        assert [row.settings["strength"] for row in members] == [0.5, 0.6, 0.7, 0.8, 0.9]


def test_the_cost_is_three_and_a_half_trajectories():
    backbone, real = world(2, 1)
    for kind, share in ((genie, 0.8), (genie_ada, 3.5)):
        fitted = kind(backbone=backbone).fit(real)
        assert fitted.evaluations(fitted.plan(real, Budget(1), 0)) == pytest.approx(share * 2 * 50 * 2)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
def test_constructed_features_keep_the_level_after_the_jump(plane, order):
    real = LabeledImages([at(0), at(80), at(90)], [0, 1, 1], ["red", "blue"], ["a", "b", "c"])
    rows, images = group([0.5, 0.6, 0.7, 0.8, 0.9]), [at(5), at(12), at(20), at(70), at(75)]
    decisions = LargestStep().select(
        [rows[index] for index in order], [images[index] for index in order], real, studio()
    )
    assert [decision.keep for decision in decisions] == [index == 3 for index in order]
    assert "at 0.8" in decisions[0].reason


def test_projections_are_those_of_the_published_rule(plane):
    known = [at(degrees).astype(float)[0, 0, [0, 2]] for degrees in (0, 80, 90)]

    def unit(value):
        return value / np.linalg.norm(value)

    mean, source = (unit(known[1]) + unit(known[2])) / 2, unit(known[0])
    line = mean - source
    candidates = np.random.default_rng(0).normal(size=(5, 2))
    projected = np.outer(candidates @ line / (line @ line), line)
    lengths = np.linalg.norm(np.diff(projected, axis=0), axis=1)
    assert after_largest_step(shares_of_the_way(candidates, source, mean)) == 1 + lengths.argmax()


def test_groups_do_not_affect_one_another(plane):
    real = LabeledImages([at(0), at(90)], [0, 1], ["red", "blue"], ["a", "b"])
    left, right = group([0.5, 0.7, 0.9]), group([0.5, 0.7, 0.9], (1, 0), "b", "h")
    shown = {row.id: at(degrees) for row, degrees in zip([*left, *right], (5, 60, 70, 85, 80, 10))}
    mixed = [left[0], right[2], right[0], left[2], left[1], right[1]]
    remaining = {
        row.id
        for row, decision in zip(
            mixed, LargestStep().select(mixed, [shown[row.id] for row in mixed], real, studio())
        )
        if decision.keep
    }
    assert remaining == {"g0.7", "h0.9"}


def test_ties_missing_means_and_single_levels_have_an_answer(plane):
    real = LabeledImages([at(0), at(90)], [0, 1], ["red", "blue", "green"], ["a", "b"])

    def chosen(rows, degrees):
        return [
            row.settings["strength"]
            for row, decision in zip(
                rows, LargestStep().select(rows, [at(value) for value in degrees], real, studio())
            )
            if decision.keep
        ]

    assert chosen(group([0.5, 0.7, 0.9], (0, 1, 0)), (30, 30, 30)) == [0.9]  # no step
    assert chosen(group([0.5, 0.7, 0.9], (0, 0, 1)), (5, 60, 70)) == [0.9]  # no photograph of the class
    assert chosen(group([0.5, 0.7, 0.9], (1, 0, 0)), (5, 60, 70)) == [
        0.9
    ]  # its mean is the photograph itself
    assert chosen(group([0.7], (0, 1, 0)), (30,)) == [0.7]
    assert after_largest_step(np.array([0.0, 0.25, 0.5, 0.5])) == 1  # equal steps: the lower level


def test_a_step_back_counts_as_published_and_not_when_only_forward(plane):
    real = LabeledImages([at(0), at(90)], [0, 1], ["red", "blue"], ["a", "b"])
    rows, images = group([0.5, 0.7, 0.9]), [at(60), at(70), at(20)]

    def chosen(choice):
        return [decision.keep for decision in choice.select(rows, images, real, studio())].index(True)

    assert (chosen(LargestStep()), chosen(LargestStep(forward=True))) == (2, 1)
    assert after_largest_step(np.array([0.9, 0.5, 0.1]), forward=True) == 2  # only steps back: the last


def test_one_image_of_each_group_is_in_the_set(tmp_path):
    real = toy_photographs((2, 3))
    fitted = genie_ada(backbone=toy_backbone(), guidance_scale=1.0, num_inference_steps=10).fit(
        real, tmp_path / "work"
    )
    made = synthesize(fitted, real, tmp_path / "set", Budget(2), seed=0, progress=False)
    assert made.counts() == {"square": 6.0, "bar": 4.0}
    assert len({info["group"] for info in made.info}) == 10
    assert all("share of the way to its class" in info["reason"] for info in made.info)
    assert len(list((tmp_path / "work" / "features").iterdir())) == 1


def test_settings_change_the_rows_they_should():
    real = toy_photographs()

    def rows(**settings):
        return {
            row.id
            for row in genie_ada(backbone=toy_backbone(), **settings).fit(real).plan(real, Budget(1), 0)
        }

    assert not rows() & rows(forward=True)
    assert not rows() & rows(strengths=(0.5, 0.9))
    assert rows() == rows(use=replace(genie().use, replace=0.1))
    assert genie().use.word == "append"
    assert genie(strengths=0.6).start.strengths == (0.6,)


def test_one_class_or_a_level_of_zero_is_refused():
    left = LabeledImages([at(0)], [0], ["red"], ["a"])
    with pytest.raises(GenaugError, match="two classes"):
        genie(backbone=ToyBackbone(torch.zeros(1, 3, 2, 2), 0.1, ["red"])).fit(left).plan(left, Budget(1), 0)
    with pytest.raises(GenaugError, match="strength"):
        genie_ada(strengths=(0.0, 0.5))
