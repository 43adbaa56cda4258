import shutil

import numpy as np
import pytest
import torch
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.choices import PaintContext
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.real_filter import (
    FeatureFilter,
    above_even_share,
    clip_probabilities,
    kept_rates,
    lowest_share,
    nearest_similarities,
    real_filter,
)
from genaug.plan_file import make_plan
from genaug.plans import Budget, PlanRow
from genaug.prompts import ClassPrompt
from genaug.recipe import Recipe
from genaug.synthesis import synthesize


class Brightness:
    "A stand-in network: the mean of the red and of the blue channel, so that the right answer is known."

    name = "brightness"

    def features(self, images):
        return images.batch().mean((2, 3)).double().numpy()[:, [0, 2]] if len(images) else np.zeros((0, 2))

    def fingerprint(self):
        return "brightness"


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setattr("genaug.methods.real_filter.feature_network", lambda *arguments: Brightness())


def plain(red, blue, size=4):
    return np.full((size, size, 3), (red, 0, blue), np.uint8)


def as_rows(labels, number=0):
    return [
        PlanRow(
            f"row{index}", "real-filter", tuple(float(value) for value in label), (), (), index, round=number
        )
        for index, label in enumerate(labels)
    ]


def studio(**settings):
    return PaintContext(
        **{
            "backbone": toy_backbone(),
            "concept": None,
            "class_prompt": ClassPrompt(),
            "num_inference_steps": 4,
            "pool": None,
            **settings,
        }
    )


def method(real, **settings):
    return real_filter(
        **{"backbone": toy_backbone(), "guidance_scale": 1.0, "num_inference_steps": 4, **settings}
    ).fit(real)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".png", ".jsonl", ".json")
    }


def test_the_similarities_are_those_of_a_loop():
    draw = np.random.default_rng(0)
    features, known, own = draw.normal(size=(7, 5)), draw.normal(size=(6, 5)), draw.random((7, 6)) < 0.5
    own[0], own[1] = True, False
    near, other = nearest_similarities(features, known, own)
    for index in range(7):
        cosines = [
            features[index] @ row / np.linalg.norm(features[index]) / np.linalg.norm(row) for row in known
        ]
        assert near[index] == pytest.approx(
            max([value for value, mine in zip(cosines, own[index]) if mine], default=-np.inf)
        )
        assert other[index] == pytest.approx(
            max([value for value, mine in zip(cosines, own[index]) if not mine], default=-np.inf)
        )
    assert np.isfinite(nearest_similarities(np.zeros((1, 5)), known, own[:1])[0]).all()


def test_constructed_features_are_kept_and_dropped_exactly(brightness):
    real = LabeledImages([plain(200, 0), plain(0, 200)], [0, 1], ["red", "blue"], ["r", "b"])
    candidates = [plain(90, 80), plain(80, 90), plain(50, 50), plain(80, 90), plain(0, 10), plain(10, 0)]
    rows = as_rows(np.eye(2)[[0, 0, 0, 1, 1, 1]], number=3)
    decisions = FeatureFilter().select(rows, candidates, real, studio())
    assert [decision.keep for decision in decisions] == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]  # the third is a tie
    assert "2 of 3 of 'red' passed in round 3" in decisions[0].reason
    assert "2 of 3 of 'blue' passed in round 3" in decisions[5].reason
    assert {decision.weight for decision in decisions} == {1.0}


def test_one_class_alone_keeps_everything(brightness):
    real = LabeledImages([plain(200, 0)], [0], ["red"], ["r"])
    assert all(
        decision.keep
        for decision in FeatureFilter().select(
            as_rows(np.ones((2, 1))), [plain(0, 200), plain(200, 0)], real, studio()
        )
    )
    assert above_even_share(np.ones((2, 1)), np.ones((2, 1), bool)).all()


def test_several_labels_compare_equal_label_rows(brightness):
    real = LabeledImages(
        [plain(200, 0), plain(0, 200), plain(200, 200)],
        np.array([[1, 0], [0, 1], [1, 1]]),
        ["red", "blue"],
        ["r", "b", "both"],
        "multi",
    )
    decisions = FeatureFilter().select(
        as_rows([[1, 1], [1, 0], [1, 1]]), [plain(90, 100), plain(90, 100), plain(100, 0)], real, studio()
    )
    assert [decision.keep for decision in decisions] == [
        True,
        False,
        False,
    ]
    assert "'red and blue'" in decisions[0].reason


