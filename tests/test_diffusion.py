"""Backbones: exactness of the toy model, agreement with diffusers, isolation of concepts and taps, errors
with a remedy."""

import json
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from genaug import diffusion
from genaug.diffusion import ToyBackbone, leading_timesteps
from genaug.messages import GenaugError
from genaug.pixel_backbone import PixelBackbone, cosine_alphas
from genaug.stable_diffusion import StableDiffusionBackbone, cut_prompts, expand_tokens, load_backbone

sys.path.insert(0, str(Path(__file__).parent))
from random_pipeline import random_pipeline  # noqa: E402


def wrap(pipe, **settings):
    return StableDiffusionBackbone(
        pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler, **settings
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "weights"
    random_pipeline(scheduler_name="PNDMScheduler").save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def backbone(folder):
    return StableDiffusionBackbone.from_folder(folder)


class Shift:
    "A stand-in for a learned concept: adds a number to one bias while attached."

    def __init__(self, amount):
        self.amount = amount

    def fingerprint(self):
        return str(self.amount)

    @contextmanager
    def attached(self, backbone, rows=None):
        bias = backbone.unet.conv_out.bias
        before = bias.detach().clone()
        with torch.no_grad():
            bias.add_(self.amount)
        try:
            yield
        finally:
            with torch.no_grad():
                bias.copy_(before)


# --- the grid and the schedule


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 10, 25, 50, 100, 200, 999])
def test_grid_equals_diffusers(steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, leading_timesteps(steps))


@pytest.mark.parametrize("steps", [0, -3, 1000])
def test_grid_refuses_impossible_steps(steps):
    with pytest.raises(GenaugError, match="num_inference_steps"):
        leading_timesteps(steps)


def test_schedule_equals_diffusers_default_and_negative_level_is_first():
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False
    )
    ours = diffusion.scaled_linear_alphas()
    assert torch.allclose(theirs.alphas_cumprod.double(), ours, rtol=1e-5)
    assert diffusion.alpha_at(ours, torch.tensor([-1, -40, 0])).tolist() == [float(ours[0])] * 3


# --- the toy model


