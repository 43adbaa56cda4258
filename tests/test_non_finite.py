"""Values that are no numbers never become pictures: the row stops with its name, the rest goes on, and the
set is not called complete."""

import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch
from test_damaged_files import tiny_copy
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName
from genaug.core import LabeledImages
from genaug.inversion import InversionPool, InversionSettings
from genaug.messages import GenaugError
from genaug.methods.diff_ii import diff_ii
from genaug.painting import failures
from genaug.pictures import encode_png
from genaug.plan_file import make_plan, read_plan
from genaug.plans import Budget
from genaug.recipe import Recipe
from genaug.result_folder import Canvas
from genaug.stable_diffusion import load_backbone
from genaug.synthesis import synthesize
from genaug.synthetic_set import changed_images, open_synthetic, painted_findings
from genaug.training import LoopSettings, train_loop


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Faulty(Recipe):
    "Diff-II whose rows of `broken` come out as no numbers, as `to_uint8` of the core refuses them."

    broken, painted = (), ()

    def paint(self, rows, real):
        if set(self.broken) & {row.id for row in rows}:
            raise GenaugError("A picture holds values that are not finite.")
        self.painted = (*self.painted, *(row.id for row in rows))
        return super().paint(rows, real)


def method(broken=()):
    sound = diff_ii(naming=ClassName(), backbone=toy_backbone(), num_inference_steps=4)
    made = Faulty(**{item.name: getattr(sound, item.name) for item in dataclasses.fields(sound)})
    made.broken = broken
    return made


@pytest.fixture
def real():
    return toy_photographs()


def ids(real, folder):
    return [row.id for row in make_plan(method().fit(real), real, Budget(copies=2), 0).rows]


def run(real, folder, broken=(), **options):
    return synthesize(method(broken).fit(real), real, folder, Budget(copies=2), 0, progress=False, **options)


@pytest.mark.parametrize("batch_size", [1, 5, 32])
@pytest.mark.parametrize("which", [[0], [11], [3, 4], [0, 5, 11]])
def test_the_row_is_named_and_the_others_are_kept(real, tmp_path, which, batch_size):
    names = ids(real, tmp_path)
    broken = [names[index] for index in which]
    message = refusal(run, real, tmp_path / "out", broken, batch_size=batch_size)
    assert (
        f"{len(which)} of 12 images could not be painted, the first is '{broken[0]}': A picture holds"
        in message
    )
    assert len(list((tmp_path / "out").rglob("*.png"))) == 12 - len(which)


def test_the_set_is_not_called_complete(real, tmp_path):
    refusal(run, real, tmp_path / "out", ids(real, tmp_path)[:1])
    assert not (tmp_path / "out" / "train" / "metadata.jsonl").exists()
    assert "is not finished" in refusal(open_synthetic, tmp_path / "out")


def test_every_failure_is_noted_with_its_reason(real, tmp_path):
    broken = ids(real, tmp_path)[2:5]
    refusal(run, real, tmp_path / "out", broken)
    canvas = Canvas(tmp_path / "out", read_plan(tmp_path / "out"))
    assert failures(canvas) == dict.fromkeys(broken, "A picture holds values that are not finite.")


def test_the_next_run_tries_the_missing_rows_only_and_ends_with_the_uninterrupted_set(real, tmp_path):
    broken = ids(real, tmp_path)[2:5]
    refusal(run, real, tmp_path / "out", broken)
    mended = method()
    made = synthesize(mended.fit(real), real, tmp_path / "out", Budget(copies=2), 0, progress=False)
    whole = run(real, tmp_path / "whole")
    assert sorted(mended.painted) == sorted(broken)
    assert made.ids == whole.ids
    assert max(np.abs(made.image(name).astype(int) - whole.image(name)).max() for name in whole.ids) <= 2
    assert not (tmp_path / "out" / ".genaug" / "failed.jsonl").exists()


def test_when_all_rows_fail_one_sentence_says_so(real, tmp_path):
    assert "12 of 12 images" in refusal(run, real, tmp_path / "out", ids(real, tmp_path))


