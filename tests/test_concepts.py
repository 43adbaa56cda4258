"""Concepts: attaching and detaching, files for and from other programs, learning and resuming."""
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from genaug.concepts.category import learn_category_concept
from genaug.concepts.lora import TARGETS, learn_lora, trainable_adapter
from genaug.concepts.textual_inversion import (Concept, adapter_attached, concept_from_files, concept_loss, draw_positions, initial_rows,
                                               learn_tokens, learning_set, noise_prediction_loss, placeholder_names, read_adapter, read_embedding,
                                               tokens_attached)
from genaug.core import GenaugError, LabeledImages
from genaug.diffusion import StableDiffusionBackbone, ToyBackbone
from genaug.prompts import ClassPrompt
from random_pipeline import random_pipeline

WIDTH = 32
CONFIG = {"r": 2, "lora_alpha": 5, "target_modules": list(TARGETS)}


def make_backbone(**options):
    pipeline = random_pipeline(**options)
    return StableDiffusionBackbone(**{name: getattr(pipeline, name) for name in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")})


@pytest.fixture(scope="module")
def backbone():
    from diffusers.utils import logging

    logging.set_verbosity_error()
    return make_backbone()


@pytest.fixture(scope="module")
def real():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    return LabeledImages(list(pixels), np.array([0, 0, 0, 1, 1, 2]), ["auk", "dodo", "moa"], [f"{position}.png" for position in range(6)])


def random_concept(backbone, seed, count=2, lora=True):
    drawn = torch.Generator().manual_seed(seed)
    tokens = {token: torch.randn(count, WIDTH, generator=drawn) for token in ("<c000>", "<c001>")}
    matrices = {}
    for name, layer in backbone.unet.named_modules():
        if lora and name.endswith(TARGETS):
            matrices[f"{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=drawn) / 4
            matrices[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=drawn) / 4
    return Concept({"auk": "<c000>", "dodo": "<c001>"}, tokens, matrices or None, CONFIG if lora else None)


@torch.no_grad()
def seen(backbone, prompt="a photo of a <c001> bird"):
    latents = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    return backbone.predict_noise(latents, torch.tensor([1, 961]), backbone.embed([prompt] * 2))


def state_of(backbone):
    return ({name: id(module) for part in backbone.modules.values() for name, module in part.named_modules()},
            [parameter.requires_grad for part in backbone.modules.values() for parameter in part.parameters()],
            id(backbone.tokenizer), len(backbone.tokenizer), backbone.fingerprint(), getattr(backbone.unet, "peft_config", None))


# attaching

def test_detaching_leaves_nothing_behind(backbone):
    before, plain = state_of(backbone), seen(backbone, "a photo of a bird")
    for fused in (True, False):
        with random_concept(backbone, 1).attached(backbone, fused=fused):
            assert (seen(backbone, "a photo of a bird") - plain).abs().max() > 1e-2
        assert state_of(backbone) == before and torch.equal(seen(backbone, "a photo of a bird"), plain)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GenaugError])
def test_detaching_after_an_exception(backbone, error):
    before, plain = state_of(backbone), seen(backbone, "a bird")
    with pytest.raises(error), backbone.using(random_concept(backbone, 1)), backbone.using(random_concept(backbone, 2)):
        raise error("stop")
    assert state_of(backbone) == before and torch.equal(seen(backbone, "a bird"), plain)


def test_two_concepts_with_the_same_words_interleaved_and_nested(backbone):
    first, second = random_concept(backbone, 1), random_concept(backbone, 2, count=1, lora=False)
    with backbone.using(first): alone = seen(backbone)
    with backbone.using(second): other = seen(backbone)
    assert not torch.equal(alone, other)
    for concept, expected in ((first, alone), (second, other)) * 2:
        with backbone.using(concept):
            assert torch.equal(seen(backbone), expected)
    with backbone.using(first):
        with backbone.using(second):
            assert torch.equal(seen(backbone), other)
            with backbone.using(first):
                assert torch.equal(seen(backbone), alone)
            assert torch.equal(seen(backbone), other)
        assert torch.equal(seen(backbone), alone)


def test_leaving_in_another_order_than_entering(backbone):
    before, first, second = state_of(backbone), random_concept(backbone, 1), random_concept(backbone, 2)
    with backbone.using(second): other = seen(backbone)
    outer, inner = first.attached(backbone), second.attached(backbone)
    outer.__enter__(), inner.__enter__()
    outer.__exit__(None, None, None)
    assert torch.equal(seen(backbone), other)
    inner.__exit__(None, None, None)
    assert state_of(backbone) == before


def test_a_concept_that_does_not_fit_changes_nothing(backbone):
    before = state_of(backbone)
    good = random_concept(backbone, 1)
    wide = Concept(good.placeholder, {"<c000>": torch.zeros(1, WIDTH + 1)})
    odd = Concept({}, {}, {name: matrix[..., :1] for name, matrix in good.lora.items()}, CONFIG)
    known = Concept({"auk": "a"}, {"a": torch.zeros(1, WIDTH)})
    for concept, message in ((wide, "width 33"), (odd, "does not fit"), (known, "already has a word")):
        with pytest.raises(GenaugError, match=message), backbone.using(concept):
            pass
        assert state_of(backbone) == before
    with backbone.using(good):
        with pytest.raises(GenaugError, match="width"), backbone.using(wide):
            pass
        assert not torch.equal(seen(backbone), seen(backbone, "a photo of a bird"))  # the outer one is back
    assert state_of(backbone) == before


def test_a_foreign_adapter_is_refused_not_removed(backbone):
    from peft import LoraConfig

    with torch.random.fork_rng():
        backbone.unet.add_adapter(LoraConfig(r=1, target_modules=["to_q"]), adapter_name="mine")
    try:
        with pytest.raises(GenaugError, match="already carries an adapter"), backbone.using(random_concept(backbone, 1)):
            pass
        assert list(backbone.unet.peft_config) == ["mine"]
    finally:
        backbone.unet.unload_lora()
        backbone.unet.requires_grad_(False)


def test_global_random_state_is_untouched(backbone, real):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with backbone.using(random_concept(backbone, 1)):
        pass
    learn_category_concept(backbone, real, steps=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_toy_backbone_reads_placeholders_as_class_names(real):
    toy = ToyBackbone(torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, 3, 8, 8), .2, real.class_names)
    for learn in (learn_tokens, learn_category_concept):
        concept = learn(toy, real)
        plain = toy.embed(["a photo of a dodo"])
        with toy.using(concept):
            assert torch.equal(toy.embed(["a photo of a <c001>"]), plain)
        assert not torch.equal(toy.embed(["a photo of a <c001>"]), plain) and "embed" not in vars(toy)


# files

def test_round_trip_is_exact(backbone, tmp_path):
    for position, concept in enumerate((random_concept(backbone, 1), random_concept(backbone, 2, count=1, lora=False))):
        concept.save(tmp_path / str(position))
        again = Concept.load(tmp_path / str(position))
        assert again.fingerprint() == concept.fingerprint() and again.placeholder == concept.placeholder
        assert all(torch.equal(again.tokens[token], concept.tokens[token]) for token in concept.tokens)
        with backbone.using(concept): expected = seen(backbone)
        with backbone.using(again): assert torch.equal(seen(backbone), expected)


def test_fingerprint_sees_every_number(backbone):
    concept = random_concept(backbone, 1)
    prints = {concept.fingerprint(), random_concept(backbone, 1).fingerprint()}
    assert len(prints) == 1
    nudged = {name: matrix + 1e-6 * (position == 0) for position, (name, matrix) in enumerate(concept.lora.items())}
    prints.add(Concept(concept.placeholder, concept.tokens, nudged, CONFIG).fingerprint())
    prints.add(Concept(concept.placeholder, concept.tokens, concept.lora, {**CONFIG, "lora_alpha": 6}).fingerprint())
    prints.add(Concept(concept.placeholder, {"<c000>": concept.tokens["<c001>"], "<c001>": concept.tokens["<c000>"]}, concept.lora, CONFIG).fingerprint())
    assert len(prints) == 4


def test_damaged_folders_are_refused(backbone, tmp_path):
    with pytest.raises(GenaugError, match="no complete concept"):
        Concept.load(tmp_path / "missing")
    concept = random_concept(backbone, 1)
    concept.save(tmp_path)
    safetensors.torch.save_file({"<c000>": torch.zeros(2, WIDTH)}, tmp_path / "learned_embeds" / "c000.safetensors")
    with pytest.raises(GenaugError, match="not those"):
        Concept.load(tmp_path)
    (tmp_path / "learned_embeds" / "c000.safetensors").write_bytes(b"x")
    with pytest.raises(GenaugError, match="no complete concept"):
        Concept.load(tmp_path)


@torch.no_grad()
def test_a_plain_pipeline_paints_the_same_image(backbone, tmp_path):
    from genaug.sampling import denoise

    concept = random_concept(backbone, 4)  # two vectors per word, alpha 5 and rank 2
    concept.save(tmp_path)
    pipeline = random_pipeline()
    for file in sorted((tmp_path / "learned_embeds").iterdir()):
        pipeline.load_textual_inversion(file)
    pipeline.load_lora_weights(tmp_path)
    start = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(8))
    theirs = pipeline("a photo of a <c001> bird", num_inference_steps=5, guidance_scale=3.0, latents=start, output_type="np").images[0]
    with backbone.using(concept):
        ours = backbone.decode(denoise(backbone, start, [backbone.embed(["a photo of a <c001> bird"])], num_inference_steps=5, guidance_scale=3.0))
    plain = backbone.decode(denoise(backbone, start, [backbone.embed(["a photo of a bird"])], num_inference_steps=5, guidance_scale=3.0))
    ours, plain = ours[0].permute(1, 2, 0).numpy(), plain[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 < 1e-2 < np.abs(plain - theirs).max()


def test_files_that_diffusers_and_peft_wrote(backbone, tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline = random_pipeline()
    with torch.random.fork_rng():
        pipeline.unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=["to_k", "to_v", "proj_in"], rank_pattern={"to_v": 2}, alpha_pattern={"to_v": 2}))
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))  # no metadata: alpha = rank
    safetensors.torch.save_file({"my-bird": torch.ones(WIDTH)}, tmp_path / "bird.safetensors")
    concept = concept_from_files(backbone, {"auk": tmp_path / "bird.safetensors"}, tmp_path)
    assert concept.tokens["<c000>"].shape == (1, WIDTH)
    latents = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), backbone.using(concept):
        condition = backbone.embed(["a <c000>"])
        ours = backbone.predict_noise(latents, torch.tensor([500]), condition)
        assert torch.allclose(ours, pipeline.unet(latents, 500, encoder_hidden_states=condition).sample, atol=1e-5)
    concept.save(tmp_path / "kept")
    assert Concept.load(tmp_path / "kept").fingerprint() == concept.fingerprint()


