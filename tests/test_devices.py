"""Everything of a method computes on the device of the run; the precision of the backbone; what the statement
of costs computes."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from random_pipeline import random_pipeline
from second_device import ELSEWHERE, Elsewhere, second_device
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import _disable_current_modes
from toy_sets import noise_set

from genaug import cost, stable_diffusion
from genaug.arms import make_arm
from genaug.choices import ClassName
from genaug.cost import (
    codec_evaluations,
    denoiser_seconds,
    loading_sentence,
    measuring_sentence,
    set_cost,
    work_of,
)
from genaug.diffusion import ToyBackbone
from genaug.generators.common import GeneratorAugmenter
from genaug.loading import DTYPES, dtype_for
from genaug.messages import GenaugError
from genaug.methods import real_filter
from genaug.methods.feature_aligned import AlignedWeights, Chosen
from genaug.plans import Budget
from genaug.registry import find_method, method_names
from genaug.roles import kind_of_data
from genaug.stable_diffusion import StableDiffusionBackbone, load_backbone

AUGMENTERS = [name for name in method_names() if find_method(name).kind == "augmenter"]
PLACED = [name for name in AUGMENTERS if "device" in make_arm(name).augmenter.surroundings]
QUICK = {
    "steps": 2,
    "rank": 2,
    "initial": None,
    "batch_size": 2,
    "warmup": 0,
    "expert_network": "letters",
    "expert_weights": "embedded",
    "expert_size": 32,
    "expert_updates": 2,
}
CHEAP = {
    "num_inference_steps": 3,
    "rounds": 2,
    "generations": 2,
    "interaction_updates": 2,
    "imitation_updates": 2,
    "width": 8,
    "denoising_steps": 2,
}
SMALL = {
    "size": 32,
    "steps": 2,
    "batch_size": 2,
    "width": 8,
    "latent_dim": 8,
    "widths": (8, 8),
    "pretraining_steps": 2,
    "pretraining_batch": 2,
    "corpus": 8,
}


def photographs(size=16, count=7):
    labels = np.arange(count) * 3 // count
    return noise_set(labels, ("wren", "great tit", "owl"), size=size, low=60, high=200)


def quick_method(name, backbone, device):
    "A method of the registry that costs little; what computes in it computes."
    augmenter = make_arm(name, backbone, suffixes=("on grass",), device=device).augmenter
    fields = {field.name for field in dataclasses.fields(augmenter)}
    changes = CHEAP | (SMALL if isinstance(augmenter, GeneratorAugmenter) else {})
    if "naming" in fields and not isinstance(augmenter.naming, ClassName):
        named = {key: value for key, value in QUICK.items() if hasattr(augmenter.naming, key)}
        changes["naming"] = dataclasses.replace(augmenter.naming, **named)
    if name == "smote":
        changes["space"] = "latents"
    if name == "diagen":
        changes["filter"] = dataclasses.replace(augmenter.filter, views=1)
    return dataclasses.replace(augmenter, **{key: value for key, value in changes.items() if key in fields})


def small_backbone(name, device):
    "A pipeline with few and random weights, for the methods that paint with one."
    if issubclass(type(make_arm(name).augmenter), GeneratorAugmenter):
        return None
    with _disable_current_modes():
        pipe = random_pipeline()
    return StableDiffusionBackbone(
        pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler, device=device
    )


def painted(name, device, folder, backbone=None):
    "What a method paints of the photographs, with the decisions of its filter."
    real = photographs()
    method = quick_method(name, backbone, device).fit(real, folder)
    rows = [row for row in method.plan(real, Budget(copies=1), 0) if row.round == 0][:6]
    images = method.paint(rows, real)
    return images, method.select(rows, images, real), method


@pytest.fixture(autouse=True)
def loaded_on_the_cpu(monkeypatch):
    """The loaders of other libraries begin with tensors without values, on the device that is the second one
    here."""
    for module, name in ((stable_diffusion, "load_parts"), (real_filter, "load_clip")):
        monkeypatch.setattr(module, name, plainly(getattr(module, name)))


def plainly(load):
    def loaded(*args, **kwargs):
        with _disable_current_modes():
            return load(*args, **kwargs)

    return loaded


@pytest.fixture
def computed_at():
    """Types of devices of the parameters of every network that is asked while the test runs, with the
    network's class."""
    seen = set()

    def asked(module, inputs):
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        seen.update((type(module).__name__, tensor.device.type) for tensor in own)
        seen.update(
            (type(module).__name__, value.device.type) for value in inputs if isinstance(value, torch.Tensor)
        )

    hook = register_module_forward_pre_hook(asked)
    yield seen
    hook.remove()


