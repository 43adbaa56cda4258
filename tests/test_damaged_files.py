"""Files that are truncated, flipped by a bit, foreign or missing: one sentence, or made again; never other
pictures."""

import json
import os
import pickle
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import safetensors.torch
import torch
from toy_world import toy_backbone, toy_photographs

from genaug.choices import ClassName
from genaug.concepts.concept import Concept
from genaug.concepts.lora import AdapterSet
from genaug.generators.dcgan import DCGAN
from genaug.loading import locate_model
from genaug.messages import GenaugError
from genaug.methods.diff_ii import diff_ii
from genaug.plan_file import read_plan
from genaug.plans import Budget
from genaug.stable_diffusion import load_backbone, load_parts
from genaug.synthesis import synthesize
from genaug.synthetic_set import open_synthetic, read_decisions
from genaug.training import (
    LoopSettings,
    newest_checkpoint,
    train_loop,
)


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiny_copy(folder):
    shutil.copytree(Path(str(files("genaug"))) / "assets" / "tiny-1", folder / "model")
    return folder / "model"


def flipped(data, index=-3):
    return bytes(byte ^ (1 if index == index % len(data) else 0) for index, byte in enumerate(data))


def flip(file, index=-3):
    data = bytearray(file.read_bytes())
    data[index] ^= 1
    file.write_bytes(data)


# ---- weights


def change_tensors(file, change):
    weights = safetensors.torch.load_file(file)
    name = sorted(weights)[3]
    if change == "lacks":
        del weights[name]
    if change == "extra":
        weights["foreign.weight"] = torch.zeros(3)
    if change == "shape":
        weights[name] = torch.zeros(7)
    if change == "other network":
        weights = {"some.weight": torch.zeros(3)}
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
@pytest.mark.parametrize(
    "change", ["lacks", "extra", "shape", "other network", "truncated", "empty", "text", "gone", "header"]
)
def test_weight_files_that_are_not_those_of_the_network(tmp_path, part, change):
    model = tiny_copy(tmp_path)
    file = next((model / part).glob("*.safetensors"))
    data = file.read_bytes()
    raw = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "text": b"<html>404</html>",
        "header": data[:9] + b"\xff" + data[10:],
    }
    if change in raw:
        file.write_bytes(raw[change])
    elif change == "gone":
        file.unlink()
    else:
        change_tensors(file, change)
    assert "could not be loaded" in refusal(load_backbone, model)


CONFIGS = {
    "vae/config.json": "vae",
    "unet/config.json": "unet",
    "text_encoder/config.json": "text_encoder",
    "scheduler/scheduler_config.json": "scheduler",
    "tokenizer/tokenizer.json": "tokenizer",
}


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "{}", "gone"])
def test_configurations_that_are_damaged_or_foreign(tmp_path, file, text):
    model = tiny_copy(tmp_path)
    if text == "gone":
        (model / file).unlink()
    else:
        (model / file).write_text(text)
    assert "could not be loaded" in refusal(load_backbone, model)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_configuration_of_another_class(tmp_path, part):
    model = tiny_copy(tmp_path)
    other = {"unet": "vae", "vae": "unet", "text_encoder": "unet"}[part]
    shutil.copy(model / other / "config.json", model / part / "config.json")
    refusal(load_backbone, model)


def test_a_tokenizer_without_its_settings(tmp_path):
    model = tiny_copy(tmp_path)
    (model / "tokenizer" / "tokenizer_config.json").unlink()
    assert "tokenizer" in refusal(load_backbone, model)


@pytest.mark.parametrize(
    "change",
    [
        {"beta_start": None},
        {"beta_schedule": None},
        {"beta_end": float("nan")},
        {"beta_schedule": "foreign"},
        {"prediction_type": "foreign"},
        {"num_train_timesteps": "x"},
        {"trained_betas": ["x"]},
    ],
)
def test_a_schedule_that_names_no_noise_levels(tmp_path, change):
    model = tiny_copy(tmp_path)
    file = model / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text()) | change
    file.write_text(
        json.dumps(
            {key: value for key, value in settings.items() if key == "trained_betas" or value is not None}
        )
    )
    refusal(
        lambda: load_backbone(model).predict_noise(
            torch.zeros(1, *load_backbone(model).latent_shape),
            torch.tensor([5]),
            load_backbone(model).embed(["a"]),
        )
    )


def test_a_folder_in_the_half_precision_of_the_hub_still_opens(tmp_path):
    model = tiny_copy(tmp_path)
    for file in model.rglob("*.safetensors"):
        weights = {name: value.half() for name, value in safetensors.torch.load_file(file).items()}
        if file.parent.name == "text_encoder":
            weights["text_model.embeddings.position_ids"] = torch.arange(32)[None]
        safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    assert load_backbone(model).latent_shape == load_backbone("tiny").latent_shape