def test_files_with_the_key_names_of_kohya_and_automatic1111(backbone, tmp_path):
    drawn = torch.Generator().manual_seed(0)
    name = next(name for name, _ in backbone.unet.named_modules() if name.endswith("attn1.to_q"))
    layer = backbone.unet.get_submodule(name)
    down, up = torch.randn(4, layer.in_features, generator=drawn), torch.randn(layer.out_features, 4, generator=drawn)
    stem = "lora_unet_" + name.replace(".", "_")
    state = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(2.0)}
    safetensors.torch.save_file(state, tmp_path / "kohya.safetensors")
    matrices, config = read_adapter(backbone, tmp_path / "kohya.safetensors")
    with adapter_attached(backbone.unet, matrices, config):
        changed = backbone.unet.get_submodule(name).weight.detach().clone()
    assert torch.allclose(changed - layer.weight, up @ down * 2 / 4, atol=1e-5)

    te = {f"lora_te_text_model_encoder_layers_0_self_attn_q_proj.{end}": torch.zeros(4, WIDTH) if "down" in end else torch.zeros(WIDTH, 4)
          for end in ("lora_down.weight", "lora_up.weight")}
    te["lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha"] = torch.tensor(4.0)
    safetensors.torch.save_file({**state, **te}, tmp_path / "both.safetensors")
    with pytest.raises(GenaugError, match="unet_only=True"):
        read_adapter(backbone, tmp_path / "both.safetensors")
    again, _ = read_adapter(backbone, tmp_path / "both.safetensors", unet_only=True)
    assert all(torch.equal(again[key], matrices[key]) for key in matrices) and again.keys() == matrices.keys()

    torch.save({"string_to_param": {"*": torch.ones(3, WIDTH)}, "name": "bird", "step": 7}, tmp_path / "old.pt")
    assert read_embedding(tmp_path / "old.pt").shape == (3, WIDTH)


