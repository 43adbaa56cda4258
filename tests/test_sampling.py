"""The sampling loop: equal to diffusers' pipelines where they can do the job, exact on the closed form, rows
independent of their batch."""

import sys
from pathlib import Path

import pytest
import torch

from genaug import sampling
from genaug.diffusion import ToyBackbone, gaussian_flow
from genaug.messages import GenaugError
from genaug.sampling import SamplingSettings, add_noise, denoise, row_noise, start_step, suffixed_steps
from genaug.stable_diffusion import StableDiffusionBackbone

sys.path.insert(0, str(Path(__file__).parent))
from random_pipeline import random_pipeline  # noqa: E402

TOLERANCE = 2e-5  # of latents of size about 1; the two sides add in a different order, in float32
STEPS = 10


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def pair(request):
    "The same weights as diffusers' pipeline and as our backbone."
    pipe = random_pipeline(prediction_type=request.param)
    # random UNets predict almost nothing: make this one speak up, and listen to the prompt
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            parameter.mul_(3.0 if "attn2" in name and "weight" in name else 1.3)
    return pipe, StableDiffusionBackbone(
        pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler
    )


def close(ours, theirs, other):
    "Equal within the tolerance, and the comparison could have failed."
    assert (theirs - other).abs().max() > 100 * TOLERANCE, "the reference does not react: nothing was tested"
    assert (ours - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_text_to_image_equals_the_pipeline(pair, scale):
    pipe, backbone = pair
    noise, prompts = row_noise((4, 8, 8), [1, 2]), ["a cat", "two dogs"]
    theirs = pipe(
        prompts, latents=noise, num_inference_steps=STEPS, guidance_scale=scale, output_type="latent"
    ).images
    ours = denoise(
        backbone, noise, [backbone.embed(prompts)], settings=SamplingSettings(STEPS, guidance_scale=scale)
    )
    close(
        ours,
        theirs,
        pipe(
            prompts[::-1],
            latents=noise,
            num_inference_steps=STEPS,
            guidance_scale=scale,
            output_type="latent",
        ).images,
    )


def test_switching_prompts_equals_the_pipeline_with_a_callback(pair):
    pipe, backbone = pair
    noise, first, second = row_noise((4, 8, 8), [3, 4]), ["a cat on grass"] * 2, ["a cat"] * 2
    positive, negative = pipe.encode_prompt(second, "cpu", 1, True, ["", ""])

    def switch(_pipe, step, _timestep, tensors):
        return {"prompt_embeds": torch.cat([negative, positive])} if step == 2 else {}

    run = {"latents": noise, "num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "latent"}
    theirs = pipe(first, callback_on_step_end=switch, **run).images
    ours = denoise(
        backbone,
        noise,
        [backbone.embed(first), backbone.embed(second)],
        [[3], [3]],
        settings=SamplingSettings(STEPS, guidance_scale=5.0),
    )
    close(ours, theirs, pipe(first, **run).images)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 0.7, 0.75, 0.9, 1.0])
def test_edits_equal_the_image_to_image_pipeline(pair, strength):
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe, backbone = pair
    edit = StableDiffusionImg2ImgPipeline(**{**pipe.components, "requires_safety_checker": False})
    edit.set_progress_bar_config(disable=True)
    images, prompts = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ["a cat", "dogs"]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    run = {"strength": strength, "num_inference_steps": STEPS, "guidance_scale": 7.5, "output_type": "latent"}
    theirs = edit(prompts, image=images, generator=generators, **run).images
    other = edit(
        prompts, image=images, generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)], **run
    ).images
    generators = [
        torch.Generator().manual_seed(seed) for seed in (5, 6)
    ]  # the pipeline draws the posterior, then the noise
    latents = backbone.encode(images, generators)
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for generator in generators])
    begin = start_step(strength, STEPS)
    noisy = add_noise(backbone, latents, noise, int(backbone.timesteps(STEPS)[begin]))
    ours = denoise(
        backbone, noisy, [backbone.embed(prompts)], settings=SamplingSettings(STEPS), start_step=begin
    )
    close(ours, theirs, other)


def test_guidance_for_a_part_equals_the_pipeline_cut_off(pair):
    pipe, backbone = pair
    noise = row_noise((4, 8, 8), [1, 2])

    def cut(running, step, _timestep, tensors):
        if step != 4:
            return {}
        running._guidance_scale = 0.0
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[1]}

    run = {"latents": noise, "num_inference_steps": STEPS, "guidance_scale": 7.5, "output_type": "latent"}
    theirs = pipe(
        ["a", "b"], callback_on_step_end=cut, callback_on_step_end_tensor_inputs=["prompt_embeds"], **run
    ).images
    ours = denoise(
        backbone, noise, [backbone.embed(["a", "b"])], settings=SamplingSettings(STEPS, guidance_until=0.5)
    )
    close(ours, theirs, pipe(["a", "b"], **run).images)