# ---- names of models


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("x.safetensors", "models/x.safetensors", "models/plain"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("name", ["x.safetensors", "models/x.safetensors", "models/plain"])
def test_a_file_is_a_file_and_not_a_hub_id(here, name):
    assert "is a file" in refusal(locate_model, name)


@pytest.mark.parametrize(
    "name",
    [
        "models/gone",
        "./x",
        "../x/y",
        "~/no-such-folder",
        "a/b/c",
        "gone/x.safetensors",
        "gone/x.ckpt",
        "/gone",
        "gone",
        "a/",
        "/",
        "a//b",
        "~nobody-has-this-name/x",
        "a\0b",
        "",
        "x" * 5000,
        "ä/ö b",
        "-a/b",
    ],
)
def test_a_path_that_leads_nowhere_never_goes_online(here, name):
    assert refusal(locate_model, name)


@pytest.mark.parametrize(
    "name", ["owner/name", "stable-diffusion-v1-5/stable-diffusion-v1-5", "CompVis/stable-diffusion-v1-4"]
)
def test_hub_ids_are_hub_ids(here, name):
    assert locate_model(name) == (name, True)


def test_a_deleted_hub_id_names_its_mirror():
    assert "'stable-diffusion-v1-5/stable-diffusion-v1-5' is its mirror" in refusal(
        load_parts, "runwayml/stable-diffusion-v1-5"
    )


def test_another_hub_id_that_is_not_there_says_where_to_look():
    assert "search the hub" in refusal(load_parts, "somebody/no-such-model")


# ---- checkpoints


def begun(folder, steps=6, until=4, schedule="constant"):
    "A run that was broken off; returns a function that continues it with fresh weights."

    def go(steps=steps, stop=None, where=folder, schedule=schedule):
        network = torch.nn.Linear(2, 2)
        with torch.no_grad():
            for value in network.parameters():
                value.fill_(0.5)

        def callback(step, loss):
            if step == stop:
                raise KeyboardInterrupt

        train_loop(
            lambda step: (network(torch.ones(1, 2)) ** 2).sum(),
            {"network": network},
            LoopSettings(steps, 1e-2, schedule=schedule, checkpoint_every=2),
            where,
            callback=callback,
        )
        return network.weight.detach().clone()

    with pytest.raises(KeyboardInterrupt):
        go(stop=until)
    return go


@pytest.mark.parametrize("file", ["state.safetensors", "optimizer.pt", "progress.json"])
@pytest.mark.parametrize(
    "damage",
    ["truncated", "empty", "gone", "text", "flipped at the end", "flipped in the middle", "a folder"],
)
def test_damaged_checkpoints_are_refused_by_name(tmp_path, file, damage):
    go = begun(tmp_path)
    path = newest_checkpoint(tmp_path) / file
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "text":
        path.write_bytes(b"<html>")
    if damage in ("gone", "a folder"):
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    if damage == "flipped at the end":
        flip(path, -3)
    if damage == "flipped in the middle":
        flip(path, len(data) // 2)
    message = refusal(go)
    assert str(newest_checkpoint(tmp_path)) in message
    assert "remove this folder" in message


@pytest.mark.parametrize(
    "change", [{"step": 2}, {"step": "4"}, {"settings": []}, {"files": {}}, {"check": "x"}, {"step": None}]
)
def test_a_progress_file_that_says_something_else(tmp_path, change):
    go = begun(tmp_path)
    path = newest_checkpoint(tmp_path) / "progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "is damaged" in refusal(go)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "{}", '{"step": 4}'])
def test_a_progress_file_of_another_shape(tmp_path, text):
    go = begun(tmp_path)
    (newest_checkpoint(tmp_path) / "progress.json").write_text(text)
    assert "is damaged" in refusal(go)


class Trap:
    def __reduce__(self):
        return (os.mkdir, (os.environ["TRAP"],))


def test_a_checkpoint_with_code_in_it_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "trapped"))
    go = begun(tmp_path / "run")
    with open(newest_checkpoint(tmp_path / "run") / "optimizer.pt", "wb") as file:
        pickle.dump(Trap(), file)
    assert "is damaged" in refusal(go)
    assert not (tmp_path / "trapped").exists()


def test_after_removing_the_damaged_checkpoint_the_result_is_the_uninterrupted_one(tmp_path):
    go = begun(tmp_path / "run")
    flip(newest_checkpoint(tmp_path / "run") / "state.safetensors")
    refusal(go)
    shutil.rmtree(newest_checkpoint(tmp_path / "run"))
    assert torch.equal(go(), go(where=tmp_path / "whole"))