def test_unreadable_files_of_others(backbone, tmp_path):
    before = state_of(backbone)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    safetensors.torch.save_file({"one": torch.ones(4), "two": torch.ones(4)}, tmp_path / "two.safetensors")
    for name in ("bad", "two", "missing"):
        with pytest.raises(GenaugError):
            read_embedding(tmp_path / f"{name}.safetensors")
        with pytest.raises(GenaugError):
            read_adapter(backbone, tmp_path / f"{name}.safetensors")
    assert state_of(backbone) == before


def test_a_pickle_that_would_execute_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"*": Trap()}, tmp_path / "trap.bin")
    with pytest.raises(GenaugError, match="no textual-inversion file"):
        read_embedding(tmp_path / "trap.bin")


# learning

def test_only_the_new_rows_change(backbone, real):
    before, plain = state_of(backbone), seen(backbone, "a photo of a bird")
    start = initial_rows(backbone, real.class_names, None, 2, ClassPrompt())
    concept = learn_tokens(backbone, real, steps=3, lr=0.1, weight_decay=0.1, tokens_per_class=2, initial=None, progress=False)
    assert all((concept.tokens[token] - start[token]).abs().min() > 1e-4 for token in start)
    assert state_of(backbone) == before and torch.equal(seen(backbone, "a photo of a bird"), plain)  # the fingerprint covers all weights


