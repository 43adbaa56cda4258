"""Files that genaug wrote and somebody changed: every later command refuses them in a sentence or repairs
them, and no report shows what a browser would run."""

import copy
import json
import os
import shutil
import struct

import pytest
from fuzz_world import (
    MARKERS,
    QUICK,
    call_checked,
    examples,
    expect,
    expect_clean_page,
    hostile_json,
    page_faults,
    run_checked,
    small_world,
)
from hypothesis import given
from hypothesis import strategies as st

from genaug import comparison_folder, core, experiment, files, plan_file, prompts, results, synthetic_set
from genaug.core import LabeledImages
from genaug.data.splits import Manifest

MAKE = ["--method", "smote", "--shots", "2", "--copies", "1", "--quiet"]
ASK = ["--methods", "original,smote", *QUICK]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "One finished set and one finished comparison, made once."
    with small_world(tmp_path_factory.mktemp("fuzz_files")) as made:
        expect(
            run_checked(
                made, ["augment", made.photos, made.root / "made", *MAKE], out=made.root / "made"
            ).code
            == 0,
            "the plain one was not made",
        )
        expect(
            run_checked(
                made,
                ["compare", made.photos, *ASK, "--out", made.root / "compared"],
                out=made.root / "compared",
            ).code
            == 0,
            "the plain one was not made",
        )
        yield made


def files_of(folder):
    "Text files of a finished OUT, the same in every run."
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in (".json", ".jsonl", ".csv") and path.is_file()
    )


# --- changes to the text of a file
# ---------------------------------------------------------------------------


def places(value, way=()):
    "The way to every value inside JSON, at most a few of a long list."
    yield way
    items = (
        value.items()
        if isinstance(value, dict)
        else list(enumerate(value))[:4]
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*way, key))


def changed_json(draw, value):
    "The value with one thing in it removed, replaced, renamed, wrapped or repeated."
    value = copy.deepcopy(value)
    way = draw(st.sampled_from(list(places(value))))
    if not way:
        return draw(hostile_json())
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    action = draw(
        st.sampled_from(
            ["replace", "replace", "replace", "remove", "rename", "wrap", "repeat", "text", "marker"]
        )
    )
    if action == "remove":
        del holder[way[-1]]
    elif action == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(MARKERS))] = holder.pop(way[-1])
    elif action == "repeat" and isinstance(holder, list):
        holder += holder[:3] * 2
    else:
        old = holder[way[-1]]
        holder[way[-1]] = (
            {"wrap": [old], "text": str(old), "marker": f"{old}{draw(st.sampled_from(MARKERS))}"}.get(action)
            if action in ("wrap", "text", "marker")
            else draw(hostile_json())
        )
    return value