@pytest.mark.parametrize(
    "count, percentile, dropped", [(9, 10, 0), (10, 10, 1), (25, 10, 2), (4, 50, 2), (3, 0, 0)]
)
def test_the_lowest_share_is_rounded_down(count, percentile, dropped):
    scores = np.random.default_rng(count).random(count)
    marked = lowest_share(scores, percentile)
    assert marked.sum() == dropped
    assert dropped == 0 or scores[marked].max() < scores[~marked].min()
    assert np.flatnonzero(lowest_share(np.zeros(count), percentile)).tolist() == list(
        range(count - dropped, count)
    )


def test_the_plan_holds_all_candidates_and_a_smaller_budget_is_a_prefix():
    real = toy_photographs()
    fitted = method(real, rounds=7)
    rows = fitted.plan(real, Budget(2), 0)
    assert len(rows) == 7 * 12
    assert sorted({row.round for row in rows}) == list(range(7))
    assert len({row.seed for row in rows}) == len(rows)
    assert fitted.plan(real, Budget(5), 0)[: len(rows)] == rows


def test_rounds_end_with_exactly_the_wanted_number(tmp_path):
    real = toy_photographs((4, 3))
    made = synthesize(method(real), real, tmp_path / "set", Budget(4), seed=0, progress=False)
    rates = kept_rates(tmp_path / "set")
    assert max(rate["rounds"] for rate in rates) > 1
    assert [rate["wanted"] for rate in rates] == [16, 12]
    assert all(
        rate["painted"] == rate["wanted"] * rate["rounds"] and rate["passed"] >= rate["wanted"]
        for rate in rates
    )
    assert made.counts() == {"square": 16.0, "bar": 12.0}


def test_a_killed_run_resumes_to_the_same_set_and_so_do_shards(tmp_path):
    real, calls = toy_photographs(), []
    whole = method(real)
    synthesize(whole, real, tmp_path / "whole", Budget(3), seed=1, batch_size=4, progress=False)
    for deadly in (2, 6):
        fragile = method(real)

        def paint(rows, images, fragile=fragile, deadly=deadly):
            calls.append(len(rows))
            if len(calls) == deadly:
                raise RuntimeError("killed")
            return Recipe.paint(fragile, rows, images)

        calls.clear()
        fragile.paint, folder = paint, tmp_path / f"killed{deadly}"
        with pytest.raises(RuntimeError):
            synthesize(fragile, real, folder, Budget(3), seed=1, batch_size=4, progress=False)
        synthesize(fragile, real, folder, Budget(3), seed=1, batch_size=4, progress=False)
        assert files_of(folder) == files_of(tmp_path / "whole")
    for index in (0, 1):
        synthesize(
            method(real),
            real,
            tmp_path / "shards",
            Budget(3),
            seed=1,
            batch_size=4,
            shard=(index, 2),
            progress=False,
        )
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "whole")


def test_a_class_that_never_passes_is_named_or_falls_short_by_consent(tmp_path, brightness):
    real = LabeledImages(
        [plain(250, 20), plain(20, 250), plain(250, 0)],
        [0, 1, 2],
        ["square", "bar", "double"],
        ["s", "b", "d"],
    )
    shapes = torch.full((3, 3, 8, 8), -0.5)
    shapes[[0, 2], 0] = (
        0.6  # the third class looks like the first, its photograph is further out than any image of it
    )
    shapes[1, 2] = 0.6
    hopeless = method(
        real, backbone=type(toy_backbone())(shapes, 0.02, ["square", "bar", "double"]), rounds=3
    )
    with pytest.raises(GenaugError, match="The class 'double' got 0 of 2 images"):
        synthesize(hopeless, real, tmp_path / "set", Budget(2), seed=0, progress=False)
    with pytest.raises(GenaugError, match="unfinished"):
        kept_rates(tmp_path / "set")
    made = synthesize(hopeless, real, tmp_path / "set", Budget(2), seed=0, progress=False, allow_fewer=True)
    assert made.counts() == {"square": 2.0, "bar": 2.0, "double": 0.0}
    assert kept_rates(tmp_path / "set")[2] == {
        "class_name": "double",
        "wanted": 2,
        "painted": 6,
        "passed": 0,
        "rounds": 3,
    }