def test_lora_is_the_identity_at_first_and_trains_nothing_else(backbone):
    plain, projections = seen(backbone), sum(name.endswith(TARGETS) for name, _ in backbone.unet.named_modules())
    with trainable_adapter(backbone.unet, rank=3) as learning:
        assert torch.equal(seen(backbone), plain)
        able = {name for name, parameter in backbone.unet.named_parameters() if parameter.requires_grad}
        assert able == set(learning) and len(able) == 2 * projections
        noise_prediction_loss(backbone, torch.ones(1, 4, 8, 8), backbone.embed([""]), torch.tensor([5]), torch.ones(1, 4, 8, 8)).backward()
        assert all(parameter.grad is None for name, parameter in backbone.unet.named_parameters() if name not in able)
        assert any(parameter.grad.abs().max() > 0 for parameter in learning.values())
    for rank, alpha in ((0, None), (2, 0.0)):
        with pytest.raises(GenaugError, match="rank"), trainable_adapter(backbone.unet, rank, alpha):
            pass


def test_learned_alpha_and_rank_survive_the_file(backbone, real, tmp_path):
    concept = learn_category_concept(backbone, real, steps=4, lr=1e-2, rank=2, alpha=7.0, progress=False)
    assert (concept.rank, concept.alpha) == (2, 7.0) and any(matrix.abs().max() > 0 for name, matrix in concept.lora.items() if "lora_B" in name)
    concept.save(tmp_path)
    again = Concept.load(tmp_path)
    assert again.alpha == 7.0 and json.loads(json.dumps(again.settings)) == again.settings
    assert again.settings["learned_from"] == real.fingerprint() and again.settings["backbone"] == backbone.fingerprint()


def test_resumed_learning_equals_uninterrupted_learning(backbone, real, tmp_path, monkeypatch):
    import genaug.concepts.category as category

    options = dict(steps=7, lr=1e-2, rank=2, tokens_per_class=2, balanced=True, progress=False)
    whole = learn_category_concept(backbone, real, **options)
    plain_loss, calls = category.concept_loss, []

    def dying_loss(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain_loss(*arguments)

    monkeypatch.setattr(category, "concept_loss", dying_loss)
    before = state_of(backbone)
    with pytest.raises(KeyboardInterrupt):
        learn_category_concept(backbone, real, checkpoint=tmp_path, checkpoint_every=2, **options)
    assert state_of(backbone) == before
    resumed = learn_category_concept(backbone, real, checkpoint=tmp_path, checkpoint_every=2, **options)
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5, 6] and resumed.fingerprint() == whole.fingerprint()
    other = learn_category_concept(backbone, real[:3], checkpoint=tmp_path, **options)  # other photographs never resume this run
    assert calls[9:] == list(range(7)) and other.fingerprint() != whole.fingerprint()