def written(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


def changed_bytes(draw, content):
    "The file cut, emptied, flipped, repeated, or filled with something foreign."
    index = draw(st.integers(0, max(0, len(content) - 1)))
    return draw(
        st.sampled_from(
            [
                content[:index],
                b"",
                b"\n",
                b"null",
                b"[]",
                b"{}",
                b"0",
                b'""',
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b"[" * 100_000 + b"]" * 100_000,
                b"\xff\xfe" + content,
                b"\xef\xbb\xbf" + content,
                content.replace(b"\n", b"\r\n"),
                content + content,
                content + b"\0" * 50,
                b"\0" * 1000,
                content[:index] + b"\xff" + content[index:],
                content[:index] + b"\0" + content[index:],
                content[:index] + b"NaN" + content[index:],
                content + b"{" + b" " * 3_000_000,
                content.decode("utf-8", "replace").encode("utf-16"),
                b"9" * 10_000,
                b"-" * 1000,
                b'"' + b"x" * 3_000_000 + b'"',
                b"version https://git-lfs.github.com/spec/v1\n",
                b"<html><script>alert(1)</script>",
                content.replace(b'"', b"'"),
                content.replace(b"1", b"NaN"),
                content.replace(b"1", b"1e999"),
                content.replace(b"0", b"-7"),
                content.upper(),
            ]
        )
    )


def changed(draw, path):
    "Change one file of a finished OUT in place; returns what was done, for the message."
    content = path.read_bytes()
    if draw(st.integers(0, 9)) == 0:
        path.unlink()
        action = draw(st.sampled_from(["gone", "folder", "link-out", "link-loop"]))
        if action == "folder":
            path.mkdir()
        elif action != "gone":
            os.symlink("/etc/hostname" if action == "link-out" else path.name, path)
        return
    if draw(st.integers(0, 2)) == 0 or path.suffix == ".csv":
        new = changed_bytes(draw, content)
        if path.suffix == ".csv" and draw(st.booleans()):
            lines = content.decode().split("\n")
            row = draw(st.integers(0, len(lines) - 1))
            cells = lines[row].split(",")
            cells[draw(st.integers(0, len(cells) - 1))] = draw(
                st.sampled_from([*MARKERS, "nan", "inf", "1e999", "", '"', "x" * 200_000])
            ).replace("\0", "0")
            new = "\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]]).encode(
                "utf-8", "surrogatepass"
            )
    elif path.suffix == ".json":
        new = written(changed_json(draw, json.loads(content)))
    else:
        lines = [line for line in content.split(b"\n") if line]
        row = draw(st.sampled_from([0, 0, 1, len(lines) - 1])) if len(lines) > 1 else 0
        action = draw(st.sampled_from(["change", "change", "change", "repeat", "remove", "swap", "insert"]))
        if action == "change":
            lines[row] = written(changed_json(draw, json.loads(lines[row])))
        elif action == "repeat":
            lines.append(lines[row])
        elif action == "remove":
            del lines[row]
        elif action == "swap":
            lines[row], lines[-1] = lines[-1], lines[row]
        else:
            lines.insert(row, written(draw(hostile_json())))
        new = b"\n".join(lines) + b"\n"
    path.write_bytes(new)


# --- who reads them
# ---------------------------------------------------------------------------


def read_set(folder):
    "Every reader of a set; pictures that open lie inside it."
    for reader, home in (
        (plan_file.read_plan, folder),
        (synthetic_set.open_synthetic, folder),
        (core.read_metadata, folder / "train"),
        (files.read_findings, folder),
        (files.read_findings, folder / ".genaug"),
    ):
        call_checked(reader, home)
    images = call_checked(LabeledImages.open, folder / "train").value
    if images is not None:
        outside = [
            str(path)
            for path in images.pixels
            if not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)
        ]
        expect(not outside, f"a picture outside the set is opened: {outside[:1]}")
        call_checked(lambda: [images.image(position) for position in range(len(images))])


def page_is_clean(folder, outcome):
    if outcome.code == 0 and (folder / "report.html").is_file():
        expect_clean_page(folder / "report.html")


def judge_set(world, folder):
    read_set(folder)
    page_is_clean(folder, run_checked(world, ["report", folder], out=folder))
    run_checked(world, ["audit", folder], out=folder / "findings.json")
    run_checked(world, ["augment", world.photos, folder, *MAKE], out=folder, leaves_nothing=False)


def judge_comparison(world, folder):
    call_checked(comparison_folder.read_comparison, folder)
    call_checked(results.read_rows, folder / "results.csv")
    for path in sorted((folder / "splits").glob("*.json")) if (folder / "splits").is_dir() else ():
        call_checked(Manifest.load, path)
    for path in sorted((folder / "runs").glob("*.json")) if (folder / "runs").is_dir() else ():
        call_checked(experiment.Unit.load, path)
    page_is_clean(folder, run_checked(world, ["report", folder], out=folder))
    run_checked(world, ["compare", world.photos, *ASK, "--out", folder], out=folder, leaves_nothing=False)


def change_and_judge(world, draw, kind):
    folder = world.copy_of("made" if kind == "set" else "compared", "work")
    name = draw(st.sampled_from(files_of(world.made if kind == "set" else world.compared)))
    changed(draw, folder / name)
    (judge_set if kind == "set" else judge_comparison)(world, folder)