def toy(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return ToyBackbone(
        torch.randn(3, 2, 6, 6, generator=generator),
        torch.rand(3, 2, 6, 6, generator=generator) + 0.1,
        ["one", "two", "twenty two"],
        [0.5, 0.25, 0.25],
        dtype,
    )


def test_toy_noise_is_the_posterior_mean_for_one_class_in_closed_form():
    model = toy()
    latents = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    timesteps = torch.tensor([1, 41, 500, 961])
    got = model.predict_noise(latents, timesteps, model.embed(["two"] * 4))
    for row, level in enumerate(timesteps):
        share = model.alphas_cumprod[level]
        # E[x0|xt] by the Kalman gain: another route
        gain = share.sqrt() * model.std[1] ** 2 / (share * model.std[1] ** 2 + 1 - share)
        clean = model.means[1] + gain * (latents[row] - share.sqrt() * model.means[1])
        assert torch.allclose(got[row], (latents[row] - share.sqrt() * clean) / (1 - share).sqrt(), atol=1e-9)


def test_toy_rows_do_not_influence_each_other():
    model = toy(torch.float32)
    latents = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    timesteps, condition = (
        torch.tensor([1, 900, 41, 961, 300]),
        model.embed(["", "one", "two", "twenty two", "one and two"]),
    )
    together = model.predict_noise(latents, timesteps, condition)
    alone = torch.cat(
        [
            model.predict_noise(latents[i : i + 1], timesteps[i : i + 1], condition[i : i + 1])
            for i in range(5)
        ]
    )
    assert torch.allclose(together, alone, atol=1e-6)


def test_toy_prompts():
    model = toy()
    assert model.embed([""]).flatten().tolist() == [0.5, 0.25, 0.25]
    # the longer name hides "two"
    assert model.embed(["a photo of a Twenty Two"]).flatten().tolist() == [0, 0, 1]
    assert model.embed(["twofold someone"]).flatten().tolist() == [0.5, 0.25, 0.25]  # whole words only
    assert torch.allclose(
        model.embed(["one, two"]).flatten(), torch.tensor([2 / 3, 1 / 3, 0], dtype=torch.float64)
    )


def test_toy_is_finite_when_classes_are_far_apart_and_shares_are_zero():
    model = ToyBackbone(
        torch.stack([torch.full((1, 4, 4), -50.0), torch.full((1, 4, 4), 50.0)]), 0.01, ["a", "b"]
    )
    noise = model.predict_noise(torch.zeros(2, 1, 4, 4), torch.tensor([1, 961]), model.embed(["a", ""]))
    assert torch.isfinite(noise).all()


def test_toy_from_images_and_errors():
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = ToyBackbone.from_images(images, [0, 0, 0, 1, 1, 1], ["a", "b"])
    assert torch.allclose(model.means[1], 2 * images[3:].mean(0) - 1)
    assert model.std.min() >= 0.1
    with pytest.raises(GenaugError, match="every class"):
        ToyBackbone.from_images(images, [0] * 6, ["a", "b"])
    with pytest.raises(GenaugError, match="one class name per mean"):
        ToyBackbone(torch.zeros(2, 1, 4, 4), 0.1, ["a"])
    with pytest.raises(GenaugError, match="positive std"):
        ToyBackbone(torch.zeros(2, 1, 4, 4), 0.0)
    with pytest.raises(GenaugError, match="no modules"), model.features("mid_block"):
        pass


def test_toy_fingerprint_depends_on_content_only():
    assert toy().fingerprint() == toy().fingerprint()
    other = toy()
    other.means = other.means + 1e-7
    assert other.fingerprint() != toy().fingerprint() != toy(torch.float32).fingerprint()


def test_fit_images_resizes_and_repeats_grey():
    grey = torch.rand(2, 1, 9, 5, generator=torch.Generator().manual_seed(0))
    fitted = diffusion.fit_images(grey, 16, 3)
    assert fitted.shape == (2, 3, 16, 16)
    assert torch.equal(fitted[:, 0], fitted[:, 2])
    assert fitted.min() >= 0
    assert fitted.max() <= 1
    with pytest.raises(GenaugError, match="channels=1"):
        diffusion.fit_images(torch.rand(2, 3, 4, 4), 16, 1)


# --- Stable Diffusion


def test_parts_equal_the_pipeline(backbone):
    pipe = random_pipeline()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = pipe.vae.encode(2 * images - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        positive, negative = pipe.encode_prompt(["a cat", "a"], "cpu", 1, True, ["", ""])
        assert torch.allclose(backbone.encode(images), latents, atol=1e-6)
        assert torch.allclose(backbone.decode(latents), ((decoded + 1) / 2).clamp(0, 1), atol=1e-6)
        assert torch.allclose(backbone.embed(["a cat", "a"]), positive, atol=1e-6)
        assert torch.allclose(backbone.embed(["", ""]), negative, atol=1e-6)
        noise = pipe.unet(latents, torch.tensor([41, 961]), encoder_hidden_states=positive).sample
        assert torch.allclose(
            backbone.predict_noise(latents, torch.tensor([41, 961]), positive), noise, atol=1e-6
        )
    assert backbone.image_size == 16
    assert backbone.latent_shape == (4, 8, 8)
    assert backbone.channels == 3
    assert type(backbone.scheduler).__name__ == "DDIMScheduler"
    assert backbone.scheduler.config.clip_sample is False


def test_encoding_with_a_generator_is_a_draw_and_repeatable(backbone):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    draws = [backbone.encode(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert not torch.allclose(draws[0], backbone.encode(images))


def test_levels_are_per_row(backbone):
    generator = torch.Generator().manual_seed(0)
    latents, condition = torch.randn(3, 4, 8, 8, generator=generator), backbone.embed(["a", "b", "c"])
    timesteps = torch.tensor([1, 481, 961])
    together = backbone.predict_noise(latents, timesteps, condition)
    for row in range(3):
        alone = backbone.predict_noise(
            latents[row : row + 1], timesteps[row : row + 1], condition[row : row + 1]
        )
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_v_prediction_equals_the_scheduler():
    from diffusers import DDIMScheduler

    backbone = wrap(random_pipeline(prediction_type="v_prediction"))
    generator = torch.Generator().manual_seed(0)
    latents, condition = torch.randn(1, 4, 8, 8, generator=generator), backbone.embed(["a"])
    output = backbone.unet(latents, torch.tensor([481]), encoder_hidden_states=condition).sample
    scheduler = DDIMScheduler.from_config(backbone.scheduler.config)
    scheduler.set_timesteps(25)
    theirs = scheduler.step(output, 481, latents)
    share = backbone.alphas_cumprod[481].float()
    ours = backbone.predict_noise(latents, torch.tensor([481]), condition)
    assert torch.allclose(
        (latents - (1 - share).sqrt() * ours) / share.sqrt(), theirs.pred_original_sample, atol=1e-5
    )


def test_no_gradients_and_eval_mode_until_asked(backbone):
    assert not any(
        parameter.requires_grad for module in backbone.modules.values() for parameter in module.parameters()
    )
    assert not any(module.training for module in backbone.modules.values())
    assert not backbone.embed(["a"]).requires_grad
    condition = backbone.embed(["a"]).requires_grad_()
    backbone.predict_noise(torch.zeros(1, 4, 8, 8), torch.tensor([41]), condition).sum().backward()
    # a trainer can reach the prompt
    assert condition.grad.abs().sum() > 0


def test_features_tap_and_release(backbone):
    latents, condition = torch.zeros(2, 4, 8, 8), backbone.embed(["a", "b"])
    with backbone.features("unet.mid_block") as taps, backbone.features("down_blocks.0") as tuple_taps:
        backbone.predict_noise(latents, torch.tensor([1, 41]), condition)
    assert len(taps) == len(tuple_taps) == 1
    assert taps[0].shape == (2, 32, 4, 4)
    backbone.predict_noise(latents, torch.tensor([1, 41]), condition)
    assert len(taps) == 1
    assert not backbone.unet.mid_block._forward_hooks
    with pytest.raises(RuntimeError), backbone.features("mid_block"):
        raise RuntimeError
    assert not backbone.unet.mid_block._forward_hooks
    with pytest.raises(GenaugError, match="no module 'nowhere'"), backbone.features("nowhere"):
        pass


def test_concepts_nest_and_are_taken_off_again(backbone):
    latents, condition = torch.zeros(1, 4, 8, 8), backbone.embed(["a"])

    def look():
        return float(backbone.predict_noise(latents, torch.tensor([41]), condition).mean())

    base, name = look(), backbone.fingerprint()
    with backbone.using(None):
        assert look() == base
    with backbone.using(Shift(1.0)):
        assert abs(look() - base - 1) < 1e-5
        assert backbone.fingerprint() == name
        with backbone.using(Shift(2.0)):
            assert abs(look() - base - 3) < 1e-5
            assert backbone.fingerprint() == name
            assert len(backbone.attached) == 2
        assert abs(look() - base - 1) < 1e-5
    assert look() == base
    assert backbone.fingerprint() == name
    with pytest.raises(ZeroDivisionError), backbone.using(Shift(1.0)):
        1 / 0
    assert look() == base
    assert backbone._pinned is None
    assert backbone.attached == ()
    hashed = backbone._hashed[1]
    # a large model must not be hashed for every batch
    backbone._hashed = (backbone._hashed[0], "not computed again")
    with backbone.using(Shift(1.0)):
        pass
    assert backbone.fingerprint() == "not computed again"
    backbone._hashed = (None, hashed)
    assert backbone.fingerprint() == name


# --- fingerprints


def test_fingerprint_names_content_not_place(folder, backbone, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "moved")
    assert StableDiffusionBackbone.from_folder(tmp_path / "moved").fingerprint() == backbone.fingerprint()
    config = tmp_path / "moved" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))
    assert StableDiffusionBackbone.from_folder(tmp_path / "moved").fingerprint() != backbone.fingerprint()


def test_fingerprint_notices_every_kind_of_change():
    model = wrap(random_pipeline())
    seen = {model.fingerprint()}
    with torch.no_grad():
        model.unet.conv_out.bias.add_(1e-4)  # an optimiser step
    seen.add(model.fingerprint())
    model.vae.load_state_dict(random_pipeline(seed=1).vae.state_dict())  # other weights
    seen.add(model.fingerprint())
    # an averaged copy written through .data
    model.unet.conv_in.weight.data.mul_(0.5)
    seen.add(model.fingerprint())
    model.tokenizer.add_tokens(["<c0>"])
    model.text_encoder.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    seen.add(model.fingerprint())
    assert len(seen) == 5


# --- prompts


def test_long_prompts_are_found_and_short_ones_are_not(backbone):
    long = "a" * 60
    assert [
        finding.where for finding in cut_prompts(backbone.tokenizer, ["a" * 22, "", long, "b", long])
    ] == [long]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone.embed([long, "b"])


def test_expand_tokens_only_touches_complete_placeholders():
    added = ["<c0>", "<c0>_1", "<c1>", "<c10>", "<c10>_1"]
    assert expand_tokens("<c1> and <c10>", added) == "<c1> and <c10> <c10>_1"
    assert expand_tokens("a photo", added) == "a photo"


# --- errors, loading, side effects


def test_missing_incomplete_and_impossible(folder, tmp_path, monkeypatch):
    import shutil

    with pytest.raises(GenaugError, match="There is no model folder"):
        load_backbone(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "tokenizer")
    with pytest.raises(GenaugError, match="has no tokenizer"):
        load_backbone(tmp_path / "part")
    shutil.copytree(folder, tmp_path / "pickled")
    unet = tmp_path / "pickled" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.bin")
    with pytest.raises(GenaugError, match="safetensors"):
        load_backbone(tmp_path / "pickled")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"not a file")
    with pytest.raises(GenaugError, match="could not be loaded"):
        load_backbone(tmp_path / "broken")
    with pytest.raises(GenaugError, match="float16"):
        load_backbone(folder, dtype=torch.float16)
    if not torch.cuda.is_available():
        with pytest.raises(GenaugError, match="device='cpu'"):
            load_backbone(folder, device="cuda")


def test_hub_id_without_a_network_says_what_to_do(monkeypatch):
    import diffusers.configuration_utils

    def offline(*arguments, **settings):
        raise ConnectionError("no route")

    monkeypatch.setattr(diffusers.configuration_utils, "hf_hub_download", offline)
    with pytest.raises(GenaugError, match="network connection"):
        load_backbone("owner/name")


def test_parts_that_do_not_fit_are_refused():
    pipe = random_pipeline()
    pipe.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(GenaugError, match="SDXL"):
        wrap(pipe)
    pipe = random_pipeline()
    pipe.unet.register_to_config(cross_attention_dim=48)
    with pytest.raises(GenaugError, match="one model"):
        wrap(pipe)
    with pytest.raises(GenaugError, match="not supported"):
        diffusion.noise_from_output(torch.zeros(1), torch.zeros(1), torch.ones(1), "sample")


def test_loading_leaves_random_state_and_logging_alone(folder):
    from diffusers.utils import logging

    level, state = logging.get_verbosity(), torch.get_rng_state()
    load_backbone(folder)
    assert torch.equal(state, torch.get_rng_state())
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()


def test_grey_images_and_half_precision_files(tmp_path):
    pipe = random_pipeline(channels=1, latent_channels=8)
    pipe.to(torch.float16).save_pretrained(tmp_path / "grey", safe_serialization=True)
    model = load_backbone(tmp_path / "grey")
    latents = model.encode(torch.rand(1, 1, 20, 12, generator=torch.Generator().manual_seed(0)))
    assert latents.shape == (1, 8, 8, 8)
    assert latents.dtype == torch.float32
    assert model.decode(latents).shape == (1, 1, 16, 16)


def test_importing_the_module_loads_no_heavy_library():
    import subprocess

    code = (
        "import sys, genaug.stable_diffusion; "
        "assert not {'diffusers', 'transformers'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_device_is_one_sentence():
    from genaug.loading import usable_device

    with pytest.raises(GenaugError, match="no device 'gpuu'; use 'cpu'"):
        usable_device("gpuu", torch.float32)


# --- diffusion on pixels


def pixel_model(seed=0, **settings):
    model = PixelBackbone.fresh(
        ["cat", "grey cat"], size=16, channels=1, widths=(16, 32), seed=seed, **settings
    )
    with torch.no_grad():
        model.classes.weight.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)))
    return model