def test_seed_decides(backbone, real):
    prints = [learn_lora(backbone, real, steps=2, lr=1e-2, rank=2, seed=seed, progress=False).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_only_training_ids_enter(backbone, real):
    for learn in (learn_tokens, learn_lora, learn_category_concept):
        with pytest.raises(GenaugError, match="5.png"):
            learn(backbone, real, steps=1, progress=False, allowed=real.ids[:5])
    with pytest.raises(GenaugError, match="no photograph"):
        learning_set(backbone, real[:0], ClassPrompt())


def test_learning_set_views_prompts_and_weights(backbone, real):
    prepared = learning_set(backbone, real, ClassPrompt(metaclass="bird"), placeholder_names(real.class_names), flip=True, balanced=True)
    assert prepared.prompts == ("a photo of a <c000> bird", "a photo of a <c001> bird", "a photo of a <c002> bird")
    mirrored = backbone.encode(real.batch([4]).flip(-1))
    assert torch.allclose(prepared.latents[1, 4], mirrored[0], atol=1e-5) and prepared.latents.shape[:2] == (2, 6)
    assert torch.allclose(prepared.weights, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1], dtype=torch.float64))
    multi = LabeledImages(real.pixels, np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]] + np.eye(3, dtype=np.float32)[[1, 1, 2, 2, 0, 0]], real.class_names, real.ids, task="multi")
    assert learning_set(backbone, multi, ClassPrompt(), placeholder_names(real.class_names)).prompts[0] == "a photo of a <c000> and <c001>"


def test_rounds_show_every_photograph_equally_often():
    drawn = torch.cat([draw_positions(7, 3, 11, step, None) for step in range(7)])
    assert torch.equal(drawn.bincount(), torch.full((7,), 3))
    assert torch.equal(draw_positions(7, 3, 11, 4, None), drawn[12:15])
    assert not torch.equal(drawn[:7], drawn[7:14])
    assert torch.equal(draw_positions(1, 3, 0, 0, None), torch.zeros(3, dtype=torch.long))


def test_velocity_target_is_the_noise_error_divided_by_the_signal():
    backbone = make_backbone(prediction_type="v_prediction")
    drawn = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, *backbone.latent_shape, generator=drawn)
    times, condition = torch.tensor([300]), backbone.embed(["a bird"]).detach()
    with torch.no_grad():
        loss = noise_prediction_loss(backbone, latents, condition, times, noise)
        noisy = backbone.scheduler.add_noise(latents, noise, times)
        error = (backbone.predict_noise(noisy, times, condition) - noise).square().mean()
    assert torch.allclose(loss, error / backbone.alphas_cumprod[300].float(), rtol=1e-4)


def test_where_the_vectors_begin(backbone):
    table = backbone.text_encoder.get_input_embeddings().weight
    named = initial_rows(backbone, ["auk", "dodo"], {"auk": "bird"}, 1, ClassPrompt(names={"dodo": "d"}))
    pieces = backbone.tokenizer("bird", add_special_tokens=False).input_ids
    assert torch.allclose(named["<c000>"][0], table[pieces].mean(0)) and torch.equal(named["<c001>"][0], table[backbone.tokenizer("d", add_special_tokens=False).input_ids[0]])
    assert torch.equal(initial_rows(backbone, ["auk"], 7, 3, ClassPrompt())["<c000>"], table[7].repeat(3, 1))
    for initial, count in ((514, 1), (-1, 1), ("", 1), ("bird", 0)):
        with pytest.raises(GenaugError):
            initial_rows(backbone, ["auk"], initial, count, ClassPrompt())


def test_learning_lowers_the_loss_for_its_own_photographs(backbone, real):
    prompt, words = ClassPrompt(), placeholder_names(real.class_names)
    prepared = learning_set(backbone, real, prompt, words)
    concept = learn_category_concept(backbone, real, prompt, steps=60, lr=1e-2, rank=4, batch_size=6, flip=False, progress=False)
    untaught = Concept(words, initial_rows(backbone, real.class_names, "ktn", 1, prompt))
    losses = []
    for choice in (untaught, concept):
        with torch.no_grad(), choice.attached(backbone):
            losses.append(np.mean([float(concept_loss(backbone, prepared, 6, 99, step)) for step in range(20)]))
    assert losses[1] < 0.95 * losses[0]
