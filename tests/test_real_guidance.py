"Real-Guidance against a second writing of SDEdit in NumPy, its limits, its settings and what it refuses."

import dataclasses

import numpy as np
import pytest
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName, HardLabel, OwnClass, OwnLatent, Plain
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.real_guidance import real_guidance
from genaug.plans import Budget
from genaug.recipe import Recipe
from genaug.sampling import row_noise
from genaug.schedule import SwapClass

GRID = [961 - 40 * step for step in range(25)]


def plan(real, budget=Budget(2), **settings):
    method = real_guidance(**{"backbone": toy_backbone(), "guidance_scale": 1.0, **settings}).fit(real)
    return method, method.plan(real, budget, 0)


def sdedit(photograph, mean, noise, strength, std=0.3):
    """SDEdit of one Gaussian in float64: noise to the first level that is run, then DDIM with the exact noise
    estimate."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    shares = np.cumprod(1 - betas)
    levels = GRID[25 - int(25 * strength) :]
    latent = 2 * photograph.astype(float).transpose(2, 0, 1) / 255 - 1
    if levels:
        latent = np.sqrt(shares[levels[0]]) * latent + np.sqrt(1 - shares[levels[0]]) * noise
    for level in levels:
        share, after = shares[level], shares[max(level - 40, 0)]
        estimate = (latent - np.sqrt(share) * mean) * np.sqrt(1 - share) / (share * std**2 + 1 - share)
        latent = (
            np.sqrt(after) * (latent - np.sqrt(1 - share) * estimate) / np.sqrt(share)
            + np.sqrt(1 - after) * estimate
        )
    return (np.clip((latent + 1) / 2, 0, 1) * 255).transpose(1, 2, 0)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 0.9, 1.0])
def test_it_is_sdedit_with_the_steps_of_its_strength(strength):
    real = toy_photographs()
    method, rows = plan(real, strengths=(strength,))
    for row, image in zip(rows, method.paint(rows, real)):
        noise = row_noise((3, 8, 8), [row.seed])[0].double().numpy()
        mean = method.backbone.means[row.label.index(1)].double().numpy()
        assert np.abs(image - sdedit(real.image(row.inputs[0][0]), mean, noise, strength)).max() < 0.51


@pytest.mark.parametrize(
    "strength, steps",
    [(0.03, 0), (0.04, 1), (0.1, 2), (0.25, 6), (0.5, 12), (0.7, 17), (0.75, 18), (0.9, 22), (1.0, 25)],
)
def test_steps_that_are_run(strength, steps):
    real = toy_photographs()
    method, rows = plan(real, strengths=(strength,))
    assert method.evaluations(rows) == steps * len(rows)
    method.guidance_scale = 7.5
    assert method.evaluations(rows) == 2 * steps * len(rows)


def test_without_a_step_it_is_the_round_trip():
    real = toy_photographs()
    method, rows = plan(real, strengths=(0.039,))
    control = Recipe(start=OwnLatent(), backbone=toy_backbone(), guidance_scale=1.0).fit(real)
    for image, other, row in zip(
        method.paint(rows, real), control.paint(control.plan(real, Budget(2), 0), real), rows
    ):
        assert np.array_equal(image, other)
        assert np.array_equal(image, real.image(row.settings["anchor"]))


def test_the_further_the_strength_the_further_the_image():
    real = toy_photographs((6, 6))
    method, rows = plan(real)
    photographs = np.stack([real.image(row.inputs[0][0]) for row in rows]).astype(float)
    apart = [
        np.abs(
            np.stack(
                method.paint(
                    [
                        dataclasses.replace(row, settings={**row.settings, "strength": strength})
                        for row in rows
                    ],
                    real,
                )
            )
            - photographs
        ).mean()
        for strength in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    assert np.all(np.diff(apart) > 0.5)
    assert apart[0] < 0.5 * apart[-1]


def test_the_settings_are_those_of_the_comparison():
    method = real_guidance()
    assert (method.name, method.start.strengths, method.num_inference_steps, method.guidance_scale) == (
        "real-guidance",
        (0.1,),
        25,
        7.5,
    )
    assert (method.naming, method.target, method.prompting, method.label, method.use) == (
        ClassName(),
        OwnClass(),
        Plain(),
        HardLabel(),
        SwapClass(0.5),
    )


def test_a_single_number_a_list_and_a_tuple_are_one_setting():
    assert (
        real_guidance(strengths=0.3).settings()
        == real_guidance(strengths=[0.3]).settings()
        == real_guidance(strengths=(0.3,)).settings()
    )
    real = toy_photographs()
    ids = [[row.id for row in plan(real, strengths=strengths)[1]] for strengths in (0.3, (0.3,), 0.1)]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_strengths_of_a_list_are_equally_frequent():
    _, rows = plan(toy_photographs(), Budget(200), strengths=(0.2, 0.4, 0.6))
    actual = np.array([row.settings["strength"] for row in rows])
    assert all(
        abs((actual == strength).mean() - 1 / 3) < 4 * (2 / 9 / len(rows)) ** 0.5
        for strength in (0.2, 0.4, 0.6)
    )


@pytest.mark.parametrize("strengths", [0, (0.0,), (0.5, 1.1), (-0.1,), (float("nan"),), ()])
def test_bad_strengths_are_named(strengths):
    with pytest.raises(GenaugError, match="strength"):
        real_guidance(strengths=strengths)


def test_every_photograph_is_edited_equally_often_and_keeps_its_label():
    real = toy_photographs((4, 1))
    _, rows = plan(real, Budget(3))
    assert sorted(row.inputs for row in rows) == sorted(((name, 1.0),) for name in real.ids for _ in range(3))
    _, rows = plan(real, Budget(fill=True))
    assert [row.label for row in rows] == [(0.0, 1.0)] * 3
    assert all(row.inputs[0][0] == "4.png" for row in rows)


def test_an_image_with_several_labels_keeps_them_all():
    real = toy_photographs()
    both = LabeledImages(
        [real.image(0), real.image(3)], [[1, 0], [1, 1]], real.class_names, ["a", "b"], task="multi"
    )
    method, rows = plan(both, Budget(2))
    assert {row.inputs[0][0]: row.label for row in rows} == {"a": (1.0, 0.0), "b": (1.0, 1.0)}
    assert {row.prompts[0][0] for row in rows} == {"a photo of a square", "a photo of a square and a bar"}
    assert len(method.paint(rows, both)) == 4
