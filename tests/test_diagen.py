import dataclasses

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName, KeepAll
from genaug.concepts.attach import placeholder_names
from genaug.concepts.concept import Concept
from genaug.core import LabeledImages
from genaug.identity import stored_fields
from genaug.methods.diagen import Doubter, SoftWeight, diagen, fit_temperature, soft_weights
from genaug.plans import Budget, PlanRow
from genaug.recipe import with_jitter
from genaug.schedule import Showing, SwapOwn, TrainingSchedule
from genaug.training_presets import training_preset


def fitted(real, workdir=None, **settings):
    return diagen(
        **{"naming": ClassName(), "backbone": toy_backbone(), "guidance_scale": 1.0, **settings}
    ).fit(real, workdir)


@pytest.fixture(autouse=True)
def few_updates(monkeypatch):
    "The preset with 8 updates: enough for everything checked here."
    monkeypatch.setattr(
        "genaug.methods.diagen.training_preset", lambda name: training_preset(name, updates=8)
    )


def test_the_settings_of_the_example():
    method = diagen()
    assert (method.start.strengths, method.guidance_scale, method.jitter, method.prompting.split_ratio) == (
        (0.7,),
        15.0,
        (0.0, 0.005, 0.01, 0.025),
        1.0,
    )
    assert (method.use.word, method.use.replace, method.use.weigh) == ("swap_own", 0.7, "sampling")
    assert method.filter == SoftWeight(views=5, trusted=0.5)
    assert stored_fields(diagen(classifier=None).filter) == stored_fields(KeepAll())
    assert diagen().settings() != diagen(jitter=(0.0,)).settings()


def test_weights_are_the_printed_rule_normalised_per_source():
    random = np.random.default_rng(0)
    confidences, sources = random.random(60), [f"{index % 7}.png" for index in range(60)]
    weights = soft_weights(confidences, sources)
    for name in set(sources):
        own = np.array([name == source for source in sources])
        raw = np.where(confidences[own] >= 0.5, 1.0, 2 * confidences[own])
        assert weights[own].mean() == pytest.approx(1)
        assert np.allclose(weights[own] / weights[own].sum(), raw / raw.sum())
    order = random.permutation(60)
    assert np.allclose(soft_weights(confidences[order], [sources[index] for index in order]), weights[order])


@pytest.mark.parametrize("confidences", [[0.0, 0.0], [1e-300, 1e-300], [1.0, 1.0]])
def test_no_source_is_ever_dropped(confidences):
    assert np.allclose(soft_weights(np.array(confidences), ["a", "a"]), 1)
    mixed = soft_weights(np.array([*confidences, 0.9, 0.0]), ["a", "a", "b", "b"])
    assert np.isfinite(mixed).all()
    assert (mixed >= 0).all()
    assert np.allclose(mixed, [1, 1, 2, 0])


def test_weights_are_chances_among_the_variants_and_never_touch_the_loss():
    real = LabeledImages([np.zeros((8, 8, 3), np.uint8)] * 2, [0, 1], ["cat", "dog"], ["a", "b"])
    weights = soft_weights(np.array([0.9, 0.1, 0.05]), ["a", "a", "b"])
    made = LabeledImages(
        [np.zeros((8, 8, 3), np.uint8)] * 3,
        [0, 0, 1],
        ["cat", "dog"],
        ["x", "y", "z"],
        info=[{"sources": [name], "weight": float(weight)} for name, weight in zip("aab", weights)],
    )
    schedule = TrainingSchedule(real, made, showing=Showing(SwapOwn(0.7, weigh="sampling")))
    rows = [row for epoch in range(1500) for row in schedule.plan(epoch).rows]
    shown = [row.shown for row in rows]
    assert {row.weight for row in rows} == {1.0}
    assert shown.count("synthetic:x") / (
        shown.count("synthetic:x") + shown.count("synthetic:y")
    ) == pytest.approx(1 / 1.2, abs=0.05)
    assert shown.count("synthetic:z") / 1500 == pytest.approx(
        0.7, abs=0.05
    )  # the doubtful only child is shown as often as any


@pytest.mark.parametrize("task", ["single", "multi"])
def test_the_temperature_recovers_a_known_factor(task):
    random = np.random.default_rng(1)
    logits = torch.from_numpy(random.normal(size=(6000, 4)) * 2)
    if task == "single":
        labels = np.eye(4)[[random.choice(4, p=row) for row in logits.softmax(1).numpy()]]
    else:
        labels = (random.random((6000, 4)) < logits.sigmoid().numpy()).astype(float)
    assert fit_temperature(3 * logits, torch.from_numpy(labels), task) == pytest.approx(3, rel=0.1)