def test_the_second_device_is_strict():
    with second_device():
        there = torch.zeros(2, 3, device=ELSEWHERE)
        assert isinstance(there, Elsewhere)
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(2, device=ELSEWHERE, generator=torch.Generator())
        with pytest.raises(TypeError):
            there.numpy()
        assert torch.equal((there + 1).cpu(), torch.ones(2, 3))


def test_every_method_that_computes_takes_the_device():
    assert set(PLACED) == set(AUGMENTERS)


@pytest.mark.parametrize("name", PLACED)
def test_every_network_computes_on_the_told_device(name, tmp_path, computed_at):
    "Filters, experts and doubters too; the arithmetic is that of the CPU, so the images are the same."
    with second_device():
        images, decisions, _ = painted(
            name, str(ELSEWHERE), tmp_path / "there", small_backbone(name, ELSEWHERE)
        )
    networks = {kind for kind, _ in computed_at}
    here = {kind for kind, device in computed_at if device == "cpu"}
    assert networks, "the method computed with no network at all"
    assert not here, f"these computed on the CPU: {sorted(here)}"
    usual, chosen, _ = painted(name, "cpu", tmp_path / "here", small_backbone(name, "cpu"))
    assert max(np.abs(left.astype(int) - right).max() for left, right in zip(images, usual)) <= 2
    assert [decision.keep for decision in decisions] == [decision.keep for decision in chosen]


@pytest.mark.parametrize("name", ["round-trip", "smote"])
def test_the_embedded_backbone_is_loaded_on_the_told_device(name, tmp_path):
    with second_device():
        method = quick_method(name, None, str(ELSEWHERE)).fit(photographs(), tmp_path)
        assert method.backbone.device == ELSEWHERE


