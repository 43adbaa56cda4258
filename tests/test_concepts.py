"""Concepts: attaching and detaching, files for and from other programs, learning and resuming."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from random_pipeline import random_pipeline
from toy_sets import noise_set

from genaug.concepts.attach import adapter_attached, placeholder_names, text_layers
from genaug.concepts.category import CategorySettings, learn_category_concept
from genaug.concepts.concept import Concept, concept_from_files, read_adapter, read_embedding
from genaug.concepts.lora import (
    TARGETS,
    TEXT_TARGETS,
    AdapterSet,
    AdapterSettings,
    fuse_concepts,
    layer_scale,
    learn_adapter_set,
    learn_lora,
    trainable_adapter,
)
from genaug.concepts.textual_inversion import (
    TokenSettings,
    concept_loss,
    draw_positions,
    initial_rows,
    learn_tokens,
    learning_set,
    noise_prediction_loss,
)
from genaug.core import LabeledImages
from genaug.diffusion import ToyBackbone
from genaug.messages import GenaugError
from genaug.prompts import ClassPrompt
from genaug.stable_diffusion import StableDiffusionBackbone

WIDTH = 32
CONFIG = {"r": 2, "lora_alpha": 5, "target_modules": list(TARGETS)}
TEXT_CONFIG = {"r": 3, "lora_alpha": 2, "target_modules": list(TEXT_TARGETS)}


def make_backbone(**options):
    pipeline = random_pipeline(**options)
    return StableDiffusionBackbone(
        **{
            name: getattr(pipeline, name)
            for name in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
        }
    )


@pytest.fixture(scope="module")
def backbone():
    from diffusers.utils import logging

    logging.set_verbosity_error()
    return make_backbone()


@pytest.fixture(scope="module")
def real():
    return noise_set([0, 0, 0, 1, 1, 2], ["auk", "dodo", "moa"], size=32)


def random_matrices(module, targets, rank, drawn):
    matrices = {}
    for name, layer in module.named_modules():
        if name.endswith(tuple(targets)):
            size_out, size_in, *kernel = layer.weight.shape  # a linear layer, or a convolution
            matrices[f"{name}.lora_A.weight"] = torch.randn(rank, size_in, *kernel, generator=drawn) / 4
            matrices[f"{name}.lora_B.weight"] = (
                torch.randn(size_out, rank, *([1] * len(kernel)), generator=drawn) / 4
            )
    return matrices


def random_concept(backbone, seed, count=2, lora=True, text=False):
    drawn = torch.Generator().manual_seed(seed)
    tokens = {token: torch.randn(count, WIDTH, generator=drawn) for token in ("<c000>", "<c001>")}
    adapter = (random_matrices(backbone.unet, TARGETS, 2, drawn), CONFIG) if lora else (None, None)
    text = (
        (random_matrices(text_layers(backbone.text_encoder), TEXT_TARGETS, 3, drawn), TEXT_CONFIG)
        if text
        else (None, None)
    )
    return Concept({"auk": "<c000>", "dodo": "<c001>"}, tokens, *adapter, {}, *text)


@torch.no_grad()
def seen(backbone, prompt="a photo of a <c001> bird"):
    latents = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    return backbone.predict_noise(latents, torch.tensor([1, 961]), backbone.embed([prompt] * 2))


def state_of(backbone):
    return (
        {name: id(module) for part in backbone.modules.values() for name, module in part.named_modules()},
        [parameter.requires_grad for part in backbone.modules.values() for parameter in part.parameters()],
        id(backbone.tokenizer),
        len(backbone.tokenizer),
        backbone.fingerprint(),
        getattr(backbone.unet, "peft_config", None),
        getattr(text_layers(backbone.text_encoder), "peft_config", None),
    )


# attaching


@pytest.mark.parametrize("lora,text", [(True, False), (False, True), (True, True)])
def test_detaching_leaves_nothing_behind(backbone, lora, text):
    before, plain = state_of(backbone), seen(backbone, "a photo of a bird")
    for fused in (True, False):
        with random_concept(backbone, 1, lora=lora, text=text).attached(backbone, fused=fused):
            assert (seen(backbone, "a photo of a bird") - plain).abs().max() > 1e-2
        assert state_of(backbone) == before
        assert torch.equal(seen(backbone, "a photo of a bird"), plain)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GenaugError])
def test_detaching_after_an_exception(backbone, error):
    before, plain = state_of(backbone), seen(backbone, "a bird")
    with (
        pytest.raises(error),
        backbone.using(random_concept(backbone, 1, text=True)),
        backbone.using(random_concept(backbone, 2, text=True)),
    ):
        raise error("stop")
    assert state_of(backbone) == before
    assert torch.equal(seen(backbone, "a bird"), plain)


def test_the_text_adapter_is_the_formula_and_touches_only_the_text_encoder(backbone):
    concept = random_concept(backbone, 6, lora=False, text=True)
    layers, name = text_layers(backbone.text_encoder), "encoder.layers.0.self_attn.v_proj"
    change = 2 / 3 * concept.text_lora[f"{name}.lora_B.weight"] @ concept.text_lora[f"{name}.lora_A.weight"]
    wanted, others = (
        layers.get_submodule(name).weight + change,
        {key: id(layer) for key, layer in backbone.unet.named_modules()},
    )
    with torch.no_grad(), concept.attached(backbone):
        assert torch.allclose(layers.get_submodule(name).weight, wanted, atol=1e-6)
        assert {key: id(layer) for key, layer in backbone.unet.named_modules()} == others
        fused = backbone.embed(["a photo of a <c001> bird"])
    with torch.no_grad(), concept.attached(backbone, fused=False):
        assert torch.allclose(backbone.embed(["a photo of a <c001> bird"]), fused, atol=1e-5)


@pytest.mark.parametrize("texts", [(False, False), (True, True), (True, False)])
def test_two_concepts_with_the_same_words_interleaved_and_nested(backbone, texts):
    first, second = (
        random_concept(backbone, 1, text=texts[0]),
        random_concept(backbone, 2, count=1, lora=False, text=texts[1]),
    )
    with backbone.using(first):
        alone = seen(backbone)
    with backbone.using(second):
        other = seen(backbone)
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
    with backbone.using(second):
        other = seen(backbone)
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
    text = random_concept(backbone, 1, text=True).text_lora
    narrow = Concept(
        {}, {}, good.lora, CONFIG, {}, {name: matrix[..., :1] for name, matrix in text.items()}, TEXT_CONFIG
    )
    foreign = Concept(
        {}, {}, None, None, {}, {f"other.{name}": matrix for name, matrix in text.items()}, TEXT_CONFIG
    )
    for concept, message in (
        (wide, "width 33"),
        (odd, "not fit this denoiser"),
        (known, "already has a word"),
        (narrow, "not fit this text encoder"),
        (foreign, "not fit this text encoder"),
    ):
        with pytest.raises(GenaugError, match=message), backbone.using(concept):
            pass
        assert state_of(backbone) == before
    with backbone.using(good):
        with pytest.raises(GenaugError, match="width"), backbone.using(wide):
            pass
        assert not torch.equal(seen(backbone), seen(backbone, "a photo of a bird"))  # the outer one is back
    assert state_of(backbone) == before


@pytest.mark.parametrize("part,layer", [("unet", "to_q"), ("text_encoder", "q_proj")])
def test_a_foreign_adapter_is_refused_not_removed(backbone, part, layer):
    from diffusers.utils import recurse_remove_peft_layers
    from peft import LoraConfig

    module = getattr(backbone, part)
    with torch.random.fork_rng():
        module.add_adapter(LoraConfig(r=1, target_modules=[layer]), adapter_name="mine")
    try:
        with (
            pytest.raises(GenaugError, match="already carries an adapter"),
            backbone.using(random_concept(backbone, 1, text=True)),
        ):
            pass
        assert list(module.peft_config) == ["mine"]
    finally:
        recurse_remove_peft_layers(module)
        del module.peft_config
        module._hf_peft_config_loaded = False
        module.requires_grad_(False)


def test_global_random_state_is_untouched(backbone, real):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with backbone.using(random_concept(backbone, 1, text=True)):
        pass
    learn_category_concept(backbone, real, settings=CategorySettings(steps=1))
    learn_lora(backbone, real, settings=AdapterSettings(steps=1, text_encoder=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_toy_backbone_reads_placeholders_as_class_names(real):
    toy = ToyBackbone(torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, 3, 8, 8), 0.2, real.class_names)
    for learn in (learn_tokens, learn_category_concept):
        concept = learn(toy, real)
        plain = toy.embed(["a photo of a dodo"])
        with toy.using(concept):
            assert torch.equal(toy.embed(["a photo of a <c001>"]), plain)
        assert not torch.equal(toy.embed(["a photo of a <c001>"]), plain)
        assert "embed" not in vars(toy)


def test_toy_backbone_gets_a_harmless_adapter_set(real, tmp_path):
    toy = ToyBackbone(torch.linspace(-1, 1, 3).reshape(3, 1, 1, 1).expand(3, 3, 8, 8), 0.2, real.class_names)
    plain = toy.embed(["a photo of a dodo"])
    assert learn_lora(toy, real, settings=AdapterSettings(text_encoder=True, warmup=3)).lora is None
    for scope in ("class", "image"):
        adapter_set = learn_adapter_set(
            toy, real, settings=AdapterSettings(text_encoder=True), scope=scope, checkpoint=tmp_path
        )
        assert list(adapter_set.concepts) == list(real.class_names if scope == "class" else real.ids)
        keys = list(adapter_set.concepts)[:2]
        for adapters in ([(keys[0], 1.0)], [(keys[0], 0.5), (keys[1], 0.5)]):
            with toy.using(adapter_set.get(adapters)):
                assert torch.equal(toy.embed(["a photo of a dodo"]), plain)


# files


def test_round_trip_is_exact(backbone, tmp_path):
    for position, concept in enumerate(
        (
            random_concept(backbone, 1),
            random_concept(backbone, 2, count=1, lora=False),
            random_concept(backbone, 3, text=True),
            random_concept(backbone, 4, lora=False, text=True),
        )
    ):
        concept.save(tmp_path / str(position))
        again = Concept.load(tmp_path / str(position))
        assert again.fingerprint() == concept.fingerprint()
        assert again.placeholder == concept.placeholder
        assert all(torch.equal(again.tokens[token], concept.tokens[token]) for token in concept.tokens)
        with backbone.using(concept):
            expected = seen(backbone)
        with backbone.using(again):
            assert torch.equal(seen(backbone), expected)


def test_fingerprint_sees_every_number(backbone):
    concept = random_concept(backbone, 1)
    prints = {concept.fingerprint(), random_concept(backbone, 1).fingerprint()}
    assert len(prints) == 1
    nudged = {
        name: matrix + 1e-6 * (position == 0) for position, (name, matrix) in enumerate(concept.lora.items())
    }
    prints.add(Concept(concept.placeholder, concept.tokens, nudged, CONFIG).fingerprint())
    prints.add(
        Concept(concept.placeholder, concept.tokens, concept.lora, {**CONFIG, "lora_alpha": 6}).fingerprint()
    )
    prints.add(
        Concept(
            concept.placeholder,
            {"<c000>": concept.tokens["<c001>"], "<c001>": concept.tokens["<c000>"]},
            concept.lora,
            CONFIG,
        ).fingerprint()
    )
    assert len(prints) == 4


def test_the_text_adapter_enters_the_fingerprint_only_where_there_is_one(backbone):
    words = {"<c000>": torch.arange(6.0).reshape(2, 3)}
    matrices = {"mid.to_q.lora_A.weight": torch.ones(2, 4), "mid.to_q.lora_B.weight": torch.full((4, 2), 0.5)}
    settings = {"r": 2, "lora_alpha": 4.0, "target_modules": ["to_q"]}
    with_lora = Concept({"auk": "<c000>"}, words, matrices, settings)
    # both values as they were before concepts could change the text encoder: caches of that time stay valid
    assert (
        Concept({"auk": "<c000>"}, words).fingerprint()
        == "047c4a5dbf922e8847086299bcb30492628689e96e98002fd0e0ab4906a7f9f4"
    )
    assert with_lora.fingerprint() == "b75143478495a16498f9cb3f522892448d4201dd1880963146ddce976e17ddd4"
    both = [
        Concept({"auk": "<c000>"}, words, matrices, settings, {}, text, config)
        for text, config in (
            (matrices, settings),
            ({**matrices, "mid.to_q.lora_A.weight": torch.zeros(2, 4)}, settings),
            (matrices, {**settings, "r": 1}),
        )
    ]
    swapped = Concept({"auk": "<c000>"}, words, None, None, {}, matrices, settings)
    assert len({concept.fingerprint() for concept in (with_lora, swapped, *both)}) == 5


def test_folders_written_before_text_adapters_load(backbone, tmp_path):
    concept = random_concept(backbone, 1)
    concept.save(tmp_path)
    record = json.loads((tmp_path / "concept.json").read_text())
    del record["text_lora_config"]
    (tmp_path / "concept.json").write_text(json.dumps(record))
    assert Concept.load(tmp_path).fingerprint() == concept.fingerprint()


def test_damaged_folders_are_refused(backbone, tmp_path):
    with pytest.raises(GenaugError, match="no complete concept"):
        Concept.load(tmp_path / "missing")
    concept = random_concept(backbone, 1)
    concept.save(tmp_path)
    safetensors.torch.save_file(
        {"<c000>": torch.zeros(2, WIDTH)}, tmp_path / "learned_embeds" / "c000.safetensors"
    )
    with pytest.raises(GenaugError, match="not those"):
        Concept.load(tmp_path)
    (tmp_path / "learned_embeds" / "c000.safetensors").write_bytes(b"x")
    with pytest.raises(GenaugError, match="no complete concept"):
        Concept.load(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("text", [False, True])
def test_a_plain_pipeline_paints_the_same_image(backbone, tmp_path, text):
    from genaug.sampling import SamplingSettings, denoise

    concept = random_concept(
        backbone, 4, text=text
    )  # two vectors per word, alpha 5 and rank 2; alpha 2 and rank 3 in the text encoder
    concept.save(tmp_path)
    pipeline = random_pipeline()
    for file in sorted((tmp_path / "learned_embeds").iterdir()):
        pipeline.load_textual_inversion(file)
    pipeline.load_lora_weights(tmp_path)
    prompt_embeds = pipeline.encode_prompt("a photo of a <c001> bird", "cpu", 1, False)[0]
    with backbone.using(concept):
        assert torch.allclose(backbone.embed(["a photo of a <c001> bird"]), prompt_embeds, atol=1e-5)
    start = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(8))
    theirs = pipeline(
        "a photo of a <c001> bird", num_inference_steps=5, guidance_scale=3.0, latents=start, output_type="np"
    ).images[0]
    with backbone.using(concept):
        ours = backbone.decode(
            denoise(
                backbone,
                start,
                [backbone.embed(["a photo of a <c001> bird"])],
                settings=SamplingSettings(5, guidance_scale=3.0),
            )
        )
    plain = backbone.decode(
        denoise(
            backbone,
            start,
            [backbone.embed(["a photo of a bird"])],
            settings=SamplingSettings(5, guidance_scale=3.0),
        )
    )
    ours, plain = ours[0].permute(1, 2, 0).numpy(), plain[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 < 1e-2 < np.abs(plain - theirs).max()


def test_files_that_diffusers_and_peft_wrote(backbone, tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline = random_pipeline()
    with torch.random.fork_rng():
        pipeline.unet.add_adapter(
            LoraConfig(
                r=3,
                lora_alpha=3,
                target_modules=["to_k", "to_v", "proj_in"],
                rank_pattern={"to_v": 2},
                alpha_pattern={"to_v": 2},
            )
        )
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
    pipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(pipeline.unet)
    )  # no metadata: alpha = rank
    safetensors.torch.save_file({"my-bird": torch.ones(WIDTH)}, tmp_path / "bird.safetensors")
    concept = concept_from_files(backbone, {"auk": tmp_path / "bird.safetensors"}, tmp_path)
    assert concept.tokens["<c000>"].shape == (1, WIDTH)
    latents = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), backbone.using(concept):
        condition = backbone.embed(["a <c000>"])
        ours = backbone.predict_noise(latents, torch.tensor([500]), condition)
        assert torch.allclose(
            ours, pipeline.unet(latents, 500, encoder_hidden_states=condition).sample, atol=1e-5
        )
    concept.save(tmp_path / "kept")
    assert Concept.load(tmp_path / "kept").fingerprint() == concept.fingerprint()


def test_files_with_the_key_names_of_kohya_and_automatic1111(backbone, tmp_path):
    drawn = torch.Generator().manual_seed(0)
    name = next(name for name, _ in backbone.unet.named_modules() if name.endswith("attn1.to_q"))
    layer = backbone.unet.get_submodule(name)
    down, up = (
        torch.randn(4, layer.in_features, generator=drawn),
        torch.randn(layer.out_features, 4, generator=drawn),
    )
    stem = "lora_unet_" + name.replace(".", "_")
    state = {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(2.0),
    }
    safetensors.torch.save_file(state, tmp_path / "kohya.safetensors")
    matrices, config, *_ = read_adapter(backbone, tmp_path / "kohya.safetensors")
    with adapter_attached(backbone.unet, matrices, config):
        changed = backbone.unet.get_submodule(name).weight.detach().clone()
    assert torch.allclose(changed - layer.weight, up @ down * 2 / 4, atol=1e-5)

    te, layers = {}, text_layers(backbone.text_encoder)
    names = [name for name, _ in layers.named_modules() if name.endswith((*TEXT_TARGETS, "fc1", "fc2"))]
    for name in names:  # another alpha in the two layers behind the attention
        layer, stem = layers.get_submodule(name), "lora_te_text_model_" + name.replace(".", "_")
        te |= {
            f"{stem}.lora_down.weight": torch.randn(4, layer.in_features, generator=drawn),
            f"{stem}.lora_up.weight": torch.randn(layer.out_features, 4, generator=drawn),
            f"{stem}.alpha": torch.tensor(2.0 if "fc" in name else 3.0),
        }
    safetensors.torch.save_file({**state, **te}, tmp_path / "both.safetensors")
    again, _, *text = read_adapter(backbone, tmp_path / "both.safetensors")
    with adapter_attached(layers, *text):
        for name in names:
            stem, weight = (
                "lora_te_text_model_" + name.replace(".", "_"),
                layers.get_submodule(name).weight.detach().clone(),
            )
            with torch.no_grad():
                te[name] = (
                    weight,
                    te[f"{stem}.lora_up.weight"] @ te[f"{stem}.lora_down.weight"] * te[f"{stem}.alpha"] / 4,
                )
    assert all(
        torch.allclose(te[name][0] - layers.get_submodule(name).weight, te[name][1], atol=1e-5)
        for name in names
    )
    alone = read_adapter(backbone, tmp_path / "both.safetensors", unet_only=True)
    assert all(
        torch.equal(again[key], alone[0][key]) and torch.equal(again[key], matrices[key]) for key in matrices
    )
    assert again.keys() == matrices.keys() == alone[0].keys()
    assert alone[2:] == (None, None)

    torch.save(
        {"string_to_param": {"*": torch.ones(3, WIDTH)}, "name": "bird", "step": 7}, tmp_path / "old.pt"
    )
    assert read_embedding(tmp_path / "old.pt").shape == (3, WIDTH)


def test_a_file_for_the_text_encoder_alone(backbone, tmp_path):
    concept = random_concept(backbone, 5, count=1, lora=False, text=True)
    concept.save(tmp_path)
    borrowed = concept_from_files(
        backbone,
        {
            name: tmp_path / "learned_embeds" / f"c00{position}.safetensors"
            for position, name in enumerate(("auk", "dodo"))
        },
        tmp_path,
    )
    assert borrowed.lora is None
    assert all(torch.equal(borrowed.text_lora[name], matrix) for name, matrix in concept.text_lora.items())
    with backbone.using(concept):
        expected = seen(backbone)
    with backbone.using(borrowed):
        assert torch.equal(seen(backbone), expected)
    with pytest.raises(GenaugError, match="leave out unet_only"):
        read_adapter(backbone, tmp_path, unet_only=True)


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
    concept = learn_tokens(
        backbone,
        real,
        settings=TokenSettings(
            steps=3, learning_rate=0.1, weight_decay=0.1, tokens_per_class=2, initial=None
        ),
    )
    assert all((concept.tokens[token] - start[token]).abs().min() > 1e-4 for token in start)
    # the fingerprint covers all weights
    assert state_of(backbone) == before
    assert torch.equal(seen(backbone, "a photo of a bird"), plain)


def test_lora_is_the_identity_at_first_and_trains_nothing_else(backbone):
    plain, projections = (
        seen(backbone),
        sum(name.endswith(TARGETS) for name, _ in backbone.unet.named_modules()),
    )
    with trainable_adapter(backbone.unet, rank=3) as learning:
        assert torch.equal(seen(backbone), plain)
        able = {name for name, parameter in backbone.unet.named_parameters() if parameter.requires_grad}
        assert able == set(learning)
        assert len(able) == 2 * projections
        noise_prediction_loss(
            backbone, torch.ones(1, 4, 8, 8), backbone.embed([""]), torch.tensor([5]), torch.ones(1, 4, 8, 8)
        ).backward()
        assert all(
            parameter.grad is None for name, parameter in backbone.unet.named_parameters() if name not in able
        )
        assert any(parameter.grad.abs().max() > 0 for parameter in learning.values())
    for rank, alpha in ((0, None), (2, 0.0)):
        with pytest.raises(GenaugError, match="rank"), trainable_adapter(backbone.unet, rank, alpha):
            pass


def test_learned_alpha_and_rank_survive_the_file(backbone, real, tmp_path):
    concept = learn_category_concept(
        backbone, real, settings=CategorySettings(steps=4, learning_rate=1e-2, rank=2, alpha=7.0)
    )
    assert (concept.rank, concept.alpha) == (2, 7.0)
    assert any(matrix.abs().max() > 0 for name, matrix in concept.lora.items() if "lora_B" in name)
    concept.save(tmp_path)
    again = Concept.load(tmp_path)
    assert again.alpha == 7.0
    assert json.loads(json.dumps(again.settings)) == again.settings
    assert again.settings["learned_from"] == real.fingerprint()
    assert again.settings["backbone"] == backbone.fingerprint()


def test_resumed_learning_equals_uninterrupted_learning(backbone, real, tmp_path, monkeypatch):
    import genaug.concepts.category as category

    settings = CategorySettings(
        steps=7, learning_rate=1e-2, rank=2, tokens_per_class=2, balanced=True, checkpoint_every=2
    )
    whole = learn_category_concept(backbone, real, settings=settings)
    plain_loss, calls = category.concept_loss, []

    def dying_loss(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain_loss(*arguments)

    monkeypatch.setattr(category, "concept_loss", dying_loss)
    before = state_of(backbone)
    with pytest.raises(KeyboardInterrupt):
        learn_category_concept(backbone, real, settings=settings, checkpoint=tmp_path)
    assert state_of(backbone) == before
    resumed = learn_category_concept(backbone, real, settings=settings, checkpoint=tmp_path)
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    assert resumed.fingerprint() == whole.fingerprint()
    other = learn_category_concept(
        backbone, real[:3], settings=settings, checkpoint=tmp_path
    )  # other photographs never resume this run
    assert calls[9:] == list(range(7))
    assert other.fingerprint() != whole.fingerprint()


def test_seed_decides(backbone, real):
    prints = [
        learn_lora(
            backbone, real, settings=AdapterSettings(steps=2, learning_rate=1e-2, rank=2, seed=seed)
        ).fingerprint()
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_only_training_ids_enter(backbone, real):
    for learn in (learn_tokens, learn_lora, learn_category_concept):
        with pytest.raises(GenaugError, match="5.png"):
            learn(backbone, real, allowed=real.ids[:5])
    with pytest.raises(GenaugError, match="no photograph"):
        learning_set(backbone, real[:0], ClassPrompt())


def test_learning_set_views_prompts_and_weights(backbone, real):
    prepared = learning_set(
        backbone,
        real,
        ClassPrompt(metaclass="bird"),
        placeholder_names(real.class_names),
        flip=True,
        balanced=True,
    )
    assert prepared.prompts == (
        "a photo of a <c000> bird",
        "a photo of a <c001> bird",
        "a photo of a <c002> bird",
    )
    mirrored = backbone.encode(real.batch([4]).flip(-1))
    assert torch.allclose(prepared.latents[1, 4], mirrored[0], atol=1e-5)
    assert prepared.latents.shape[:2] == (
        2,
        6,
    )
    assert torch.allclose(
        prepared.weights, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1], dtype=torch.float64)
    )
    multi = LabeledImages(
        real.pixels,
        np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2]] + np.eye(3, dtype=np.float32)[[1, 1, 2, 2, 0, 0]],
        real.class_names,
        real.ids,
        task="multi",
    )
    assert (
        learning_set(backbone, multi, ClassPrompt(), placeholder_names(real.class_names)).prompts[0]
        == "a photo of a <c000> and a <c001>"
    )


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
    assert torch.allclose(named["<c000>"][0], table[pieces].mean(0))
    assert torch.equal(
        named["<c001>"][0], table[backbone.tokenizer("d", add_special_tokens=False).input_ids[0]]
    )
    assert torch.equal(initial_rows(backbone, ["auk"], 7, 3, ClassPrompt())["<c000>"], table[7].repeat(3, 1))
    for initial, count in ((514, 1), (-1, 1), ("", 1), ("bird", 0)):
        with pytest.raises(GenaugError):
            initial_rows(backbone, ["auk"], initial, count, ClassPrompt())


def test_learning_lowers_the_loss_for_its_own_photographs(backbone, real):
    prompt, words = ClassPrompt(), placeholder_names(real.class_names)
    prepared = learning_set(backbone, real, prompt, words)
    concept = learn_category_concept(
        backbone,
        real,
        prompt,
        CategorySettings(steps=60, learning_rate=1e-2, rank=4, batch_size=6, flip=False),
    )
    untaught = Concept(words, initial_rows(backbone, real.class_names, "ktn", 1, prompt))
    losses = []
    for choice in (untaught, concept):
        with torch.no_grad(), choice.attached(backbone):
            losses.append(
                np.mean([float(concept_loss(backbone, prepared, 6, 99, step)) for step in range(20)])
            )
    assert losses[1] < 0.95 * losses[0]


def test_text_encoder_learning_moves_it_and_old_records_stay(backbone, real):
    before = state_of(backbone)
    plain = learn_lora(backbone, real, settings=AdapterSettings(steps=3, learning_rate=1e-2, rank=2))
    both = learn_lora(
        backbone, real, settings=AdapterSettings(steps=3, learning_rate=1e-2, rank=2, text_encoder=True)
    )
    assert state_of(backbone) == before
    assert plain.text_lora is None
    assert not {"text_encoder", "warmup"} & set(plain.settings)
    assert both.settings["text_encoder"]
    assert set(both.text_lora) == {
        f"encoder.layers.0.self_attn.{layer}.lora_{side}.weight" for layer in TEXT_TARGETS for side in "AB"
    }
    assert all(matrix.abs().max() > 0 for matrix in both.text_lora.values())
    assert both.text_lora_config["r"] == 2


def test_warm_up_and_schedule_reach_the_optimiser(backbone, real):
    for learn, kind in ((learn_tokens, TokenSettings), (learn_lora, AdapterSettings)):
        heard = [
            kind(steps=3, learning_rate=1e-2, **options)
            for options in ({}, {"warmup": 2}, {"schedule": "cosine"})
        ]
        prints = [learn(backbone, real, settings=settings).fingerprint() for settings in heard]
        assert len(set(prints)) == 3


# fusing


def weights_of(backbone, concept):
    with backbone.using(concept):
        return {
            name: layer.weight.detach().clone()
            for part in (backbone.unet, backbone.text_encoder)
            for name, layer in part.named_modules()
            if name.endswith((*TARGETS, "q_proj", "k_proj", "v_proj", "out_proj", "proj_in"))
        }


def test_fused_change_is_the_weighted_sum(backbone):
    drawn = torch.Generator().manual_seed(9)
    rooted = Concept(
        {},
        {},
        random_matrices(
            backbone.unet, ("to_k", "proj_in"), 4, drawn
        ),  # other layers, other scaling, another alpha in some
        {
            "r": 4,
            "lora_alpha": 3,
            "use_rslora": True,
            "alpha_pattern": {"attn1.to_k": 1.5},
            "target_modules": ["to_k", "proj_in"],
        },
    )
    parts = [
        random_concept(backbone, 1),
        Concept(
            {},
            {},
            *[getattr(random_concept(backbone, 2, text=True), name) for name in ("lora", "lora_config")],
        ),
        rooted,
        Concept({}, {}, None, None, {}, random_concept(backbone, 3, text=True).text_lora, TEXT_CONFIG),
        Concept({}),
    ]
    shares = [0.5, -0.25, 0.7, 1.5, 1.0]
    base, *alone = [weights_of(backbone, concept) for concept in (None, *parts)]
    fused = fuse_concepts(parts, shares)
    together = weights_of(backbone, fused)
    for name, weight in base.items():
        assert (
            together[name]
            - weight
            - sum(share * (single[name] - weight) for share, single in zip(shares, alone))
        ).abs().max() < 1e-6
    assert sum(not torch.equal(together[name], base[name]) for name in base) == len(base)
    assert fused.placeholder == parts[0].placeholder
    assert all(torch.equal(fused.tokens[token], parts[0].tokens[token]) for token in parts[0].tokens)


def test_fusing_one_or_none(backbone, tmp_path):
    concept = random_concept(backbone, 1, text=True)
    assert fuse_concepts([concept], [1.0]) is concept
    half = fuse_concepts([concept, concept], [0.5, 0.5])
    with backbone.using(concept):
        expected = seen(backbone)
    with backbone.using(half):
        assert torch.allclose(seen(backbone), expected, atol=1e-4)
    half.save(tmp_path)
    assert Concept.load(tmp_path).fingerprint() == half.fingerprint()
    for concepts, weights in (([], []), ([concept], [0.5, 0.5]), ([concept], [float("nan")])):
        with pytest.raises(GenaugError, match="one finite weight"):
            fuse_concepts(concepts, weights)
    with pytest.raises(GenaugError, match="different vectors"):
        fuse_concepts([concept, random_concept(backbone, 2)], [0.5, 0.5])
    with pytest.raises(GenaugError, match="class 'auk'"):
        fuse_concepts([concept, Concept({"auk": "<c007>"})], [0.5, 0.5])
    with pytest.raises(GenaugError, match="DoRA"):
        fuse_concepts([Concept({}, {}, concept.lora, {**CONFIG, "use_dora": True})], [0.5])


def test_scale_is_that_of_peft():
    from peft import LoraConfig, inject_adapter_in_model

    for config in (
        {"r": 3, "lora_alpha": 6},
        {"r": 3, "lora_alpha": 6, "use_rslora": True},
        {"r": 3, "lora_alpha": 6, "alpha_pattern": {"a.q": 5}, "rank_pattern": {"b.q": 2}},
    ):
        module = torch.nn.ModuleDict(
            {name: torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)}) for name in ("a", "aa", "b")}
        )
        inject_adapter_in_model(LoraConfig(target_modules=["q"], **config), module)
        for name in ("a.q", "aa.q", "b.q"):
            layer = module.get_submodule(name)
            assert abs(layer.scaling["default"] - layer_scale(name, layer.r["default"], config)) < 1e-9


# adapter sets

SHORT = AdapterSettings(steps=4, learning_rate=1e-2, rank=2, text_encoder=True, checkpoint_every=2)


def test_an_adapter_set_survives_being_killed(backbone, real, tmp_path, monkeypatch):
    import genaug.concepts.lora as lora

    whole = learn_adapter_set(backbone, real, settings=SHORT, scope="class")
    assert list(whole.concepts) == ["auk", "dodo", "moa"]
    assert len({concept.fingerprint() for concept in whole.concepts.values()}) == 3
    assert [len(concept.settings["ids"]) for concept in whole.concepts.values()] == [3, 2, 1]
    plain_loss, calls, before = lora.concept_loss, [], state_of(backbone)

    def dying_loss(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 8:  # in the last step of the second concept
            raise KeyboardInterrupt
        return plain_loss(*arguments)

    monkeypatch.setattr(lora, "concept_loss", dying_loss)
    with pytest.raises(KeyboardInterrupt):
        learn_adapter_set(backbone, real, settings=SHORT, scope="class", checkpoint=tmp_path)
    assert state_of(backbone) == before
    resumed = learn_adapter_set(backbone, real, settings=SHORT, scope="class", checkpoint=tmp_path)
    assert calls[8:] == [2, 3, 0, 1, 2, 3]
    assert resumed.fingerprint() == whole.fingerprint()
    assert (
        learn_adapter_set(
            backbone,
            real,
            settings=dataclasses.replace(SHORT, checkpoint_every=500),
            scope="class",
            checkpoint=tmp_path,
        ).fingerprint()
        == whole.fingerprint()
    )
    assert len(calls) == 14
    assert not list(tmp_path.rglob("steps"))
    learn_adapter_set(
        backbone, real, settings=dataclasses.replace(SHORT, steps=1), scope="class", checkpoint=tmp_path
    )  # other settings never take these
    assert calls[14:] == [0, 0, 0]


def test_an_adapter_of_a_set_does_not_depend_on_the_others(backbone, real):
    settings = dataclasses.replace(SHORT, steps=2)
    adapter_set = learn_adapter_set(backbone, real[2:5], settings=settings, scope="image")
    part = learn_adapter_set(backbone, real[[4, 2]], settings=settings, scope="image")
    assert list(part.concepts) == ["4.png", "2.png"]
    assert all(
        part.concepts[key].fingerprint() == adapter_set.concepts[key].fingerprint() for key in part.concepts
    )
    assert (
        adapter_set.concepts["2.png"].fingerprint()
        != learn_adapter_set(
            backbone, real[[2]], settings=dataclasses.replace(settings, seed=1), scope="image"
        )
        .concepts["2.png"]
        .fingerprint()
    )


def test_what_an_adapter_set_hands_out_and_keeps(backbone, tmp_path):
    concepts = {f"{seed}": random_concept(backbone, seed, text=True) for seed in range(3)}
    concepts = {
        key: Concept({}, {}, concept.lora, CONFIG, {}, concept.text_lora, TEXT_CONFIG)
        for key, concept in concepts.items()
    }
    adapter_set = AdapterSet(concepts, "image")
    assert adapter_set.placeholder == {}
    assert adapter_set.get([["1", 1]]) is concepts["1"]
    pair = adapter_set.get([("0", 0.5), ("2", 0.5)])
    assert pair is adapter_set.get([["0", 0.5], ["2", 0.5]])
    assert pair.rank == 4
    for share in range(20):
        adapter_set.get([("0", share / 20)])
    assert len(adapter_set._recent) <= 8
    assert adapter_set.get([("0", 0.5), ("2", 0.5)]).fingerprint() == pair.fingerprint()
    for wanted, message in (([("7", 1.0)], "no adapter for '7'"), ([], "at least one concept")):
        with pytest.raises(GenaugError, match=message):
            adapter_set.get(wanted)
    adapter_set.save(tmp_path)
    assert AdapterSet.load(tmp_path).fingerprint() == adapter_set.fingerprint()
    assert (
        len(
            {
                adapter_set.fingerprint(),
                AdapterSet(concepts, "class").fingerprint(),
                AdapterSet({**concepts, "0": concepts["1"]}, "image").fingerprint(),
            }
        )
        == 3
    )
    concepts["2"].save(tmp_path / "concept-000")
    with pytest.raises(GenaugError, match="not those"):
        AdapterSet.load(tmp_path)
    (tmp_path / "shelf.json").unlink()
    with pytest.raises(GenaugError, match="no complete adapter set"):
        AdapterSet.load(tmp_path)


def test_wrong_settings_of_an_adapter_set(backbone, real):
    with pytest.raises(GenaugError, match="per 'set'"):
        learn_adapter_set(backbone, real, scope="set")
    with pytest.raises(GenaugError, match="5.png"):
        learn_adapter_set(backbone, real, settings=SHORT, scope="image", allowed=real.ids[:5])
    assert list(
        learn_adapter_set(
            backbone, real[:5], settings=dataclasses.replace(SHORT, steps=1), scope="class"
        ).concepts
    ) == ["auk", "dodo"]  # no photograph of the third