def test_decisions_are_deterministic_and_kept_by_content(tmp_path, monkeypatch):
    real = toy_photographs((4, 4))
    method = fitted(real, tmp_path)
    rows = method.plan(real, Budget(3), 0)
    images = method.paint(rows, real)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    decisions = method.select(rows, images, real)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert len(list((tmp_path / "doubters").iterdir())) == 1
    trainings = []
    with monkeypatch.context() as patch:
        patch.setattr(Doubter, "fit", classmethod(lambda *arguments: trainings.append(1)))
        # read back, not learned again
        assert method.select(rows, images, real) == decisions
        assert not trainings
    weights = np.array([decision.weight for decision in decisions])
    assert all(decision.keep for decision in decisions)
    assert len(decisions) == len(rows)
    for name in real.ids:
        assert weights[[row.settings["anchor"] == name for row in rows]].mean() == pytest.approx(1)
    other = SoftWeight(seed=1).load_or_fit(real, tmp_path)
    fewer = SoftWeight().load_or_fit(real[list(range(7))], tmp_path)
    assert len(list((tmp_path / "doubters").iterdir())) == 3
    assert other.trained.seed == 1
    assert fewer.temperature > 0


def test_an_image_is_judged_alone_in_any_order():
    real = toy_photographs((3, 3))
    rows = [
        PlanRow(name, "", tuple(row), ((name, 1.0),), (), index, {"anchor": name})
        for index, (name, row) in enumerate(zip(real.ids, real.labels))
    ]
    images, doubter = (
        [real.image(name) for name in real.ids],
        Doubter.fit(real, training_preset("tiny", updates=8), 0.2, 0),
    )
    whole = SoftWeight().confidences(rows, images, doubter)
    assert np.allclose(SoftWeight().confidences(rows[::-1], images[::-1], doubter)[::-1], whole, atol=1e-5)
    assert np.allclose(SoftWeight().confidences(rows[2:3], images[2:3], doubter), whole[2:3], atol=1e-5)
    several = [
        dataclasses.replace(row, label=label) for row, label in zip(rows[:2], [(0.5, 0.5), (0.0, 0.0)])
    ]
    assert SoftWeight().confidences(several, images[:2], doubter) == pytest.approx([0.5, 1.0])
    assert SoftWeight().select([], [], real, None) == []


def test_one_photograph_per_class_has_no_temperature_to_learn():
    doubter = Doubter.fit(toy_photographs((1, 1)), training_preset("tiny", updates=2), 0.2, 0)
    assert doubter.temperature == 1.0
    assert doubter.logits(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_jitter_is_drawn_per_row_and_reaches_the_row_s_own_word_only():
    real = toy_photographs((5, 5))
    rows = fitted(real).plan(real, Budget(40), 0)
    drawn = np.array([row.settings["jitter"] for row in rows])
    assert all(
        abs((drawn == size).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(rows))
        for size in (0.0, 0.005, 0.01, 0.025)
    )
    words = placeholder_names([f"class {index}" for index in range(1002)])
    assert not any(
        words[f"class {number}"] in words[f"class {two}"]
        for number in (1, 10, 100)
        for two in range(1002)
        if two != number
    )
    concept = Concept(
        {"car": "<c001>", "carrot": "<c0010>"}, {"<c001>": torch.zeros(1, 8), "<c0010>": torch.ones(1, 8)}
    )
    batch = [
        PlanRow(f"row{index}", "", (1, 0), (), ((f"a photo of a {word}", 1.0),), index, {"jitter": size})
        for index, (word, size) in enumerate(
            [("<c001>", 0.01), ("<c0010>", 0.01), ("<c0010>", 0.0), ("<c001>", 0.025)]
        )
    ]
    noisy, changed = with_jitter(concept, batch)
    for row, value in zip(changed, (0, 1, 1, 0)):
        vectors = noisy.tokens[row.prompts[0][0].removeprefix("a photo of a ")]
        assert (vectors - value).abs().max() < 0.1
        assert (vectors == value).all() == (row.settings["jitter"] == 0)
    assert changed[2] == batch[2]
    assert torch.equal(noisy.tokens["<c001>"], torch.zeros(1, 8))
    assert (
        with_jitter(concept, batch[3:])[0]
        .tokens[changed[3].prompts[0][0].split()[-1]]
        .equal(noisy.tokens[changed[3].prompts[0][0].split()[-1]])
    )


def test_scenes_rule_all_the_way_and_are_independent_of_the_jitter():
    real = toy_photographs((5, 5))
    rows = fitted(real, suffixes=("on grass", "on snow", "at night", "at home")).plan(real, Budget(20), 0)
    assert all(len(row.prompts) == 1 for row in rows)
    pairs = {(row.prompts[0][0].split(" ", 5)[-1], row.settings["jitter"]) for row in rows}
    assert len(pairs) == 16
