import dataclasses

import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import (
    AnotherClass,
    Finish,
    FromNoise,
    FromPhotograph,
    LabelByStrength,
    Naming,
    OwnLatent,
    Suffixed,
    learn_or_load,
)
from genaug.core import LabeledImages
from genaug.identity import Identity
from genaug.messages import GenaugError
from genaug.methods.diff_ii import CircleStart
from genaug.plans import Budget
from genaug.prompts import ClassPrompt
from genaug.recipe import Recipe
from genaug.schedule import Append


def recipe(**settings):
    return Recipe(**{"backbone": toy_backbone(), "guidance_scale": 1.0, **settings})


def largest_difference(first, second):
    return max(int(np.abs(left.astype(int) - right.astype(int)).max()) for left, right in zip(first, second))


def test_round_trip_is_the_identity_of_an_identity_codec():
    real = toy_photographs()
    method = recipe(start=OwnLatent()).fit(real)
    rows = method.plan(real, Budget(2), 0)
    assert all(
        np.array_equal(image, real.image(row.inputs[0][0]))
        for image, row in zip(method.paint(rows, real), rows)
    )
    assert method.evaluations(rows) == 0


def test_the_use_changes_no_row_but_every_painted_setting_does():
    real = toy_photographs()

    def rows(**settings):
        return [
            row.id
            for row in recipe(start=FromPhotograph((0.5,)), **settings).fit(real).plan(real, Budget(1), 0)
        ]

    base = rows()
    assert rows(use=Append(0.1)) == base
    for settings in (
        {"guidance_scale": 2.0},
        {"num_inference_steps": 20},
        {"prompting": Suffixed(("on grass",), 0.3)},
        {"class_prompt": ClassPrompt(metaclass="shape")},
        {"label": LabelByStrength()},
        {"backbone": toy_backbone(0.2)},
    ):
        assert not set(rows(**settings)) & set(base), settings


def test_plan_needs_fit_and_says_so():
    with pytest.raises(GenaugError, match="call fit"):
        recipe().plan(toy_photographs(), Budget(1), 0)


def test_a_row_alone_decides_its_image():
    real = toy_photographs()
    method = recipe(
        start=FromPhotograph((0.3, 0.7)), prompting=Suffixed(("on grass",), 0.5), guidance_scale=3.0
    ).fit(real)
    rows = method.plan(real, Budget(3), 5)
    together = method.paint(rows, real)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = method.paint([rows[index] for index in order], real)
    assert largest_difference([together[index] for index in order], shuffled) <= 2
    assert largest_difference(together, [method.paint([row], real)[0] for row in rows]) <= 2


def test_budgets_are_prefixes_and_seeds_matter():
    real = toy_photographs((1, 3))
    method = recipe().fit(real)
    rows = method.plan(real, Budget(5), 3)
    assert method.plan(real, Budget(2), 3) == rows[:8]
    assert len({row.id for row in rows}) == 20
    assert not {row.seed for row in rows} & {row.seed for row in method.plan(real, Budget(5), 4)}


def test_another_class_is_never_the_own_and_uniform():
    real = LabeledImages(
        [np.zeros((2, 2, 3), np.uint8)] * 5,
        range(5),
        [str(index) for index in range(5)],
        [f"{index}.png" for index in range(5)],
    )
    draw, slot = np.random.default_rng(0), Budget(1).slots(real)[2]
    drawn = [AnotherClass().choose_target(draw, slot, real, "")[1] for _ in range(4000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[2] == 0
    assert counts[[0, 1, 3, 4]].min() > 1000 - 4 * np.sqrt(4000 * 0.25 * 0.75)
    several = LabeledImages(
        [np.zeros((2, 2, 3), np.uint8)], np.array([[1, 1]], np.float32), ["a", "b"], ["0.png"], "multi"
    )
    with pytest.raises(GenaugError, match="single-label"):
        AnotherClass().choose_target(draw, Budget(1).slots(several)[0], several, "")


@pytest.mark.parametrize("gamma", [0.5, 0.8, 1.0])
def test_mixed_labels_keep_their_mass(gamma):
    real = toy_photographs()
    method = recipe(
        start=FromPhotograph((0.5, 0.7, 0.9)), target=AnotherClass(), label=LabelByStrength(gamma)
    ).fit(real)
    for row in method.plan(real, Budget(4), 0):
        source = real.targets[real.index([row.inputs[0][0]])[0]]
        share = row.settings["strength"] ** gamma
        assert sum(row.label) == pytest.approx(1, abs=1e-6)
        assert row.label[1 - source] == pytest.approx(share, abs=1e-6)
        assert row.prompts == ((f"a photo of a {real.class_names[1 - source]}", 1.0),)


def test_multi_label_photographs_keep_their_rows_and_name_all_classes():
    base = toy_photographs()
    real = LabeledImages(
        base.pixels, [[1, 1], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1]], base.class_names, base.ids, "multi"
    )
    method = recipe(start=FromPhotograph((0.5,))).fit(real)
    rows = method.plan(real, Budget(1), 0)
    assert [row.label for row in rows] == [tuple(map(float, label)) for label in real.labels.tolist()]
    assert rows[0].prompts[0][0] == "a photo of a square and a bar"


def test_rows_with_one_and_two_prompts_share_a_batch():
    real = toy_photographs()
    plain, suffixed = recipe().fit(real), recipe(prompting=Suffixed(("bar",), 0.4)).fit(real)
    rows = [plain.plan(real, Budget(1), 0)[0], suffixed.plan(real, Budget(1), 0)[0]]
    mixed = plain.paint(rows, real)
    assert largest_difference(mixed, [plain.paint(rows[:1], real)[0], plain.paint(rows[1:], real)[0]]) <= 2
    assert (
        largest_difference(
            mixed[1:], plain.paint([dataclasses.replace(rows[1], prompts=rows[0].prompts)], real)
        )
        > 2
    )


def test_saved_and_loaded_paints_the_same(tmp_path):
    real = toy_photographs()
    method = recipe(start=FromPhotograph((0.5,))).fit(real)
    rows = method.plan(real, Budget(1), 0)
    method.save(tmp_path / "saved")
    again = recipe(start=FromPhotograph((0.5,))).load(tmp_path / "saved")
    assert again.plan(real, Budget(1), 0) == rows
    assert largest_difference(method.paint(rows, real), again.paint(rows, real)) == 0
    with pytest.raises(GenaugError, match="not by"):
        recipe(name="other").load(tmp_path / "saved")


class CountingConcept:
    placeholder = {}

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)


