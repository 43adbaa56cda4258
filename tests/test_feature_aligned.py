"""Feature-aligned diffusion: where gradients go, what w2 = 0 means, what the expert is shown, what is needed
to paint, how pictures are judged."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_pipeline import random_pipeline
from toy_sets import noise_set
from toy_world import toy_backbone, toy_photographs

from genaug.arms import make_arm, tiny_settings
from genaug.concepts.concept import Concept
from genaug.concepts.dreambooth import (
    FineTuned,
    FineTuningSettings,
    Objective,
    Step,
    fine_tune,
    step_loss,
    weights_exchanged,
)
from genaug.concepts.textual_inversion import learning_set
from genaug.core import LabeledImages
from genaug.messages import GenaugError
from genaug.methods.feature_aligned import (
    AlignedWeights,
    Alignment,
    expert_features,
    expert_preset,
    feature_aligned,
    fine_tuned,
    generation_accuracy,
    last_down_block,
    loss_curve,
    pooled,
    shown_picture,
    train_expert,
)
from genaug.pixel_backbone import PixelBackbone
from genaug.plans import Budget
from genaug.prompts import ClassPrompt
from genaug.stable_diffusion import StableDiffusionBackbone

QUICK = FineTuningSettings(steps=3, learning_rate=1e-3, batch_size=3, flip=False)
CHEAP = AlignedWeights(
    steps=2,
    batch_size=2,
    expert_network="letters",
    expert_weights=None,
    expert_size=32,
    expert_updates=2,
    flip=False,
)


@pytest.fixture(scope="module")
def backbone():
    pipe = random_pipeline()
    return StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def real():
    targets = np.repeat([0, 1], 4)
    return noise_set(targets, ["wren", "owl"], size=16, channels=1, high=60, tints=(60, 150))


@pytest.fixture(scope="module")
def expert(real):
    return train_expert(real, expert_preset("letters", None, 32, updates=2, learning_rate=1e-2))


def alignment_only(backbone, real, term, number=0):
    """The gradient of the alignment alone: names of the denoiser's parameters that it reaches, and the
    projection."""
    prepared = learning_set(backbone, real, ClassPrompt())
    with weights_exchanged(backbone, learning=True):
        projection = term.modules(backbone)["projection"]
        step_loss(
            backbone,
            prepared,
            None,
            FineTuningSettings(steps=10, noise_weight=0.0),
            Objective(extra=term),
            number,
        ).backward()
        reached = {
            name
            for name, parameter in backbone.unet.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > 0
        }
    return reached, projection


def test_the_expert_is_grey_frozen_and_kept(real, expert, tmp_path):
    preset = expert_preset("letters", None, 32, updates=2, learning_rate=1e-2)
    first, again = train_expert(real, preset, cache=tmp_path), train_expert(real, preset, cache=tmp_path)
    assert expert.channels == 1
    assert not expert.network.training
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in expert.network.parameters()
    )
    assert all(
        torch.equal(value, again.network.state_dict()[name])
        for name, value in first.network.state_dict().items()
    )
    assert len(list(tmp_path.iterdir())) == 1
    train_expert(real, preset, seed=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("expert_input", ["noisy", "clean", "predicted"])
def test_gradients_reach_projection_and_down_path_only(backbone, real, expert, expert_input):
    before = {name: value.clone() for name, value in expert.network.state_dict().items()}
    reached, projection = alignment_only(backbone, real, Alignment(expert, expert_input=expert_input))
    assert projection.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in expert.network.parameters())
    assert any(name.startswith("down_blocks.1") for name in reached)
    assert not any(name.startswith(("up_blocks", "mid_block", "conv_out")) for name in reached)
    assert all(torch.equal(value, before[name]) for name, value in expert.network.state_dict().items())


def test_the_expert_stays_in_evaluation_mode_whoever_switches_it(backbone, real, expert):
    before = {name: value.clone() for name, value in expert.network.state_dict().items()}
    expert.network.train()  # as a parent module's train() would
    fine_tune(backbone, real, settings=QUICK, objective=Objective(extra=Alignment(expert)))
    assert not expert.network.training
    assert all(torch.equal(value, before[name]) for name, value in expert.network.state_dict().items())
    assert any("running_mean" in name for name in before)


def test_weight_zero_is_the_baseline_bit_for_bit(backbone, real, expert):
    plain = fine_tune(backbone, real, settings=QUICK)
    zero, aligned = (
        fine_tune(backbone, real, settings=QUICK, objective=Objective(extra=Alignment(expert, weight=weight)))
        for weight in (0.0, 1.0)
    )
    assert zero.fingerprint() == plain.fingerprint() != aligned.fingerprint()
    assert set(aligned.weights) == {f"unet.{name}" for name, _ in backbone.unet.named_parameters()}


def test_arms_see_the_same_tiles_and_noise(backbone, real, expert):
    said = {}
    for name, extra in (
        ("plain", None),
        ("aligned", Alignment(expert)),
        ("shuffled", Alignment(expert, shuffled=True)),
    ):
        watched = Objective(
            extra=extra, watch=lambda number, parts, name=name: said.setdefault(name, []).append(parts)
        )
        fine_tune(backbone, real, settings=QUICK, objective=watched)
    assert said["plain"][0]["noise"] == said["aligned"][0]["noise"] == said["shuffled"][0]["noise"]
    assert said["aligned"][0]["cosine"] != said["shuffled"][0]["cosine"]
    assert set(said["plain"][0]) == {"noise"}


def test_the_weight_ends_where_it_is_told(backbone, real, expert):
    said = []
    watched = Objective(
        extra=Alignment(expert, align_until=0.5), watch=lambda number, parts: said.append("cosine" in parts)
    )
    fine_tune(backbone, real, settings=dataclasses.replace(QUICK, steps=4), objective=watched)
    assert said == [True, True, False, False]
    assert Alignment(expert).weight_at(0.99) == 1.0


def one_step(backbone, seed=0, rows=6, tap=(6, 32)):
    drawn = torch.Generator().manual_seed(seed)
    latents, noisy, predicted = torch.randn(3, rows, *backbone.latent_shape, generator=drawn)
    return Step(
        backbone,
        0,
        seed,
        torch.arange(rows),
        latents,
        noisy,
        torch.full((rows,), 500),
        predicted,
        [torch.randn(*tap, 4, 4, generator=drawn)],
    )


def test_the_loss_is_one_minus_the_cosine(backbone, expert):
    term, step = Alignment(expert), one_step(backbone)
    projection = term.modules(backbone)["projection"]
    step = step._replace(
        taps=[torch.randn(6, projection.out_features, 4, 4, generator=torch.Generator().manual_seed(1))]
    )
    loss, said = term.loss(step)
    rows = expert_features(expert, backbone.decode(step.noisy).detach())
    by_hand = torch.stack(
        [
            1 - (left @ right) / left.norm() / right.norm()
            for left, right in zip(projection(rows), step.taps[0].mean((2, 3)))
        ]
    ).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert said["cosine"] == pytest.approx(1 - loss.item(), abs=1e-6)


def test_the_expert_is_shown_what_was_asked(backbone):
    step = one_step(backbone)
    share = float(backbone.alphas_cumprod[500])
    with torch.no_grad():
        expected = {
            "noisy": step.noisy,
            "clean": step.latents,
            "predicted": (step.noisy - (1 - share) ** 0.5 * step.predicted) / share**0.5,
        }
        for name, state in expected.items():
            assert torch.allclose(shown_picture(step, name), backbone.decode(state), atol=1e-5)


def test_shuffling_never_leaves_a_tile_with_itself_and_changes_each_step(backbone, expert, monkeypatch):
    from genaug.methods import feature_aligned

    rows = torch.eye(6, 128)
    monkeypatch.setattr(feature_aligned, "expert_features", lambda expert, images: rows[: len(images)])
    term, orders = Alignment(expert, shuffled=True), []
    term.modules(backbone)
    for number in range(20):
        seen = []
        term.projection = lambda inputs: (seen.append(inputs), torch.ones(6, 32, requires_grad=True))[1]
        term.loss(one_step(backbone)._replace(number=number))
        orders.append(tuple(seen[0].argmax(1).tolist()))
    assert all(
        sorted(order) == list(range(6)) and all(position != index for index, position in enumerate(order))
        for order in orders
    )
    assert len(set(orders)) > 10


def test_taps_by_name(backbone, real, expert):
    reached, _ = alignment_only(backbone, real, Alignment(expert, tap="unet.mid_block"))
    assert any(name.startswith("mid_block") for name in reached)
    assert not any(name.startswith("up_blocks") for name in reached)
    reached, _ = alignment_only(backbone, real, Alignment(expert, tap="unet.down_blocks.1.resnets.0.conv1"))
    assert not any(name.startswith("down_blocks.1.resnets.0.conv2") for name in reached)
    with pytest.raises(GenaugError, match="no module"):
        alignment_only(backbone, real, Alignment(expert, tap="unet.middle"))
    assert last_down_block(backbone) == "unet.down_blocks.1"


@pytest.mark.parametrize("wrong", [{"expert_input": "blurred"}, {"align_until": 0.0}, {"weight": -1.0}])
def test_impossible_settings_are_one_sentence(expert, wrong):
    with pytest.raises(GenaugError):
        Alignment(expert, **wrong)


def test_pooling():
    feature = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(pooled(feature), feature.mean((2, 3)))
    assert torch.equal(pooled(feature, "max"), feature.amax((2, 3)))
    assert pooled(torch.ones(2, 5, 7)).shape == (2, 7)
    for bad in ((torch.ones(2, 3), "mean"), (feature, "median")):
        with pytest.raises(GenaugError):
            pooled(*bad)


def test_colour_is_brought_to_the_experts_channels(expert):
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        expert_features(expert, grey), expert_features(expert, grey.expand(-1, 3, -1, -1)), atol=1e-4
    )
    assert not expert_features(expert, F.interpolate(grey, size=50)).requires_grad


def test_the_pixel_variant_learns_its_classes(real, expert):
    pixels = PixelBackbone.fresh(real.class_names, size=16, channels=1, widths=(8, 16))
    tuned = fine_tune(pixels, real, settings=QUICK, objective=Objective(extra=Alignment(expert)))
    assert not torch.equal(tuned.weights["classes.weight"], pixels.classes.weight)
    assert (
        fine_tune(
            pixels, real, settings=QUICK, objective=Objective(extra=Alignment(expert, weight=0))
        ).fingerprint()
        == fine_tune(pixels, real, settings=QUICK).fingerprint()
    )


def test_painting_needs_no_expert(backbone, real, tmp_path, monkeypatch):
    method = feature_aligned(naming=CHEAP, backbone=backbone, num_inference_steps=3).fit(
        real, tmp_path / "work"
    )
    rows = method.plan(real, Budget(1), 0)
    images = method.paint(rows, real)
    method.save(tmp_path / "method")
    monkeypatch.setattr("genaug.methods.feature_aligned.train_expert", None)
    monkeypatch.setattr("genaug.methods.feature_aligned.expert_features", None)
    fresh = feature_aligned(naming=CHEAP, backbone=backbone, num_inference_steps=3).load(tmp_path / "method")
    assert all(np.array_equal(left, right) for left, right in zip(images, fresh.paint(rows, real)))
    assert isinstance(fresh.concept, FineTuned)
    again = feature_aligned(naming=CHEAP, backbone=backbone, num_inference_steps=3).fit(
        real, tmp_path / "work"
    )  # read, not learned
    assert again.concept.fingerprint() == method.concept.fingerprint()
    assert len(method.concept.settings["curve"]) == 2
    assert not list((tmp_path / "method").rglob("*classifier*"))


def test_a_closed_form_model_has_nothing_to_tune():
    method = feature_aligned(backbone=toy_backbone()).fit(toy_photographs())
    assert isinstance(method.concept, Concept)
    assert method.context.text(["bar"]) == "a photo of a bar"


def test_defaults_are_the_papers_and_the_baseline_differs_in_the_weight_only():
    ours, plain = feature_aligned().naming, fine_tuned().naming
    assert (
        ours.epochs,
        ours.learning_rate,
        ours.batch_size,
        ours.noise_weight,
        ours.alignment_weight,
        ours.expert_input,
        ours.expert_network,
    ) == (20, 1e-4, 4, 1.0, 1.0, "noisy", "resnet50")
    assert dataclasses.replace(plain, alignment_weight=1.0) == ours
    assert feature_aligned().guidance_scale == fine_tuned().guidance_scale == 1.0
    tiny, base = (tiny_settings(name)["naming"] for name in ("feature-aligned", "fine-tuned"))
    assert dataclasses.replace(base, alignment_weight=1.0) == tiny
    assert make_arm("feature-aligned@naming.shuffled=true").augmenter.naming.shuffled


def test_generation_accuracy_masks_and_counts():
    class Fixed:
        class_names = ("wren", "owl", "empty")

        def predict(self, images):
            return np.array([[0.4, 0.1, 0.5], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])

    images = LabeledImages(
        [np.zeros((2, 2, 1), np.uint8)] * 4, [0, 0, 1, 1], ["wren", "owl", "empty"], list("abcd")
    )
    rows = {(metric, part): value for metric, part, value, _ in generation_accuracy(Fixed(), images)}
    assert rows["generation_accuracy", ""] == 0.5
    assert rows["generation_accuracy_unmasked", ""] == 0.25
    assert rows["generation_accuracy", "class=wren"] == 0.5
    assert rows["confusion", "true=owl,pred=wren"] == 0.5
    assert not any("pred=empty" in part for _, part in rows)


def test_curves_are_averaged_over_stretches():
    curve = loss_curve(
        [(step, {"noise": float(step), **({"cosine": 1.0} if step < 5 else {})}) for step in range(10)],
        points=2,
    )
    assert curve == [{"step": 5, "noise": 2.0, "cosine": 1.0}, {"step": 10, "noise": 7.0}]