def test_a_mixed_batch_equals_its_rows_alone(pair):
    """Different starts, scales, prompts and switches in one batch: after decoding no pixel moves by more than
    2 of 255."""
    _, backbone = pair
    seeds, starts, scales, switches = (
        [1, 2, 3, 4, 5],
        [0, 3, 7, 10, 0],
        [7.5, 1.0, 3.0, 7.5, 1.0],
        [2, 5, 8, 1, 10],
    )
    noise = row_noise(backbone.latent_shape, seeds)
    stages = [
        backbone.embed(["cat on grass", "dog", "b", "c", ""]),
        backbone.embed(["cat", "dog in snow", "a", "c", "x"]),
    ]

    def paint(rows):
        return denoise(
            backbone,
            noise[rows],
            [stage[rows] for stage in stages],
            [[switches[row]] for row in rows],
            settings=SamplingSettings(STEPS, guidance_scale=tuple(scales[row] for row in rows)),
            start_step=[starts[row] for row in rows],
        )

    together = paint([0, 1, 2, 3, 4])
    alone = torch.cat([paint([row]) for row in range(5)])
    shuffled = paint([4, 2, 0, 3, 1])[[2, 4, 1, 3, 0]]
    pixels = [255 * backbone.decode(latents) for latents in (together, alone, shuffled)]
    assert (pixels[0] - pixels[1]).abs().max() <= 2
    assert (pixels[0] - pixels[2]).abs().max() <= 2
    assert torch.equal(together[3], noise[3])  # start step S: returned as it came
    assert (255 * (backbone.decode(noise) - backbone.decode(together))).abs().amax((1, 2, 3))[
        [0, 1, 2, 4]
    ].min() > 4


# --- the closed form


