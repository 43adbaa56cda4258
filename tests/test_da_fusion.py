import numpy as np
import pytest
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName, LearnedTokens, learn_or_load
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.da_fusion import da_fusion, later_tokens
from genaug.plans import Budget
from genaug.prompts import ClassPrompt
from genaug.schedule import Showing, SwapOwn, TrainingSchedule
from genaug.stable_diffusion import load_backbone


def fitted(real, **settings):
    return da_fusion(
        **{"naming": ClassName(), "backbone": toy_backbone(), "guidance_scale": 1.0, **settings}
    ).fit(real)


def test_the_two_published_ways_of_learning_words():
    assert da_fusion().naming == LearnedTokens(
        steps=None, learning_rate=2e-3, batch_size=4, tokens_per_class=1, initial="the"
    )
    later = later_tokens(10)
    assert (later.steps, later.batch_size, later.tokens_per_class, later.initial) == (20_000, 8, 4, None)
    assert later.learning_rate == pytest.approx(4e-3)
    assert da_fusion().use.word == "swap_own"
    assert da_fusion().use.replace == 0.5
    assert da_fusion().guidance_scale == 7.5


def test_each_strength_comes_up_a_quarter_of_the_time_and_runs_its_steps():
    real = toy_photographs((5, 5))
    method = fitted(real)
    rows = method.plan(real, Budget(400), 3)
    drawn = np.array([row.settings["strength"] for row in rows])
    counts = np.array([(drawn == strength).sum() for strength in (0.25, 0.5, 0.75, 1.0)])
    assert counts.sum() == len(rows) == 4000
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.27
    steps = {row.settings["strength"]: 25 - method.start.first_step(row, 25) for row in rows}
    assert steps == {0.25: 6, 0.5: 12, 0.75: 18, 1.0: 25}
    assert method.evaluations(rows) == int((counts * (6, 12, 18, 25)).sum())
    for name in real.ids[:3]:  # and of each photograph's own variants too
        own = drawn[[row.inputs[0][0] == name for row in rows]]
        assert all(
            abs((own == strength).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(own))
            for strength in (0.25, 0.5, 0.75, 1.0)
        )


def test_one_strength_is_always_that_one():
    real = toy_photographs()
    method = fitted(real, strengths=0.5)
    assert method.start.strengths == (0.5,)
    assert {row.settings["strength"] for row in method.plan(real, Budget(3), 0)} == {0.5}
    with pytest.raises(GenaugError, match="strength"):
        da_fusion(strengths=(0.5, 1.1))


def test_every_row_edits_its_own_photograph_and_keeps_its_label():
    real = toy_photographs((4, 2))
    rows = fitted(real).plan(real, Budget(5), 0)
    assert len(rows) == 30
    for row in rows:
        ((name, weight),) = row.inputs
        assert weight == 1
        assert row.settings["anchor"] == name
        assert row.label == tuple(real.labels[real.index([name])[0]])
        assert row.prompts == ((f"a photo of a {real.class_names[row.label.index(1)]}", 1.0),)


def synthetic_of(rows, real):
    info = [{"sources": [list(source) for source in row.inputs]} for row in rows]
    return LabeledImages(
        [np.zeros((8, 8, 3), np.uint8)] * len(rows),
        np.array([row.label for row in rows]),
        real.class_names,
        [row.id for row in rows],
        info=info,
    )


def test_a_photograph_is_swapped_for_its_own_variants_only_whatever_the_order():
    real = toy_photographs((5, 5))
    rows = fitted(real).plan(real, Budget(3), 0)
    synthetic, source = synthetic_of(rows, real), {row.id: row.inputs[0][0] for row in rows}
    backwards = real[list(range(len(real)))[::-1]]
    swaps = 0
    for photographs in (real, backwards):
        for epoch in range(20):
            for row in TrainingSchedule(photographs, synthetic, showing=Showing(SwapOwn())).plan(epoch).rows:
                kind, name = row.shown.split(":", 1)
                swaps += kind == "synthetic"
                assert (source[name] if kind == "synthetic" else name) == row.real_id
    assert abs(swaps / 400 - 0.5) < 4 * 0.5 / np.sqrt(400)
    strangers = LabeledImages(
        list(real.pixels), real.labels, real.class_names, [f"new-{name}" for name in real.ids]
    )
    with pytest.raises(GenaugError, match="No synthetic image was used"):
        TrainingSchedule(strangers, synthetic, showing=Showing(SwapOwn()))


def test_strength_one_still_holds_a_trace_of_the_photograph():
    from genaug.sampling import row_noise

    real = toy_photographs()
    method = fitted(real, strengths=1.0)
    rows = method.plan(real, Budget(1), 0)
    starts, first = method.start.latents(rows, real, method.context)
    remaining = float(method.backbone.alphas_cumprod[method.backbone.timesteps(25)[0]].sqrt())
    clean = method.backbone.encode(real.batch([row.inputs[0][0] for row in rows], size=8))
    expected = remaining * clean + (1 - remaining**2) ** 0.5 * row_noise(
        method.backbone.latent_shape, [row.seed for row in rows]
    )
    assert first.tolist() == [0] * len(rows)
    assert 0 < remaining < 0.2
    assert torch.allclose(starts, expected.to(starts), atol=1e-5)


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny")


def test_words_of_one_split_never_paint_another(tiny, tmp_path):
    """The released pipeline is shared by all objects of a process and keeps the first split's words; here
    words follow content."""
    first, second = toy_photographs((2, 2), seed=0), toy_photographs((2, 2), seed=1)
    naming = LearnedTokens(steps=2, learning_rate=0.1, batch_size=2, tokens_per_class=2, initial=None)
    left, right, again = (
        learn_or_load(naming, tiny, real, ClassPrompt(), tmp_path) for real in (first, second, first)
    )
    assert left.fingerprint() == again.fingerprint() != right.fingerprint()
    assert len(list((tmp_path / "concepts").iterdir())) == 2
    plain = tiny.embed(["a photo of a <c000>"])
    with tiny.using(left):
        inside = tiny.embed(["a photo of a <c000>"])
    with tiny.using(right):
        other = tiny.embed(["a photo of a <c000>"])
    assert not torch.equal(inside, other)
    assert torch.equal(plain, tiny.embed(["a photo of a <c000>"]))
    assert all(vectors.shape[0] == 2 for vectors in left.tokens.values())


def test_two_methods_in_one_process_keep_their_own_words(tiny):
    real = toy_photographs((1, 1))
    learned = [
        da_fusion(
            backbone=tiny,
            naming=LearnedTokens(steps=1, learning_rate=rate, batch_size=2, initial=None),
            num_inference_steps=5,
            strengths=1.0,
        ).fit(real)
        for rate in (0.0, 1.0)
    ]
    rows = learned[0].plan(real, Budget(1), 0)
    alone, moved, after = (
        learned[0].paint(rows, real),
        learned[1].paint(rows, real),
        learned[0].paint(rows, real),
    )
    assert all(np.array_equal(left, right) for left, right in zip(alone, after))
    assert any(not np.array_equal(left, right) for left, right in zip(alone, moved))


def test_classes_whose_names_differ_by_a_blank_have_words_of_their_own():
    from genaug.concepts.attach import placeholder_names

    words = placeholder_names(["hot dog", "hot_dog", "Hot Dog"])
    assert len(set(words.values())) == 3
    assert ClassPrompt().text("leafy spurge", {"other": "<c000>"}) == "a photo of a leafy spurge"
