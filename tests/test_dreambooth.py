"Fine-tuning all weights: what is left behind, what is restored, what the terms of the loss are, files."

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from random_pipeline import random_pipeline
from toy_sets import noise_set
from toy_world import toy_backbone

from genaug.concepts.dreambooth import (
    DreamBoothSettings,
    FineTuned,
    FineTuningSettings,
    Objective,
    class_images,
    draw_step,
    fine_tune,
    learn_dreambooth,
    noise_error,
    step_loss,
    trainable_parts,
    weights_exchanged,
)
from genaug.concepts.textual_inversion import learning_set, noise_prediction_loss
from genaug.messages import GenaugError
from genaug.pixel_backbone import PixelBackbone
from genaug.prompts import ClassPrompt
from genaug.stable_diffusion import StableDiffusionBackbone

QUICK = FineTuningSettings(steps=3, learning_rate=1e-2, batch_size=2, flip=False)
DREAM = DreamBoothSettings(steps=3, learning_rate=1e-2, batch_size=2, flip=False)


def wrap(**settings):
    pipe = random_pipeline(**settings)
    return StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def backbone():
    return wrap()


@pytest.fixture(scope="module")
def pixels():
    model = PixelBackbone.fresh(["wren", "owl"], size=16, channels=1, widths=(8, 16))
    with torch.no_grad():
        model.classes.weight.copy_(
            torch.randn(model.classes.weight.shape, generator=torch.Generator().manual_seed(0))
        )
    return model


@pytest.fixture(scope="module")
def real():
    return noise_set([0, 0, 0, 1, 1], ["wren", "owl"], size=16, channels=1, high=60, tints=(60, 150))


def state(model):
    return {
        f"{name}.{key}": value.clone()
        for name, part in model.modules.items()
        for key, value in part.state_dict().items()
    }


@pytest.mark.parametrize("kind", ["backbone", "pixels"])
def test_the_backbone_is_as_before_and_what_was_learned_differs(kind, request, real):
    model = request.getfixturevalue(kind)
    before, random_state, name = state(model), torch.random.get_rng_state(), model.fingerprint()
    tuned = fine_tune(model, real, settings=QUICK)
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())
    assert model.fingerprint() == name
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert set(tuned.weights) == {
        key
        for key, _ in (
            (f"{part}.{key}", 0)
            for part, module in trainable_parts(model).items()
            for key, _ in module.named_parameters()
        )
    }
    assert sum(not torch.equal(value, before[key]) for key, value in tuned.weights.items()) > 0.9 * len(
        tuned.weights
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for part in model.modules.values()
        for parameter in part.parameters()
    )


def test_attached_weights_are_those_learned_and_leave_again(backbone, real):
    tuned, before = fine_tune(backbone, real, settings=QUICK), state(backbone)
    with backbone.using(tuned):
        assert all(
            torch.equal(value, tuned.weights[f"unet.{key}"])
            for key, value in backbone.unet.named_parameters()
        )
        with torch.no_grad():
            backbone.unet.conv_out.bias.add_(1)  # even writing to them
    assert all(torch.equal(value, before[key]) for key, value in state(backbone).items())
    with backbone.using(tuned):
        assert torch.equal(backbone.unet.conv_out.bias, tuned.weights["unet.conv_out.bias"])


def test_weights_of_another_network_are_refused(backbone, pixels, real):
    with (
        pytest.raises(GenaugError, match="another denoiser"),
        backbone.using(fine_tune(pixels, real, settings=QUICK)),
    ):
        pass
    with pytest.raises(GenaugError, match="no weights"):
        fine_tune(toy_backbone(), real, settings=QUICK)
    assert not any(parameter.requires_grad for parameter in backbone.unet.parameters())


def test_same_seed_same_weights_another_seed_others(backbone, real):
    first, same, other = (
        fine_tune(backbone, real, settings=replace(QUICK, seed=seed)).fingerprint() for seed in (0, 0, 1)
    )
    assert first == same != other


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_noise_loss_is_that_of_notebook_20(prediction, real):
    model = wrap(prediction_type=prediction)
    prepared = learning_set(model, real, ClassPrompt())
    _, latents, condition, timesteps, noise = draw_step(model, prepared, 4, 0, 0)
    with torch.no_grad():
        reference = noise_prediction_loss(model, latents, condition, timesteps, noise)
        ours = step_loss(model, prepared, None, FineTuningSettings(steps=10), Objective(), 0)
    assert torch.allclose(ours, reference, rtol=1e-3)