def test_features_of_the_photographs_are_kept_once_however_many_rounds(tmp_path):
    real = toy_photographs()
    fitted = real_filter(backbone=toy_backbone(), guidance_scale=1.0, num_inference_steps=4).fit(
        real, tmp_path / "work"
    )
    rows = fitted.plan(real, Budget(1), 0)
    for number in (0, 1):
        chosen = [row for row in rows if row.round == number]
        fitted.select(chosen, fitted.paint(chosen, real), real)
    assert len(list((tmp_path / "work" / "features").iterdir())) == 1


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"rule": "nearest"}, "real_nn, clip_zero_shot"),
        ({"rounds": 0}, "at least 1 and at most 20"),
        ({"rounds": 21}, "at least 1 and at most 20"),
        ({"percentile": 100}, "percentile"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(GenaugError, match=words):
        real_filter(**settings)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    "A CLIP model with random weights, saved in the layout of transformers."
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=48
    )
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            max_position_embeddings=48,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shared,
        ),
        vision_config=dict(image_size=16, patch_size=8, **shared),
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config)
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
        model.logit_scale.data.fill_(2.0)
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder, safe_serialization=True)
    CLIPProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
    ).save_pretrained(folder)
    return folder


def pictures(count=7, channels=3):
    return noise_set(np.arange(count) % 2, ["wren", "owl"], size=20, channels=channels, seed=1, ids="{}")


def test_probabilities_are_those_of_transformers(clip):
    from transformers import CLIPModel, CLIPProcessor

    images, texts, state = (
        pictures(),
        ["a photo of a wren", "a photo of an owl", "nothing"],
        torch.get_rng_state(),
    )
    got = clip_probabilities(images, texts, clip, batch_size=3)
    assert torch.equal(torch.get_rng_state(), state)
    inputs = CLIPProcessor.from_pretrained(clip)(
        text=texts, images=[images.image(index) for index in range(7)], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip).eval()(**inputs).logits_per_image.softmax(1).numpy()
    assert np.allclose(got, expected, atol=1e-5)
    assert np.ptp(got, axis=0).max() > 1e-3
    assert clip_probabilities(pictures(2, 1), texts, clip).shape == (2, 3)


def test_the_two_clip_rules_decide_by_these_probabilities(clip):
    images, prompt = pictures(20), ClassPrompt(metaclass="bird")
    rows, shown = as_rows(images.labels), list(images.pixels)
    belief = clip_probabilities(images, ["a photo of a wren bird", "a photo of a owl bird"], clip)[
        np.arange(20), images.targets
    ]
    decisions = FeatureFilter("clip_zero_shot", clip=str(clip)).select(
        rows, shown, images, studio(class_prompt=prompt)
    )
    assert [decision.keep for decision in decisions] == (belief > 0.5).tolist()
    assert 0 < (belief > 0.5).sum() < 20
    seen = clip_probabilities(images, ["a photo with a bird", "a photo without a bird"], clip)[:, 0]
    dropped = [
        not decision.keep
        for decision in FeatureFilter("metaclass_percentile", clip=str(clip)).select(
            rows, shown, images, studio(class_prompt=prompt)
        )
    ]
    assert np.flatnonzero(dropped).tolist() == sorted(np.argsort(seen)[:2].tolist())


@pytest.mark.parametrize("rule", ["clip_zero_shot", "metaclass_percentile"])
def test_what_is_missing_is_said_before_anything_is_painted(rule, tmp_path, clip):
    real, prompt = toy_photographs(), ClassPrompt(metaclass="shape")
    with pytest.raises(GenaugError, match="no folder was given"):
        method(real, rule=rule, class_prompt=prompt)
    with pytest.raises(GenaugError, match="there is none in"):
        method(real, rule=rule, class_prompt=prompt, clip=str(tmp_path / "absent"))
    shutil.copytree(clip, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(GenaugError, match="cannot be read"):
        method(real, rule=rule, class_prompt=prompt, clip=str(tmp_path / "clip"))
    if rule == "metaclass_percentile":
        with pytest.raises(GenaugError, match="metaclass"):
            method(real, rule=rule, clip=str(clip))


def test_a_plan_depends_on_the_weights_of_clip_and_not_on_where_they_lie(clip, tmp_path):
    real = toy_photographs()
    shutil.copytree(clip, tmp_path / "moved")
    plans = {
        name: make_plan(method(real, rule="clip_zero_shot", clip=str(folder)), real, Budget(1), 0)
        for name, folder in (("first", clip), ("moved", tmp_path / "moved"))
    }
    assert plans["first"].rows == plans["moved"].rows
    assert plans["first"].text() == plans["moved"].text()
    assert str(clip) not in plans["first"].text()
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "moved" / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, tmp_path / "moved" / "model.safetensors", metadata={"format": "pt"})
    assert (
        make_plan(method(real, rule="clip_zero_shot", clip=str(tmp_path / "moved")), real, Budget(1), 0)
        .rows[0]
        .id
        != plans["first"].rows[0].id
    )