@pytest.mark.parametrize("name", PLACED)
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(name, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(GenaugError, match="no GPU"):
        quick_method(name, None, "cuda").fit(photographs(), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


# ---- the statement of costs


class Slow(ToyBackbone):
    "A denoiser that is slow by construction, and counts what it is asked."

    seconds = 0.3

    def predict_noise(self, latents, timesteps, condition):
        self.asked.append(len(latents))
        time.sleep(self.seconds)
        return super().predict_noise(latents, timesteps, condition)


def slow_backbone():
    real = photographs()
    slow = Slow.from_images(real.batch(), real.targets, real.class_names)
    slow.asked = []
    return slow


@pytest.mark.parametrize("name", [name for name in AUGMENTERS if make_arm(name).augmenter.needs_backbone])
def test_a_statement_asks_a_slow_denoiser_once_for_one_image(name):
    slow = slow_backbone()
    method = make_arm(name, slow, suffixes=("on grass",)).augmenter
    stated = set_cost(method, photographs(), Budget(copies=1))
    assert slow.asked in ([], [1])
    steps, batch = method.effort(photographs())
    assert stated.steps == steps or name == "feature-space", (
        "its codes are small networks, which no denoiser's evaluations measure"
    )
    work = stated.evaluations + cost.LEARNING_FACTOR * stated.steps * batch
    assert stated.minutes * 60 == pytest.approx(work * slow.seconds, rel=0.1)


def test_a_denoiser_that_answers_at_once_is_timed_warm_and_in_a_batch():
    quick = slow_backbone()
    quick.seconds = 0.0
    assert denoiser_seconds(quick, rows=4) < 0.25
    assert quick.asked == [1, 1, 4]


def test_an_evaluation_beyond_the_limit_is_stopped_and_its_rest_inferred(monkeypatch):
    "Every layer of this denoiser takes as long as it has work, by the clock that the guard reads."
    pipe, clock = random_pipeline(), [0.0]
    backbone = StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)
    condition = backbone.embed(["a"])
    done = work_of(
        backbone.unet,
        (torch.zeros(1, *backbone.latent_shape), torch.tensor([500])),
        {"encoder_hidden_states": condition},
    )
    calls = []

    def worked(layer, inputs, output):
        calls.append(layer)
        clock[0] = 100 * done[len(calls) - 1] / done[-1]  # 100 seconds for the whole

    hooks = [layer.register_forward_hook(worked) for layer in cost.layers_of(backbone.unet)]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    assert denoiser_seconds(backbone, limit=20.0) == pytest.approx(100, rel=1e-6)
    assert len(calls) < len(done) - 1, "the evaluation was not stopped"
    assert clock[0] < 60
    for hook in hooks:
        hook.remove()
    assert not any(layer._forward_hooks for layer in cost.layers_of(backbone.unet)), (
        "the guard leaves nothing behind"
    )


def test_operations_are_those_of_the_network_and_grow_with_the_batch():
    "One linear map and one convolution can be counted by hand."
    pipe = random_pipeline()
    side = pipe.unet.config.sample_size
    latents, words = torch.zeros(1, 4, side, side), torch.zeros(1, 24, 32)
    done = work_of(pipe.unet, (latents, torch.tensor([1])), {"encoder_hidden_states": words})
    twice = work_of(
        pipe.unet,
        (latents.repeat(2, 1, 1, 1), torch.tensor([1, 1])),
        {"encoder_hidden_states": words.repeat(2, 1, 1)},
    )
    assert twice[-1] == 2 * done[-1]
    assert done == sorted(done)
    vae = work_of(pipe.vae, (torch.zeros(1, 3, 16, 16),), method="encode")
    first = 2 * 16 * 16 * 3 * 16 * 9  # multiplications and additions of conv_in
    assert vae[0] == first


def test_the_codec_counts_and_round_trip_is_not_free():
    pipe = random_pipeline()
    backbone = StableDiffusionBackbone(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)
    encode, decode = codec_evaluations(backbone)
    assert 0 < encode < decode
    assert codec_evaluations(slow_backbone()) == (0.0, 0.0)
    assert set_cost(make_arm("round-trip", backbone).augmenter, photographs(), Budget(copies=2)).minutes > 0
    assert (
        set_cost(make_arm("round-trip", backbone).augmenter, photographs(), Budget(copies=2)).evaluations == 0
    )


def test_a_large_model_is_announced_with_its_size_before_it_is_loaded(tmp_path):
    for part, size in (("unet", 3_000_000_000), ("vae", 300_000_000), ("text_encoder", 100_000_000)):
        (tmp_path / part).mkdir()
        with open(
            tmp_path
            / part
            / ("model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"),
            "wb",
        ) as file:
            file.truncate(size)  # a file with a hole: nothing is written
        with open(tmp_path / part / "diffusion_pytorch_model.fp16.safetensors", "wb") as file:
            file.truncate(size // 2)
    assert "(3.4 GB); about 34 seconds, more on a busy machine" in loading_sentence(str(tmp_path))
    assert loading_sentence("tiny") == measuring_sentence(load_backbone("tiny")) == ""


def test_augment_says_what_it_does_before_it_computes(tmp_path, monkeypatch, capsys):
    "Nothing is evaluated before the first sentence, and one evaluation before the statement."
    from genaug import cli
    from genaug.commands.terminal import Terminal

    said, home = [], tmp_path / "model"
    random_pipeline().save_pretrained(home)
    predict = StableDiffusionBackbone.predict_noise

    def counted(self, latents, *rest):
        said.append(("asked", len(latents)))
        return predict(self, latents, *rest)

    monkeypatch.setattr(StableDiffusionBackbone, "predict_noise", counted)
    monkeypatch.setattr(cost, "LARGE", 1000)
    monkeypatch.setattr(Terminal, "say", lambda self, *lines: said.extend(("said", line) for line in lines))
    load = stable_diffusion.load_parts
    monkeypatch.setattr(
        stable_diffusion, "load_parts", lambda *args: said.append(("loaded", "")) or load(*args)
    )
    clock = iter(range(10_000))
    # no denoiser is quick by this clock
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock) * 0.01)
    assert (
        cli.run(
            [
                "augment",
                "digits",
                str(tmp_path / "out"),
                "--method",
                "real-guidance",
                "--copies",
                "1",
                "--shots",
                "1",
                "--backbone",
                str(home),
                "--quiet",
            ]
        )
        == 0
    )
    kinds = [kind for kind, _ in said]
    loading, measuring, stated = (
        next(index for index, (kind, text) in enumerate(said) if kind == "said" and word in text)
        for word in ("Loading the diffusion model", "Measuring the speed", "Estimated cost")
    )
    assert loading < kinds.index("loaded") < measuring < kinds.index("asked") < stated
    assert [text for kind, text in said[:stated] if kind == "asked"] == [1]


# ---- the precision