def test_a_shard_says_it_of_its_own_rows(real, tmp_path):
    broken = ids(real, tmp_path)[:1]
    assert f"the first is '{broken[0]}'" in refusal(run, real, tmp_path / "out", broken, shard=(0, 2))
    assert run(real, tmp_path / "out", broken, shard=(1, 2)) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]\n", '{"id": 3}\n', '{"id": "x", "reason": null}\n', "\x00\xff"]
)
def test_a_damaged_list_of_failures_is_not_in_the_way(real, tmp_path, text):
    refusal(run, real, tmp_path / "out", ids(real, tmp_path)[:1])
    (tmp_path / "out" / ".genaug" / "failed.jsonl").write_text(text)
    assert len(run(real, tmp_path / "out")) == 12


def test_a_fault_of_the_program_is_not_taken_for_a_bad_row(real, tmp_path):
    broken = method()
    broken.paint = lambda rows, real: 1 / 0
    with pytest.raises(ZeroDivisionError):
        synthesize(broken.fit(real), real, tmp_path / "out", Budget(copies=1), 0, progress=False)


@pytest.mark.parametrize(
    "part, tensor",
    [
        ("vae", "decoder.conv_out.bias"),
        ("unet", "conv_in.weight"),
        ("text_encoder", "encoder.layers.0.layer_norm1.weight"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_with_part_and_name(tmp_path, part, tensor, value):
    folder = tiny_copy(tmp_path)
    file = next((folder / part).glob("*.safetensors"))
    weights = safetensors.torch.load_file(file)
    weights[tensor].view(-1)[0] = value
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    message = refusal(load_backbone, folder)
    assert part in message
    assert tensor in message


def test_a_last_update_that_overflows_is_not_kept(tmp_path):
    weight = torch.nn.Parameter(torch.ones(1))
    assert "'weight' holds values that are not finite" in refusal(
        train_loop,
        lambda step: (weight * 1e38).sum(),
        {"weight": weight},
        LoopSettings(1, 1e30, "sgd", grad_clip=0.0),
        tmp_path,
    )
    assert not list(tmp_path.glob("step-*"))


def test_an_inversion_that_is_no_number_is_not_kept(tmp_path):
    backbone, real = toy_backbone(), toy_photographs()
    pool, plain = InversionPool(tmp_path), backbone.predict_noise
    backbone.predict_noise = lambda latents, *rest: plain(latents, *rest) * torch.nan
    assert not torch.isfinite(pool.get(backbone, real, [0], "square", settings=InversionSettings(4))).all()
    del backbone.predict_noise
    assert torch.isfinite(
        InversionPool(tmp_path).get(backbone, real, [0], "square", settings=InversionSettings(4))
    ).all()


# ---- pictures of one colour


def exchanged(folder, picture, count=1):
    made = open_synthetic(folder)
    for path in made.pixels[:count]:
        path.write_bytes(encode_png(picture))
    return made


def test_pictures_of_one_colour_are_a_finding(real, tmp_path):
    run(real, tmp_path / "out")
    made = exchanged(tmp_path / "out", np.zeros((8, 8, 3), np.uint8), 2)
    (finding,) = painted_findings(tmp_path / "out", real)
    assert (finding.kind, finding.severity, finding.where) == ("blank-picture", "warning", made.ids[0])
    assert "2 of 12" in finding.message


def test_pictures_of_one_colour_are_none_where_photographs_are_so_too(real, tmp_path):
    run(real, tmp_path / "out")
    exchanged(tmp_path / "out", np.zeros((8, 8, 3), np.uint8))
    plain = LabeledImages(
        [np.full((8, 8, 3), index, np.uint8) for index in range(len(real))],
        real.labels,
        real.class_names,
        real.ids,
    )
    assert painted_findings(tmp_path / "out", plain) == []


def test_nothing_is_found_in_a_sound_set(real, tmp_path):
    run(real, tmp_path / "out")
    assert painted_findings(tmp_path / "out", real) == []
    assert changed_images(tmp_path / "out") == []


def test_equal_pictures_are_a_finding(real, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Faulty, "paint", lambda self, rows, real: [real.image(rows[0].inputs[0][0])] * len(rows)
    )
    run(real, tmp_path / "out")
    assert [finding.kind for finding in painted_findings(tmp_path / "out", real)] == ["equal-pictures"]


@pytest.mark.parametrize(
    "damage",
    [encode_png(np.full((8, 8, 3), 7, np.uint8)), b"no picture" + b"\x00\x00\x00\x00IEND\xaeB`\x82", b""],
)
def test_a_picture_that_was_exchanged_after_painting_is_named(real, tmp_path, damage):
    made = run(real, tmp_path / "out")
    made.pixels[4].write_bytes(damage)
    assert changed_images(tmp_path / "out") == [made.ids[4]]