def test_cosine_schedule_equals_diffusers():
    from diffusers import DDPMScheduler

    assert torch.allclose(
        cosine_alphas(),
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double(),
        atol=1e-6,
    )


def test_pixel_model_equals_its_unet_and_treats_rows_alone():
    model, latents = pixel_model(), torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    levels, condition = torch.tensor([1, 500, 961]), model.embed(["a cat", "a grey cat", ""])
    with torch.no_grad():
        seen = model.predict_noise(latents, levels, condition)
        theirs = model.unet(latents[1:2], 500, class_labels=model.classes.weight[1:2]).sample
    assert torch.allclose(seen[1:2], theirs, atol=1e-5)
    assert torch.equal(condition[2, 0], model.classes.weight[2])
    assert torch.equal(model.embed(["cat and grey cat"])[0, 0], model.classes.weight[:2].mean(0))


def test_pixel_codec_is_the_identity_up_to_scale_and_resizes():
    model, images = pixel_model(), torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(model.decode(model.encode(images)), images, atol=1e-6)
    assert model.encode(torch.rand(1, 1, 20, 30)).shape == (1, 1, 16, 16)
    with pytest.raises(GenaugError):
        model.encode(torch.rand(1, 3, 16, 16))


def test_pixel_weights_follow_from_the_seed_and_name_the_model():
    state = torch.random.get_rng_state()
    first, same, other = pixel_model(), pixel_model(), pixel_model(1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()
    assert not any(
        parameter.requires_grad for module in first.modules.values() for parameter in module.parameters()
    )


def test_pixel_model_takes_concepts_and_taps():
    model, latents = pixel_model(), torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        plain = model.predict_noise(latents, torch.tensor([7]), model.embed(["cat"]))
        with model.using(Shift(1.0)), model.features("down_blocks.1") as taps:
            moved = model.predict_noise(latents, torch.tensor([7]), model.embed(["cat"]))
        again = model.predict_noise(latents, torch.tensor([7]), model.embed(["cat"]))
    assert torch.allclose(moved, plain + 1, atol=1e-5)
    assert torch.equal(again, plain)
    assert taps[0].shape == (1, 32, 8, 8)


def test_pixel_model_refuses_networks_of_another_kind(backbone):
    with pytest.raises(GenaugError, match="PixelBackbone.fresh"):
        PixelBackbone(backbone.unet, ["cat"])