def test_a_checkpoint_of_the_first_release_still_opens(tmp_path):
    go = begun(tmp_path / "run")
    path = newest_checkpoint(tmp_path / "run") / "progress.json"
    old = {
        key: value
        for key, value in json.loads(path.read_text()).items()
        if key in ("step", "settings", "ema_step")
    }
    path.write_text(json.dumps(old, sort_keys=True))
    assert torch.equal(go(), go(where=tmp_path / "whole"))


# ---- a full disk


class NoSpace(OSError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(30, "Read-only file system"),
        safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError(
            "[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed writing file "
            "data/1: file write failed"
        ),
    ],
)
@pytest.mark.parametrize("writer", ["safetensors.torch.save_file", "torch.save"])
def test_a_full_disk_while_a_checkpoint_is_saved(tmp_path, monkeypatch, error, writer):
    def full(*arguments, **options):
        raise error

    monkeypatch.setattr(writer, full)
    message = refusal(begun, tmp_path)
    assert "Cannot write into" in message
    assert newest_checkpoint(tmp_path) is None


def test_the_older_checkpoint_survives_a_full_disk(tmp_path, monkeypatch):
    go = begun(tmp_path / "run", until=3)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        assert "disk is full" in refusal(go)
    assert newest_checkpoint(tmp_path / "run").name == "step-00000002"
    assert torch.equal(go(), go(where=tmp_path / "whole"))


def test_a_full_disk_while_an_adapter_is_saved(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise safetensors.SafetensorError("No space left on device (os error 28)")

    concept = Concept(
        {},
        {},
        {
            "mid_block.attentions.0.to_q.lora_A.weight": torch.ones(1, 2),
            "mid_block.attentions.0.to_q.lora_B.weight": torch.ones(2, 1),
        },
        {"r": 1, "lora_alpha": 1.0, "target_modules": ["to_q"]},
    )
    monkeypatch.setattr("safetensors.torch.save_file", full)
    monkeypatch.setattr("diffusers.loaders.lora_base.safetensors.torch.save_file", full, raising=False)
    assert "disk is full" in refusal(concept.save, tmp_path)
    assert not (tmp_path / "concept.json").exists()


# ---- concepts and painters


def concept():
    return Concept({"cat": "<c000>"}, {"<c000>": torch.arange(4.0)[None]})


RECORDS = [
    "",
    "{",
    "[]",
    "null",
    "3",
    "{}",
    '{"embeddings": 3}',
    '{"embeddings": {"<c000>": 3}, "placeholder": {}}',
    '{"embeddings": {}, "placeholder": [], "lora_config": 3, "settings": {}, "fingerprint": ""}',
    '{"embeddings": {}, "placeholder": {}, "lora_config": null, "settings": {}}',
    "[" * 9999,
]


@pytest.mark.parametrize("text", RECORDS)
def test_a_concept_with_a_damaged_record(tmp_path, text):
    concept().save(tmp_path)
    (tmp_path / "concept.json").write_text(text)
    assert "concept" in refusal(Concept.load, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *RECORDS,
        '{"format": 1, "scope": "class", "concepts": {"cat": 3}, "fingerprint": ""}',
        '{"format": 1, "scope": 3, "concepts": {}, "fingerprint": ""}',
    ],
)
def test_an_adapter_set_with_a_damaged_record(tmp_path, text):
    AdapterSet({"cat": concept()}, "class").save(tmp_path)
    (tmp_path / "shelf.json").write_text(text)
    refusal(AdapterSet.load, tmp_path)


def small_gan():
    return DCGAN(steps=2, size=8, width=4, batch_size=2)


@pytest.fixture(scope="module")
def painters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painters")
    small_gan().fit(toy_photographs(), folder)
    return folder


@pytest.mark.parametrize(
    "file, damage",
    [
        ("painter.json", "[]"),
        ("painter.json", "{}"),
        ("painter.json", "null"),
        ("painter.json", '{"channels": "x", "classes": 0, "fingerprint": ""}'),
        ("painter.safetensors", ""),
        ("painter.safetensors", None),
    ],
)
def test_a_painter_with_damaged_files(painters, tmp_path, file, damage):
    shutil.copytree(painters, tmp_path / "work")
    path = next((tmp_path / "work").rglob(file))
    flip(path) if damage is None else path.write_text(damage)
    assert "fit again" in refusal(small_gan().fit, toy_photographs(), tmp_path / "work")


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 99])
def test_a_damaged_page_of_an_album_is_left_out(painters, tmp_path, damage):
    shutil.copytree(painters, tmp_path / "work")
    next((tmp_path / "work").rglob("album-*.safetensors")).write_bytes(damage)
    assert small_gan().fit(toy_photographs(), tmp_path / "work").painters


# ---- plans, metadata and decisions


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    real, folder = toy_photographs(), tmp_path_factory.mktemp("finished") / "out"
    synthesize(
        diff_ii(naming=ClassName(), backbone=toy_backbone(), num_inference_steps=4).fit(real),
        real,
        folder,
        Budget(copies=1),
        0,
        progress=False,
    )
    return folder