def toy(std=(0.1, 0.3)):
    return ToyBackbone(
        torch.stack([torch.full((1, 4, 4), -0.5), torch.full((1, 4, 4), 0.5)]),
        torch.tensor(std),
        ["night", "day"],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("steps", [1, 3, 7, 25, 50])
@pytest.mark.parametrize("index", [0, 1])
def test_single_gaussian_is_the_flow_times_the_cosines(steps, index):
    model = toy()
    noise = row_noise((1, 4, 4), [1, 2, 3]).double()
    painted = denoise(
        model,
        noise,
        [model.embed([model.class_names[index]] * 3)],
        settings=SamplingSettings(steps, guidance_scale=1),
    )
    grid = model.timesteps(steps)
    stride = 1000 // steps
    factor, spread = 1.0, float(model.std[index].flatten()[0])
    # independent of ddim_step: the dot product formula
    for level in grid.tolist():
        high, low = float(model.alphas_cumprod[level]), float(model.alphas_cumprod[max(level - stride, 0)])
        factor *= ((high * low) ** 0.5 * spread**2 + ((1 - high) * (1 - low)) ** 0.5) / (
            high * spread**2 + 1 - high
        )
    first, last = model.alphas_cumprod[[int(grid[0]), 0]]
    expected = last.sqrt() * model.means[index] + factor * (noise - first.sqrt() * model.means[index])
    assert torch.allclose(painted, expected, atol=1e-11)


def test_first_order_convergence_to_the_exact_flow_and_on_the_mixture():
    model, errors, mixture = toy(), {}, {}
    at_901 = row_noise((1, 4, 4), range(8)).double()
    fine = denoise(
        model,
        at_901,
        [model.embed([""] * 8)],
        settings=SamplingSettings(500, guidance_scale=1),
        start_step=500 - 451,
    )
    for steps in (50, 100, 200):
        begin = int((model.timesteps(steps) > 901).sum())
        assert int(model.timesteps(steps)[begin]) == 901
        how = {"settings": SamplingSettings(steps, guidance_scale=1), "start_step": begin}
        errors[steps] = (
            (
                denoise(model, at_901, [model.embed(["day"] * 8)], **how)
                - gaussian_flow(model, at_901, 901, -1, 1)
            )
            .abs()
            .max()
        )
        mixture[steps] = (
            (denoise(model, at_901, [model.embed([""] * 8)], **how) - fine).square().mean().sqrt()
        )
    assert 1.8 < errors[50] / errors[100] < 2.2
    assert 1.8 < errors[100] / errors[200] < 2.2
    assert mixture[50] > 1.6 * mixture[100] > 2.56 * mixture[200]


def test_two_stages_use_the_prompt_of_their_step():
    model, noise = toy(), row_noise((1, 4, 4), range(3)).double()
    night, day = model.embed(["night"] * 3), model.embed(["day"] * 3)
    both = denoise(model, noise, [night, day], [[0], [25], [12]], settings=SamplingSettings(guidance_scale=1))
    assert torch.equal(both[0], denoise(model, noise, [day], settings=SamplingSettings(guidance_scale=1))[0])
    assert torch.equal(
        both[1], denoise(model, noise, [night], settings=SamplingSettings(guidance_scale=1))[1]
    )
    halfway = []
    denoise(
        model,
        noise,
        [night],
        settings=SamplingSettings(guidance_scale=1),
        callback=lambda state: halfway.append(state["latents"].clone()),
    )
    rest = denoise(model, halfway[11], [day], settings=SamplingSettings(guidance_scale=1), start_step=12)
    assert torch.equal(both[2], rest[2])
    three = denoise(
        model,
        noise,
        [night, day, night],
        [[25, 25], [0, 25], [12, 12]],
        settings=SamplingSettings(guidance_scale=1),
    )
    assert torch.equal(
        three[0], denoise(model, noise, [night], settings=SamplingSettings(guidance_scale=1))[0]
    )


def test_strength_zero_returns_the_source_and_input_is_unchanged():
    model, latents = toy(), row_noise((1, 4, 4), [1, 2]).double()
    before = latents.clone()
    begin = start_step(0.03, 25)
    assert begin == 25
    level = -1 if begin == 25 else int(model.timesteps(25)[begin])
    noisy = add_noise(model, latents, row_noise((1, 4, 4), [8, 9]), level)
    assert torch.equal(denoise(model, noisy, [model.embed(["day"] * 2)], start_step=begin), before)
    denoise(model, latents, [model.embed(["day"] * 2)])
    assert torch.equal(latents, before)


def test_unguided_rows_cost_one_evaluation():
    model, evaluated = toy(), []
    plain = model.predict_noise
    model.predict_noise = lambda latents, timesteps, condition: (
        evaluated.append(len(latents)) or plain(latents, timesteps, condition)
    )
    noise, prompts = row_noise((1, 4, 4), [1, 2, 3]).double(), [model.embed(["day"] * 3)]
    for settings, start, cost in (
        ({"guidance_scale": 1}, 0, 75),
        ({"guidance_scale": (7.5, 1, 1)}, 0, 100),
        ({"guidance_until": 0.5}, 0, 75 + 36),
        ({"guidance_scale": 1}, [0, 20, 25], 30),
    ):
        evaluated.clear()
        denoise(model, noise, prompts, settings=SamplingSettings(**settings), start_step=start)
        assert sum(evaluated) == cost


def test_global_random_state_is_untouched_and_noise_is_per_row():
    state = torch.get_rng_state()
    noise = row_noise((2, 4, 4), [0, 2**62, 0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert row_noise((2, 4, 4), []).shape == (0, 2, 4, 4)


def test_splits_and_strengths_of_the_papers_for_other_grids():
    model = toy()
    assert [suffixed_steps(ratio, model.timesteps(50)) for ratio in (0, 0.1, 0.3, 0.5, 0.7, 1)] == [
        0,
        5,
        15,
        25,
        35,
        50,
    ]
    assert [suffixed_steps(1 - 0.1 * tenth, model.timesteps(10)) for tenth in range(11)] == [
        10,
        9,
        8,
        7,
        6,
        5,
        4,
        3,
        2,
        1,
        0,
    ]
    assert [100 - start_step(hundredth / 100, 100) for hundredth in range(101)] == [
        int(100 * (hundredth / 100)) for hundredth in range(101)
    ]


def test_errors_say_what_to_do():
    model, noise = toy(), row_noise((1, 4, 4), [1, 2]).double()
    prompts = model.embed(["day"] * 2)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(GenaugError, match="between 0"):
            start_step(bad)
        with pytest.raises(GenaugError, match="between 0"):
            suffixed_steps(bad, model.timesteps(25))
    with pytest.raises(GenaugError, match="one per row"):
        denoise(model, noise, [prompts], settings=SamplingSettings(guidance_scale=[1, 2, 3]))
    with pytest.raises(GenaugError, match="list of prompt embeddings"):
        denoise(model, noise, prompts)
    with pytest.raises(GenaugError, match="one row for each"):
        denoise(model, noise, [prompts[:1]])
    with pytest.raises(GenaugError, match="switch_steps"):
        denoise(model, noise, [prompts, prompts])
    with pytest.raises(GenaugError, match="switch_steps"):
        sampling.switch_table([[1, 2]], 1, 2)