@dataclasses.dataclass(frozen=True)
class CountingNaming(Naming):
    calls: list = dataclasses.field(default_factory=list)
    rank: int = 1
    identity = Identity("CountingNaming", never=("calls",))

    def learn(self, backbone, real, class_prompt, checkpoint=None, progress=False):
        self.calls.append(checkpoint)
        return CountingConcept()


def test_a_concept_is_learned_once_per_content(tmp_path, monkeypatch):
    from genaug.concepts.concept import Concept

    monkeypatch.setattr(Concept, "load", classmethod(lambda cls, folder: CountingConcept()))
    real, naming, backbone = toy_photographs(), CountingNaming(), toy_backbone()
    for _ in range(2):
        learn_or_load(naming, backbone, real, ClassPrompt(), tmp_path)
    assert len(naming.calls) == 1
    learn_or_load(dataclasses.replace(naming, rank=2), backbone, real, ClassPrompt(), tmp_path)
    learn_or_load(naming, backbone, real[1:], ClassPrompt(), tmp_path)
    learn_or_load(naming, toy_backbone(0.2), real, ClassPrompt(), tmp_path)
    learn_or_load(naming, backbone, real, ClassPrompt(metaclass="bird"), tmp_path)
    assert len(naming.calls) == 5
    assert len(set(naming.calls)) == 5
    next(tmp_path.rglob("complete")).unlink()
    for _ in range(1):
        (
            learn_or_load(naming, backbone, real, ClassPrompt(), tmp_path),
            learn_or_load(dataclasses.replace(naming, rank=2), backbone, real, ClassPrompt(), tmp_path),
        )
        (
            learn_or_load(naming, backbone, real[1:], ClassPrompt(), tmp_path),
            learn_or_load(naming, toy_backbone(0.2), real, ClassPrompt(), tmp_path),
        )
        learn_or_load(naming, backbone, real, ClassPrompt(metaclass="bird"), tmp_path)
    assert len(naming.calls) == 6


def test_global_random_state_is_left_alone():
    real = toy_photographs()
    torch.manual_seed(3), np.random.seed(3)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    method = recipe(start=FromPhotograph((0.5,))).fit(real)
    method.paint(method.plan(real, Budget(1), 0), real)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("wrong", [None, [], [np.zeros((8, 8, 3))], [None]])
def test_a_finish_that_returns_no_pictures_is_named(wrong):
    @dataclasses.dataclass(frozen=True)
    class Lost(Finish):
        def finish(self, images, rows, real):
            return wrong

    method, real = recipe(finish=Lost()), toy_photographs()
    rows = method.fit(real).plan(real, Budget(1), 0)[:1]
    with pytest.raises(
        GenaugError, match="finish Lost of 'recipe' must return one uint8 image for each of 1 rows"
    ):
        method.paint(rows, real)


def test_a_setting_that_is_an_array_is_compared_by_its_content():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Palette(Finish):
        colours: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
        identity = Identity("Palette", later=("colours",))

        def finish(self, images, rows, real):
            return images

    assert Palette().settings() == {}
    assert Palette(np.ones(3)).settings()["colours"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "start",
    [
        FromNoise(),
        OwnLatent(),
        FromPhotograph((0.4,)),
        FromPhotograph((0.2, 0.6), every=True),
        CircleStart(),
        CircleStart("noise"),
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_what_is_expected_of_a_budget_is_what_its_plan_takes(start, guidance):
    real = toy_photographs((3, 3))
    method = recipe(start=start, guidance_scale=guidance).fit(real)
    rows = method.plan(real, Budget(2), 0)
    assert method.expected_evaluations(12, len(real)) == method.evaluations(rows)


def test_drawn_strengths_cost_their_mean():
    real, method = toy_photographs(), recipe(start=FromPhotograph((0.2, 0.8)))
    planned = method.fit(real).evaluations(method.plan(real, Budget(200), 0))
    assert method.expected_evaluations(200 * len(real), len(real)) == pytest.approx(planned, rel=0.03)