def test_a_precision_is_refused_where_it_cannot_be():
    with pytest.raises(GenaugError, match="16 times slower"):
        dtype_for("float16", "cpu")
    with pytest.raises(GenaugError, match="no precision 'half'"):
        dtype_for("half")
    assert dtype_for("auto") == DTYPES["float32"] == torch.float32


def run_command(*words):
    from genaug import cli

    return cli.run([*words, "--quiet"])


def test_the_precision_reaches_the_backbone_and_is_recorded_where_it_is_not_the_usual_one(
    tmp_path, monkeypatch
):
    home, seen = tmp_path / "model", []
    random_pipeline().save_pretrained(home)
    load = stable_diffusion.load_parts
    monkeypatch.setattr(
        stable_diffusion,
        "load_parts",
        lambda path, dtype, variant: seen.append(dtype) or load(path, dtype, variant),
    )
    for word in ("auto", "bfloat16"):
        code = run_command(
            "augment",
            "digits",
            str(tmp_path / word),
            "--method",
            "real-guidance",
            "--copies",
            "1",
            "--shots",
            "1",
            "--backbone",
            str(home),
            "--dtype",
            word,
        )
        assert not code
    assert seen == [torch.float32, torch.bfloat16]
    auto, half = (
        json.loads((tmp_path / word / ".genaug" / "run.json").read_text()) for word in ("auto", "bfloat16")
    )
    assert "dtype" not in auto
    assert half["dtype"] == "bfloat16"


def test_float16_on_a_cpu_ends_the_command_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stable_diffusion, "load_parts", None)
    assert run_command("augment", "digits", str(tmp_path / "out"), "--dtype", "float16") == 2
    assert "16 times slower" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, dtype",
    [("fine-tuned", torch.bfloat16), ("feature-aligned", torch.bfloat16), ("da-fusion", torch.float16)],
)
def test_what_learns_in_too_low_a_precision_is_refused(name, dtype):
    backbone = slow_backbone()
    backbone.dtype = dtype
    with pytest.raises(GenaugError, match="--dtype"):
        make_arm(name, backbone).augmenter.check()
    make_arm("real-guidance", backbone).augmenter.check()


# ---- the expert


def real_photographs():
    "Pictures that no program drew small: 40 pixels, in colour."
    return photographs(size=40)


def test_the_expert_of_an_embedded_set_is_todays():
    real = photographs()
    assert kind_of_data(real) == "embedded"
    for naming in (AlignedWeights(), AlignedWeights.for_embedded()):
        assert naming.suited(real) is naming
    assert AlignedWeights.for_embedded().expert_network == "letters"


def test_photographs_have_an_expert_of_imagenet():
    real = real_photographs()
    assert kind_of_data(real) == "photographs"
    chosen = AlignedWeights.for_embedded().suited(real)
    assert (chosen.expert_network, chosen.expert_weights, chosen.expert_size) == (
        "tf_efficientnet_lite0",
        "embedded",
        224,
    )
    assert AlignedWeights().suited(real).expert_network == "resnet50"
    assert AlignedWeights.for_embedded().examiners(real) == ("tf_efficientnet_lite0",)
    assert dataclasses.replace(AlignedWeights(), alignment_weight=0.0).examiners(real) == ()


@pytest.mark.parametrize(
    "settings, words",
    [
        ("naming.expert_network=letters", "toy"),
        ("naming.expert_network=wide", "toy"),
        ("naming.expert_network=resnet18;naming.expert_weights=none", "no weights"),
        ("naming.expert_network=tf_efficientnet_lite1;naming.expert_weights=embedded", "judge"),
    ],
)
def test_an_expert_that_cannot_teach_photographs_is_refused_before_any_work(settings, words, monkeypatch):
    monkeypatch.setattr("genaug.methods.feature_aligned.train_expert", None)
    method = make_arm(f"feature-aligned@{settings}").augmenter
    for refused in (method.suited, method.fit):
        with pytest.raises(GenaugError, match=words):
            refused(real_photographs())


def test_random_weights_are_an_expert_only_by_that_word():
    naming = make_arm(
        "feature-aligned@naming.expert_network=resnet18;naming.expert_weights=random"
    ).augmenter.naming
    assert naming.suited(real_photographs()) is naming
    assert type(naming.expert_network) is str
    assert isinstance(AlignedWeights().expert_network, Chosen)


def test_a_chosen_name_has_the_hash_of_the_same_name_typed():
    typed = make_arm("feature-aligned@naming.expert_network=letters").augmenter
    assert typed.fingerprint() == make_arm("feature-aligned").augmenter.fingerprint()