# --- the claims
# ---------------------------------------------------------------------------


def test_what_is_changed_is_what_genaug_wrote(world):
    assert {
        "plan.jsonl",
        "train/metadata.jsonl",
        "train/classes.json",
        ".genaug/run.json",
        ".genaug/decisions.jsonl",
    } <= set(files_of(world.made))


def test_the_unchanged_report_of_a_set_has_nothing_that_runs(world):
    folder = world.copy_of("made")
    assert run_checked(world, ["report", folder], out=folder).code == 0
    assert not page_faults(folder / "report.html")


def test_the_unchanged_report_of_a_comparison_has_nothing_that_runs(world):
    folder = world.copy_of("compared")
    assert run_checked(world, ["report", folder], out=folder).code == 0
    assert not page_faults(folder / "report.html")


@examples(4)
@given(st.data())
def test_a_changed_file_of_a_set_is_refused_or_repaired(world, data):
    change_and_judge(world, data.draw, "set")


@examples(2)
@given(st.data())
def test_a_changed_file_of_a_comparison_is_refused_or_repaired(world, data):
    change_and_judge(world, data.draw, "comparison")


FOREIGN = {
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"7",
    "text": b'"x"',
    "not utf-8": b"\xff\xfe\xfa",
    "nan": b"NaN",
    "object": b"{}",
    "huge number": b"9" * 10_000,
}


def replace_and_judge(world, kind, name, content):
    folder = world.copy_of("made" if kind == "set" else "compared", "work")
    (folder / name).write_bytes(FOREIGN[content])
    (judge_set if kind == "set" else judge_comparison)(world, folder)


@pytest.mark.parametrize("content", ["deep", "null", "not utf-8"])
@pytest.mark.parametrize("name", ["plan.jsonl", "train/metadata.jsonl", ".genaug/run.json"])
def test_foreign_content_in_a_file_of_a_set_is_refused_or_repaired(world, name, content):
    replace_and_judge(world, "set", name, content)


@pytest.mark.long
def test_every_foreign_content_in_every_file_is_refused_or_repaired(world):
    for kind, home in (("set", world.made), ("comparison", world.compared)):
        for name in files_of(home):
            for content in FOREIGN:
                replace_and_judge(world, kind, name, content)


@pytest.mark.long
@examples(250)
@given(st.data())
def test_many_changed_files_of_a_set_are_refused_or_repaired(world, data):
    change_and_judge(world, data.draw, "set")


@pytest.mark.long
@examples(80)
@given(st.data())
def test_many_changed_files_of_a_comparison_are_refused_or_repaired(world, data):
    change_and_judge(world, data.draw, "comparison")


# --- pictures of a finished set
# ---------------------------------------------------------------------------


@examples(2)
@given(st.data())
def test_a_changed_picture_of_a_set_is_found_or_refused(world, data):
    change_picture(world, data.draw)


def change_picture(world, draw):
    folder = world.copy_of("made")
    path = draw(st.sampled_from(sorted((folder / "train").rglob("*.png"))))
    content = path.read_bytes()
    index = draw(st.integers(0, len(content) - 1))
    action = draw(
        st.sampled_from(["cut", "flip", "empty", "gone", "foreign", "folder", "photograph", "text"])
    )
    path.unlink()
    if action == "folder":
        path.mkdir()
    elif action != "gone":
        path.write_bytes(
            {
                "cut": content[:index],
                "flip": content[:index] + bytes([content[index] ^ 0x10]) + content[index + 1 :],
                "empty": b"",
                "foreign": (world.photos / "test" / "cat" / "0.png").read_bytes(),
                "photograph": (world.photos / "train" / "cat" / "0.png").read_bytes(),
                "text": b"text",
            }[action]
        )
    judge_set(world, folder)


@pytest.mark.long
@examples(50)
@given(st.data())
def test_many_changed_pictures_of_a_set_are_found_or_refused(world, data):
    change_picture(world, data.draw)


# --- suffix files, learned folders, checkpoints
# -----------------------------------------------------------------------------------