def test_terms_add_up_with_their_weights(backbone, real):
    prepared, prior = (
        learning_set(backbone, real, ClassPrompt()),
        learning_set(backbone, real[:2], ClassPrompt()),
    )

    def weighted(weight):
        return FineTuningSettings(steps=10, batch_size=2, noise_weight=weight)

    def loss(first, second):
        return float(step_loss(backbone, prepared, prior, weighted(first), Objective(prior_weight=second), 3))

    with torch.no_grad():
        assert loss(2.0, 3.0) == pytest.approx(2 * loss(1.0, 0.0) + 3 * loss(0.0, 1.0), rel=1e-5)
        assert loss(1.0, 0.0) == float(step_loss(backbone, prepared, None, weighted(1.0), Objective(), 3))


def test_a_prior_of_weight_zero_changes_no_bit(backbone, real):
    prior = class_images(backbone, "wren", count=3, num_inference_steps=2)
    plain = fine_tune(backbone, real, settings=QUICK)
    off, on = (
        fine_tune(backbone, real, settings=QUICK, objective=Objective(prior=prior, prior_weight=weight))
        for weight in (0.0, 1.0)
    )
    assert off.fingerprint() == plain.fingerprint() != on.fingerprint()


def test_only_the_class_and_only_allowed_photographs_are_learned_from(backbone, real):
    tuned = learn_dreambooth(backbone, real, "owl", settings=replace(DREAM, prior_weight=0.0))
    assert tuned.settings["ids"] == ["3.png", "4.png"]
    assert tuned.placeholder == {"owl": "sks owl"}
    with pytest.raises(GenaugError):
        fine_tune(backbone, real, settings=QUICK, allowed=real.ids[:2])


def test_the_prior_is_painted_by_the_untouched_model_under_the_plain_name(backbone, real, monkeypatch):
    said = []
    original = type(backbone).embed
    monkeypatch.setattr(
        type(backbone), "embed", lambda self, prompts: (said.extend(prompts), original(self, prompts))[1]
    )
    learn_dreambooth(backbone, real, "owl", settings=replace(DREAM, prior_count=2, prior_steps=2))
    assert {"a photo of a owl", "a photo of a sks owl"} == set(said)


def test_files_are_exact_readable_by_diffusers_and_checked(backbone, pixels, real, tmp_path):
    from diffusers import UNet2DConditionModel

    for name, model in (("latent", backbone), ("pixels", pixels)):
        tuned = fine_tune(model, real, settings=QUICK)
        tuned.save(tmp_path / name)
        read = FineTuned.load(tmp_path / name)
        assert read.fingerprint() == tuned.fingerprint()
        assert read.settings["ids"] == list(real.ids)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "latent", subfolder="unet", use_safetensors=True)
    assert all(
        torch.equal(value, FineTuned.load(tmp_path / "latent").weights[f"unet.{key}"])
        for key, value in unet.named_parameters()
    )
    file = tmp_path / "latent" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, "conv_out.bias": tensors["conv_out.bias"] + 1}, file)
    with pytest.raises(GenaugError, match="not those"):
        FineTuned.load(tmp_path / "latent")
    (tmp_path / "pixels" / "classes.safetensors").unlink()
    for broken in (tmp_path / "pixels", tmp_path / "nothing"):
        with pytest.raises(GenaugError):
            FineTuned.load(broken)


def test_a_resumed_run_belongs_to_its_settings(backbone, real, tmp_path):
    def stop(number, parts):
        if number == 2:
            raise KeyboardInterrupt

    four = replace(QUICK, steps=4, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(backbone, real, settings=four, checkpoint=tmp_path, objective=Objective(watch=stop))
    resumed = fine_tune(backbone, real, settings=four, checkpoint=tmp_path)
    assert resumed.fingerprint() == fine_tune(backbone, real, settings=four).fingerprint()
    assert len(list(tmp_path.iterdir())) == 1
    fine_tune(
        backbone, real, settings=four, checkpoint=tmp_path, objective=Objective(prior=real, prior_weight=0.5)
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_error_of_v_is_the_error_of_noise_over_the_signal_share():
    model = wrap(prediction_type="v_prediction")
    predicted, noise, levels = torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8), torch.tensor([5, 5])
    assert float(noise_error(model, predicted, noise, levels)) == pytest.approx(
        1 / float(model.alphas_cumprod[5]), rel=1e-5
    )


def test_an_exchange_that_fails_half_way_restores(backbone):
    before = state(backbone)
    with pytest.raises(ZeroDivisionError), weights_exchanged(backbone, learning=True):
        with torch.no_grad():
            backbone.unet.conv_in.weight.zero_()
        1 / 0
    assert all(torch.equal(value, before[key]) for key, value in state(backbone).items())
    assert json.dumps({"whole": True})
