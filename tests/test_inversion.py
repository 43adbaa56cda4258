"""Inversion: equal to diffusers' scheduler at K = 0, convergent on the closed form; a cache that is never
stale."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone, gaussian_flow
from genaug.identity import content_hash
from genaug.inversion import InversionPool, InversionSettings, check_grids, invert, pool_keys, pool_statistics
from genaug.messages import GenaugError
from genaug.sampling import SamplingSettings, denoise, row_noise
from genaug.stable_diffusion import StableDiffusionBackbone

sys.path.insert(0, str(Path(__file__).parent))
from random_pipeline import random_pipeline  # noqa: E402
from toy_sets import noise_set


def wrap(pipe):
    return StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


def toy(dtype=torch.float64, std=0.3):
    return ToyBackbone(
        torch.stack([torch.full((1, 4, 4), -0.5), torch.full((1, 4, 4), 0.5)]),
        std,
        ["night", "day"],
        dtype=dtype,
    )


def photographs(seed=0, count=4, size=4, channels=1):
    return noise_set([0] * count, ["day"], size=size, channels=channels, seed=seed)


class Concept:
    """A learned token with its embedding, as categories are learned: the name is always <c0>, the vector is
    not."""

    def __init__(self, vector):
        self.vector = torch.as_tensor(vector)

    def fingerprint(self):
        return content_hash("<c0>", self.vector)

    @contextmanager
    def attached(self, backbone, rows=None):
        plain = backbone.embed
        backbone.embed = lambda prompts: (
            plain(prompts)
            + torch.tensor(["<c0>" in prompt for prompt in prompts]).float().view(-1, 1, 1) * self.vector
        )
        try:
            yield
        finally:
            del backbone.embed


# --- the equation


def diffusers_inversion(network, latents, config, steps):
    "diffusers' own inversion; `network(latents, timestep)` returns epsilon or v, as the config says."
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(network(latents, timestep), timestep, latents).prev_sample
    return latents


@pytest.mark.parametrize("steps", [2, 7, 10, 25])
def test_without_iterations_it_equals_diffusers(steps):
    pipe = random_pipeline()
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.mul_(1.3)
    backbone = wrap(pipe)
    start, condition = row_noise((4, 8, 8), [1, 2]), backbone.embed(["a cat", "b"])
    with torch.no_grad():
        latents = diffusers_inversion(
            lambda latents, timestep: (
                backbone.unet(latents, timestep, encoder_hidden_states=condition).sample
            ),
            start,
            backbone.scheduler.config,
            steps,
        )
    ours = invert(backbone, start, condition, settings=InversionSettings(steps))
    assert (latents - start).abs().max() > 0.1
    assert (ours - latents).abs().max() <= 2e-5 * float(latents.abs().max())


@pytest.mark.parametrize("steps", [10, 25, 50])
def test_fixed_point_undoes_the_sampler(steps):
    model, clean = toy(), 0.5 + 0.3 * row_noise((1, 4, 4), range(5)).double()
    condition = model.embed(["day"] * 5)
    errors = []
    for iterations in (0, 1, 2, 100):
        inverted = invert(
            model, clean, condition, settings=InversionSettings(steps, fixed_point_iterations=iterations)
        )
        errors.append(
            float(
                (
                    denoise(model, inverted, [condition], settings=SamplingSettings(steps, guidance_scale=1))
                    - clean
                )
                .abs()
                .max()
            )
        )
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    assert errors[3] < 1e-12


def test_fixed_point_also_helps_a_network():
    backbone = wrap(random_pipeline())
    clean, condition = row_noise((4, 8, 8), [1, 2]), backbone.embed(["a", "b"])
    errors = []
    for iterations in (0, 1, 5):
        inverted = invert(
            backbone, clean, condition, settings=InversionSettings(10, fixed_point_iterations=iterations)
        )
        errors.append(
            float(
                (
                    denoise(backbone, inverted, [condition], settings=SamplingSettings(10, guidance_scale=1))
                    - clean
                )
                .square()
                .mean()
                .sqrt()
            )
        )
    assert errors[0] > 1.5 * errors[1]
    assert errors[1] > 1.5 * errors[2]


def test_order_one_towards_the_exact_flow():
    model, clean = toy(), 0.5 + 0.3 * row_noise((1, 4, 4), range(5)).double()
    errors = {}
    for steps in (50, 100, 200):  # level 901 is on all three grids
        seen = {}
        invert(
            model,
            clean,
            model.embed(["day"] * 5),
            settings=InversionSettings(steps),
            callback=lambda state: seen.update({state["timestep"]: state["latents"]}),
        )
        errors[steps] = float((seen[901] - gaussian_flow(model, clean, -1, 901, 1)).square().mean().sqrt())
    assert 1.8 < errors[50] / errors[100] < 2.2
    assert 1.8 < errors[100] / errors[200] < 2.2


def test_v_prediction_is_inverted_like_epsilon_and_better_than_by_diffusers():
    """The same exact model, once asked for v: diffusers converts v with the level of the latent, we with the
    level the network was told."""
    from diffusers import DDIMScheduler

    model, clean = toy(), 0.5 + 0.3 * row_noise((1, 4, 4), range(5)).double()
    condition = model.embed(["day"] * 5)

    def velocity(latents, timestep):
        share = model.alpha_at(torch.as_tensor(timestep).expand(5))
        return (
            model.predict_noise(latents, torch.as_tensor(timestep).expand(5), condition)
            - (1 - share).sqrt() * latents
        ) / share.sqrt()

    config = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    ).config

    def error(inverted):
        return float(
            (denoise(model, inverted, [condition], settings=SamplingSettings(guidance_scale=1)) - clean)
            .square()
            .mean()
            .sqrt()
        )

    ours, theirs = (
        error(invert(model, clean, condition)),
        error(diffusers_inversion(velocity, clean, config, 25)),
    )
    assert ours < theirs, (ours, theirs)


def test_guidance_is_per_row_and_off_by_default():
    model, clean = toy(), row_noise((1, 4, 4), range(2)).double()
    condition = model.embed(["day"] * 2)
    plain, guided = (
        invert(model, clean, condition),
        invert(model, clean, condition, settings=InversionSettings(guidance_scale=[1.0, 3.0])),
    )
    assert torch.allclose(plain[0], guided[0])
    assert not torch.allclose(plain[1], guided[1], atol=1e-2)


def test_batch_size_does_not_matter():
    backbone = wrap(random_pipeline())
    clean, condition = row_noise((4, 8, 8), [1, 2, 3]), backbone.embed(["a", "b", "c"])
    together = invert(backbone, clean, condition, settings=InversionSettings(10, fixed_point_iterations=1))
    alone = torch.cat(
        [
            invert(
                backbone,
                clean[row : row + 1],
                condition[row : row + 1],
                settings=InversionSettings(10, fixed_point_iterations=1),
            )
            for row in range(3)
        ]
    )
    assert (together - alone).abs().max() < 1e-4


# --- the cache


def test_cache_returns_what_was_computed_and_computes_once(tmp_path):
    model, real = toy(torch.float32), photographs()
    pool = InversionPool(tmp_path, batch_size=2)
    first = pool.get(
        model,
        real,
        ["2.png", "0.png", "2.png", "1.png"],
        "day",
        settings=InversionSettings(fixed_point_iterations=1),
    )
    direct = invert(
        model,
        model.encode(real.batch([2, 0, 2, 1], channels=1)),
        model.embed(["day"] * 4),
        settings=InversionSettings(fixed_point_iterations=1),
    )
    assert torch.allclose(first, direct, atol=1e-6)
    assert pool.computed == 3
    files = sorted(tmp_path.rglob("*.safetensors"))
    stamps = [file.stat().st_mtime_ns for file in files]
    again = InversionPool(tmp_path)
    assert torch.equal(
        again.get(
            model, real, [2, 0, 2, 1], ["day"] * 4, settings=InversionSettings(fixed_point_iterations=1)
        ),
        first,
    )
    assert again.computed == 0
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert len(files) == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert pool.get(model, real, [], "day").shape == (0, 1, 4, 4)


def test_memory_only_pool(tmp_path):
    pool = InversionPool(None)
    first = pool.get(toy(torch.float32), photographs(), [0, 1], "day")
    assert torch.equal(pool.get(toy(torch.float32), photographs(), [1, 0], "day"), first[[1, 0]])
    assert pool.computed == 2


def test_two_concepts_with_the_same_token_name_never_share(tmp_path):
    backbone, real = wrap(random_pipeline()), photographs(size=16, channels=3)
    pool = InversionPool(tmp_path)
    settings = InversionSettings(5)
    with torch.no_grad():
        backbone.unet.conv_out.weight.mul_(5)
        for name, parameter in backbone.unet.named_parameters():
            if "attn2" in name:
                parameter.mul_(3)
    cat, dog = Concept([3.0] * 16 + [-3.0] * 16), Concept([-3.0, 3.0] * 16)
    prompt = "a photo of a <c0>"
    left, right, none = (
        pool.get(backbone, real, [0], prompt, concept, settings) for concept in (cat, dog, None)
    )
    assert pool.computed == 3
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert (
        min((left - right).abs().max(), (left - none).abs().max()) > 1e-3
    )  # the latents do differ: sharing would be wrong
    again = InversionPool(tmp_path)
    assert torch.equal(
        again.get(backbone, real, [0], prompt, Concept([3.0] * 16 + [-3.0] * 16), settings), left
    )
    assert again.computed == 0
    # a concept attached outside counts as well
    with backbone.using(cat):
        inside = again.get(backbone, real, [0], prompt, settings=settings)
    assert again.computed == 1
    assert torch.allclose(inside, left, atol=1e-5)


def pool_key(backbone, image, prompt, *rest):
    return pool_keys(backbone, [image], [prompt], *rest)[0]


def test_every_dependency_changes_the_key():
    base = toy(torch.float32)
    image, settings = photographs().image(0), InversionSettings()
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    other = toy(torch.float32)
    other.alphas_cumprod = other.alphas_cumprod * 0.999
    keys = [
        pool_key(base, image, "day", None, settings),
        pool_key(base, changed, "day", None, settings),
        pool_key(base, image.reshape(2, 8, 1), "day", None, settings),
        pool_key(base, image, "night", None, settings),
        pool_key(base, image, "day", Concept([1.0]), settings),
        pool_key(base, image, "day", Concept([1.0001]), settings),
        pool_key(base, image, "day", None, replace(settings, num_inference_steps=50)),
        pool_key(base, image, "day", None, replace(settings, fixed_point_iterations=1)),
        pool_key(base, image, "day", None, replace(settings, guidance_scale=1.5)),
        pool_key(base, image, "day", None, settings, torch.float16),
        pool_key(toy(torch.float32, 0.31), image, "day", None, settings),
        pool_key(toy(torch.float64), image, "day", None, settings),
        pool_key(other, image, "day", None, settings),
    ]
    assert len(set(keys)) == len(keys)
    assert pool_key(toy(torch.float32), image.copy(), "day", None, replace(settings)) == keys[0]


def test_a_changed_photograph_or_network_is_inverted_again(tmp_path):
    backbone, real = wrap(random_pipeline()), photographs(size=16, channels=3)
    pool = InversionPool(tmp_path)
    before = pool.get(backbone, real, ["0.png"], "a", settings=InversionSettings(5))
    pool.get(
        backbone, photographs(seed=1, size=16, channels=3), ["0.png"], "a", settings=InversionSettings(5)
    )  # same id, other pixels
    assert pool.computed == 2
    with torch.no_grad():
        backbone.unet.conv_out.bias.add_(0.5)  # as a trainer would
    after = pool.get(backbone, real, ["0.png"], "a", settings=InversionSettings(5))
    assert pool.computed == 3
    assert (after - before).abs().max() > 0.05


def test_damaged_and_swapped_files_are_not_used(tmp_path):
    model, real = toy(torch.float32), photographs()
    truth = InversionPool(tmp_path).get(model, real, [0, 1], "day")
    files = sorted(tmp_path.rglob("*.safetensors"))
    contents = [file.read_bytes() for file in files]
    for damage in (
        b"",
        contents[0][:40],
        contents[0][:-3],
        contents[1],
        b"\xff" * 400,
        safetensors.torch.save({"latents": torch.zeros(1, 4, 4)}),
    ):
        files[0].write_bytes(damage)
        pool = InversionPool(tmp_path)
        assert torch.equal(pool.get(model, real, [0, 1], "day"), truth)
        assert pool.computed == 1
        assert files[0].read_bytes() == contents[0]  # and repaired


def test_half_precision_storage_is_the_same_from_cache_and_fresh(tmp_path):
    model, real = toy(torch.float32), photographs()
    fresh = InversionPool(tmp_path, torch.float16).get(model, real, [0, 1], "day")
    cached = InversionPool(tmp_path, torch.float16).get(model, real, [0, 1], "day")
    full = InversionPool(None).get(model, real, [0, 1], "day")
    assert torch.equal(fresh, cached)
    assert fresh.dtype == torch.float32
    assert 0 < (fresh - full).abs().max() < 2e-3
    with pytest.raises(GenaugError, match="float16"):
        InversionPool(None, torch.float64)


def test_grey_and_colour_sizes_are_fitted(tmp_path):
    "Photographs of different sizes in one set, grey in a colour model."
    backbone = wrap(random_pipeline())
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 9, 1), (7, 31, 3))]
    real = LabeledImages(pixels, [0, 0], ["x"], ["a.png", "b.png"])
    assert InversionPool(None).get(backbone, real, [0, 1], "a", settings=InversionSettings(2)).shape == (
        2,
        4,
        8,
        8,
    )


# --- statistics and errors


def test_statistics_of_known_vectors():
    latents = torch.stack(
        [torch.tensor([3.0, 0, 0, 0]), torch.tensor([0, 4.0, 0, 0]), torch.tensor([3.0, 3.0, 0, 0])]
    ).reshape(3, 1, 2, 2)
    result = pool_statistics(latents)
    assert "2 of 3 pairs" in result["findings"][0].message
    assert torch.allclose(result["norm"], torch.tensor([3.0, 4.0, 18**0.5], dtype=torch.float64))
    assert torch.allclose(result["angle"], torch.tensor([90.0, 45.0, 45.0], dtype=torch.float64))
    assert result["pair"].tolist() == [[0, 1], [0, 2], [1, 2]]
    within = pool_statistics(latents, groups=[0, 0, 1])  # only within a class
    assert within["angle"].tolist() == [90.0]
    assert within["findings"] == []
    single = pool_statistics(latents[:1])  # one image: no pair
    assert len(single["angle"]) == 0
    assert single["findings"] == []


def test_statistics_survive_identical_vectors():
    latents = torch.full((2, 1, 3, 3), 1 / 3)
    assert float(pool_statistics(latents)["angle"]) < 1e-4  # arccos of a rounded 1 is not NaN


def test_errors_say_what_to_do():
    model, real = toy(torch.float32), photographs()
    with pytest.raises(GenaugError, match="at least 0"):
        invert(
            model,
            torch.zeros(1, 1, 4, 4),
            model.embed(["day"]),
            settings=InversionSettings(fixed_point_iterations=-1),
        )
    with pytest.raises(GenaugError, match="one for all"):
        InversionPool(None).get(model, real, [0, 1], ["day"])
    with pytest.raises(GenaugError, match="nowhere.png"):
        InversionPool(None).get(model, real.select(["0.png"]), ["nowhere.png"], "day")
    assert "level 996" in check_grids(model, 200, 25)[0].message


def test_global_random_state_is_untouched():
    state = torch.get_rng_state()
    InversionPool(None).get(toy(torch.float32), photographs(), [0, 1], "day")
    assert torch.equal(torch.get_rng_state(), state)