suffix_files = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            [
                *MARKERS,
                "on grass",
                "in the snow",
                "#",
                "# x",
                ".",
                " ",
                "x" * 100_000,
                "on a {}",
                "on \x1b[31m",
                "\x0c",
                "\x85",
                "\u2028",
            ]
        ),
        max_size=8,
    ).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"",
            b"\n",
            b"\xef\xbb\xbf",
            b"\xff\xfeo\0n\0",
            b"\0" * 100,
            b"on grass\n" * 200_000,
            "".join(f"on grass {number}\n" for number in range(50_000)).encode(),
            b"x" * 3_000_000,
        ]
    ),
)


def judge_suffixes(world, content):
    path = world.fresh() / "suffixes.txt"
    path.write_bytes(content)
    call_checked(prompts.read_suffixes, path)
    run_checked(
        world,
        [
            "augment",
            world.photos,
            "out",
            "--method",
            "smote",
            "--suffixes",
            path,
            "--shots",
            "1",
            "--copies",
            "1",
            "--quiet",
        ],
        out="out",
    )
    shutil.rmtree(world.cwd / "out", ignore_errors=True)


@examples(4)
@given(suffix_files)
def test_any_suffix_file_is_read_or_refused(world, content):
    judge_suffixes(world, content)


@pytest.mark.long
@examples(200)
@given(suffix_files)
def test_many_suffix_files_are_read_or_refused(world, content):
    judge_suffixes(world, content)


safetensor_files = st.sampled_from(
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 70)
        + b'{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}'.ljust(70)
        + b"\0" * 4,
        struct.pack("<Q", 60)
        + b'{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'.ljust(60)
        + b"\0" * 4,
        b"PK\x03\x04" + b"\0" * 50,
        b"\x80\x02.",
        b"version https://git-lfs",
    ]
)


def judge_learned(world, name, content):
    "Folders of learned things with a foreign file in them."
    from genaug import choices, training

    folder = world.fresh("learned")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    call_checked(choices.load_learned, folder)
    if hasattr(training, "load_checkpoint"):
        import torch

        parameters = {"x": torch.nn.Parameter(torch.zeros(1))}
        call_checked(
            training.load_checkpoint, folder, parameters, torch.optim.SGD(parameters.values(), lr=0.1)
        )
    from genaug.trained_classifier import TrainedClassifier

    call_checked(TrainedClassifier.load, folder)


learned_names = st.sampled_from(
    [
        "concept.json",
        "fine_tuned.json",
        "shelf.json",
        "learned.json",
        "classifier.json",
        "pytorch_lora_weights.safetensors",
        "step-1/progress.json",
        "step-1/state.safetensors",
        "step-1/optimizer.pt",
        "1/progress.json",
        "weights.safetensors",
        "unet/config.json",
        "painter.json",
        "neighbours.json",
    ]
)


@examples(8)
@given(
    learned_names,
    st.one_of(st.sampled_from(list(FOREIGN.values())), safetensor_files, hostile_json().map(written)),
)
def test_a_foreign_file_in_a_learned_folder_is_refused(world, name, content):
    judge_learned(world, name, content)


@pytest.mark.long
@examples(800)
@given(
    learned_names,
    st.one_of(st.sampled_from(list(FOREIGN.values())), safetensor_files, hostile_json().map(written)),
)
def test_many_foreign_files_in_learned_folders_are_refused(world, name, content):
    judge_learned(world, name, content)


@examples(4)
@given(safetensor_files)
def test_a_foreign_file_of_classifier_weights_is_refused(world, content):
    path = world.fresh("learned") / "weights.safetensors"
    path.write_bytes(content)
    outcome = run_checked(
        world,
        [
            "compare",
            world.photos,
            "--methods",
            "original",
            "--shots",
            "1",
            "--seeds",
            "1",
            "--repeats",
            "1",
            "--updates",
            "1",
            "--classifier-weights",
            path,
            "--out",
            "out",
            "--quiet",
        ],
        out="out",
    )
    assert outcome.code == 2