def copy_of(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "out"))


def change_plan(folder, line, **changes):
    lines = (folder / "plan.jsonl").read_text().split("\n")
    lines[line] = json.dumps(json.loads(lines[line]) | changes)
    (folder / "plan.jsonl").write_text("\n".join(lines))


PLANS = [
    (0, {"class_names": 3}),
    (0, {"class_names": ["a", "a"]}),
    (0, {"class_names": ["\ud800", "b"]}),
    (0, {"class_names": []}),
    (0, {"task": "x"}),
    (0, {"seed": "0"}),
    (0, {"sources": []}),
    (0, {"budget": 3}),
    (0, {"settings": None}),
    (0, {"method": 3}),
    (0, {"versions": None}),
    (0, {"rows": "6"}),
    (0, {"genaug_plan": 2}),
    (1, {"label": [float("nan"), 1.0]}),
    (1, {"label": [1.0]}),
    (1, {"label": 3}),
    (1, {"label": ["x", "y"]}),
    (1, {"id": 3}),
    (1, {"id": "\ud800"}),
    (1, {"id": None}),
    (1, {"inputs": [["a", float("inf")]]}),
    (1, {"inputs": 3}),
    (1, {"inputs": ["a"]}),
    (1, {"prompts": [[3, 1.0]]}),
    (1, {"seed": "x"}),
    (1, {"round": "x"}),
    (1, {"round": 1e400}),
    (1, {"extra": 1}),
    (1, {"method": None}),
]


@pytest.mark.parametrize("line, changes", PLANS)
def test_plans_that_genaug_cannot_have_written(finished, tmp_path, line, changes):
    folder = copy_of(finished, tmp_path)
    change_plan(folder, line, **changes)
    for reader in (read_plan, open_synthetic):
        assert "is damaged" in refusal(reader, folder)


def test_a_plan_with_one_row_twice(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    lines = (folder / "plan.jsonl").read_text().split("\n")
    lines[2] = lines[1]
    (folder / "plan.jsonl").write_text("\n".join(lines))
    assert "is damaged" in refusal(read_plan, folder)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"{", b"[]\n", b"null\n", b"[" * 99999, b"\x00" * 99, b'{"genaug_plan": 1}\n']
)
def test_plans_that_are_something_else(finished, tmp_path, data):
    folder = copy_of(finished, tmp_path)
    (folder / "plan.jsonl").write_bytes(data)
    assert "is damaged" in refusal(read_plan, folder)


METADATA = [
    b"",
    b"{",
    b"[]\n",
    b"null\n",
    b"\xff",
    b"{}\n",
    b'{"file_name": 3}\n',
    b'{"file_name": "../../x.png", "id": "x", "labels": [1, 0], "task": "single"}\n',
    b"[" * 9999,
]


@pytest.mark.parametrize("data", METADATA)
def test_metadata_that_are_damaged_are_refused(finished, tmp_path, data):
    folder = copy_of(finished, tmp_path)
    (folder / "train" / "metadata.jsonl").write_bytes(data)
    assert "is damaged" in refusal(open_synthetic, folder)


@pytest.mark.parametrize(
    "file",
    [
        "train/metadata.jsonl",
        "train/classes.json",
        ".genaug/decisions.jsonl",
        ".genaug/lock",
        ".genaug/plan.lock",
    ],
)
@pytest.mark.parametrize("data", [b"", b"{", b"[]\n", b"\xff", None])
def test_a_damaged_set_is_repaired_by_the_same_command(finished, tmp_path, file, data):
    folder, real = copy_of(finished, tmp_path), toy_photographs()
    (folder / file).unlink() if data is None else (folder / file).write_bytes(data)
    made = synthesize(
        diff_ii(naming=ClassName(), backbone=toy_backbone(), num_inference_steps=4).fit(real),
        real,
        folder,
        Budget(copies=1),
        0,
        progress=False,
    )
    assert made.fingerprint() == open_synthetic(finished).fingerprint()


def test_swapped_labels_in_the_metadata_are_noticed(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    path = folder / "train" / "metadata.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[0]["labels"] = records[0]["labels"][::-1]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "is damaged" in refusal(open_synthetic, folder)


@pytest.mark.parametrize(
    "data", [b"{", b"[]\n", b"null\n", b'{"id": "x", "foreign": 1}\n', b'{"keep": true}\n', b"\xff", b"3\n"]
)
def test_decisions_that_are_damaged_are_refused(finished, tmp_path, data):
    folder = copy_of(finished, tmp_path)
    (folder / ".genaug" / "decisions.jsonl").write_bytes(data)
    assert "is damaged" in refusal(read_decisions, folder)
