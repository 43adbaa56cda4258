"""genaug.data on real files: every fault of a folder has a defined behaviour, and no split leaks."""

import json
import os
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image
from toy_sets import noise_set

from genaug.core import LabeledImages
from genaug.data.folders import check_folder, open_folder
from genaug.data.sources import open_source, parse_source
from genaug.data.splits import (
    TUNING_SEEDS,
    Manifest,
    assert_only,
    carve_validation,
    few_shot,
    long_tail,
    long_tail_counts,
    rank_classes,
    tuning_sets,
    unused,
)
from genaug.messages import GenaugError, printable


def picture(path, seed=0, size=(12, 10), mode="RGB", **options):
    "Write a picture of noise; equal seeds, sizes and modes give equal pixels."
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    array = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(array, mode if mode in ("CMYK", "LA") else None).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    "Two sound classes of three pictures each."
    for row, name in enumerate(("kiwi", "plum")):
        for column in range(3):
            picture(tmp_path / "photos" / name / f"{column}.png", 10 * row + column)
    return tmp_path / "photos"


def problems(folder, **options):
    return {problem.kind: problem for problem in check_folder(folder, **options).findings}


def refusal(call, *arguments, **options):
    with pytest.raises(GenaugError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("Traceback") == 0
    return message


def test_a_sound_folder_has_no_problems(folder):
    report = check_folder(folder)
    assert report.ok
    assert report.findings == ()
    assert report.class_names == ("kiwi", "plum")
    assert len(report.table()) == 0
    assert report.counts().loc["kiwi", "all"] == 3
    assert len(report.images) == 6


def test_split_level_and_its_other_names(tmp_path):
    for row, split in enumerate(("Train", "validation", "TEST")):
        for column, name in enumerate(("a", "b")):
            for number in range(2):
                picture(tmp_path / split / name / f"{number}.png", 100 * row + 10 * column + number)
    sets = open_folder(tmp_path)
    assert list(sets) == ["train", "val", "test"]
    assert {len(images) for images in sets.values()} == {4}
    assert sets["train"].ids[0] == "Train/a/0.png"
    assert sets["test"].class_names == ("a", "b")
    assert list(open_folder(tmp_path, split="test")) == ["test"]
    assert "it has train, val, test" in refusal(open_folder, tmp_path, split="all")


def test_classes_named_like_splits_stay_classes(tmp_path):
    for row, name in enumerate(("train", "bus")):
        picture(tmp_path / name / "1.png", row), picture(tmp_path / name / "2.png", row + 5)
    assert open_folder(tmp_path)["all"].class_names == ("bus", "train")
    assert problems(tmp_path)["split-name"].severity == "warning"


def test_a_folder_beside_the_splits_and_a_split_twice_are_errors(folder, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    folder.rename(top / "train")
    picture(top / "melon" / "1.png", 50)
    assert "move it into train/" in problems(top)["beside-split"].message
    (top / "melon").rename(top / "val")
    (top / "valid").mkdir()
    assert "merge them" in problems(top)["split-twice"].message
    assert "merge them" in refusal(open_folder, top, strict=False)


@pytest.mark.parametrize(
    "name, trait",
    [
        ("grey", "grey"),
        ("palette", "palette"),
        ("alpha", "alpha"),
        ("rotated", "rotated"),
        ("deep", "16-bit"),
        ("print", "CMYK"),
        ("film", "frames"),
    ],
)
def test_every_kind_of_picture_is_read_and_noted(folder, name, trait):
    path = folder / "kiwi" / "odd.png"
    if name == "grey":
        picture(path, 70, mode="L")
    if name == "palette":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).quantize(
            8
        ).save(path)
    if name == "alpha":
        picture(path, 70, mode="RGBA")
    if name == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        path = picture(folder / "kiwi" / "odd.jpg", 70, size=(20, 10), exif=exif)
    if name == "deep":
        Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    if name == "print":
        path = picture(folder / "kiwi" / "odd.tif", 70, mode="CMYK")
    if name == "film":
        path = folder / "kiwi" / "odd.gif"
        frames = [Image.fromarray(np.full((9, 9), level, np.uint8)) for level in (10, 200)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    assert problems(folder)[trait].severity == "note"
    assert check_folder(folder).ok
    images = open_folder(folder)["all"]
    array = images.image(f"kiwi/{path.name}")
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.shape[2] in (1, 3)
    if name == "rotated":
        assert array.shape[:2] == (20, 10)
    if name == "deep":
        assert abs(int(array[0, 0, 0]) - 40000 / 257) <= 1
    assert images.batch(size=8).shape == (7, 3, 8, 8)


@pytest.mark.parametrize(
    "kind, text",
    [
        ("empty-file", "copy it again"),
        ("corrupt", "repair"),
        ("not-an-image", "rename or remove"),
        ("too-small", "8 pixels per edge"),
    ],
)
def test_broken_files_stop_a_strict_opening_and_are_left_out_of_a_lenient_one(folder, kind, text):
    path = folder / "plum" / "bad.jpg"
    if kind == "empty-file":
        path.touch()
    if kind == "corrupt":
        path.write_bytes(picture(path, 70, size=(64, 64)).read_bytes()[:900])
    if kind == "not-an-image":
        path.write_text("Dear diary")
    if kind == "too-small":
        picture(path, 70, size=(7, 90))
    findings = problems(folder)[kind]
    assert findings.severity == "error"
    assert text in findings.message
    assert "'plum/bad.jpg'" in findings.message
    assert refusal(open_folder, folder) == findings.message
    assert len(open_folder(folder, strict=False)["all"]) == 6


def test_a_picture_over_the_limit_is_refused_before_it_is_unpacked(folder):
    Image.new("1", (8_000, 7_000)).save(folder / "kiwi" / "large.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT" + data, b"IEND")
    ]
    (folder / "kiwi" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    findings = [problem for problem in check_folder(folder).errors if problem.kind == "too-large"]
    assert [problem.where for problem in findings] == ["kiwi/bomb.png", "kiwi/large.png"]
    assert all("smaller" in problem.message for problem in findings)
    assert "too-large" in {problem.kind for problem in check_folder(folder, max_pixels=100).errors}
    assert "limits" in refusal(check_folder, folder, max_pixels=10**9)
    assert "limits" in refusal(check_folder, folder, min_size=0)


def test_files_of_systems_are_noted_once_and_other_files_warned_about(folder):
    for name in (".DS_Store", "Thumbs.db", "._0.png", "desktop.ini"):
        (folder / "kiwi" / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "plum" / "notes.txt").write_text("hello")
    picture(folder / "cover.png", 70)
    (folder / "README").write_text("hello")
    findings = problems(folder)
    assert check_folder(folder).ok
    assert findings["junk"].message.startswith("5 hidden")
    assert findings["junk"].severity == "note"
    assert findings["other-file"].severity == "warning"
    assert "'plum/notes.txt'" in findings["other-file"].message
    assert findings["stray"].where == "cover.png"
    assert len(open_folder(folder)["all"]) == 6


def test_pictures_in_deeper_folders_belong_to_the_class(folder):
    picture(folder / "kiwi" / "2024" / "may" / "x.png", 70)
    assert "kiwi/2024/may/x.png" in open_folder(folder)["all"].ids


def test_unicode_and_spaces_in_names(folder):
    odd = unicodedata.normalize("NFD", "Äpfel & Birnen 果物")
    for number in range(2):
        picture(folder / odd / f"mit Raum {number}.png", 80 + number)
    images = open_folder(folder)["all"]
    assert images.class_names == ("kiwi", "plum", "Äpfel & Birnen 果物")
    assert "Äpfel & Birnen 果物/mit Raum 0.png" in images.ids
    assert all(unicodedata.is_normalized("NFC", name) for name in images.ids)
    assert images.image(images.ids[-1]).shape == (10, 12, 3)


def test_names_equal_but_for_the_storage_of_accents_are_refused_even_when_lenient(folder):
    for number, form in enumerate(("NFC", "NFD")):
        picture(folder / unicodedata.normalize(form, "pêche") / "1.png", 80 + number)
    if len(list(folder.iterdir())) < 4:
        pytest.skip("this file system normalises names")
    assert "rename or merge" in refusal(open_folder, folder, strict=False)
    for number, form in enumerate(("NFC", "NFD")):
        picture(folder / "kiwi" / unicodedata.normalize(form, "é.png"), 90 + number)
    assert sum(problem.kind == "same-name" for problem in check_folder(folder).findings) >= 2


def test_class_names_that_differ_only_in_case_are_an_error(folder):
    picture(folder / "Kiwi" / "9.png", 80), picture(folder / "Kiwi" / "8.png", 81)
    if len(list(folder.iterdir())) < 3:
        pytest.skip("this file system ignores case")
    assert "Windows" in problems(folder)["case"].message
    assert "Windows" in refusal(open_folder, folder)
    assert open_folder(folder, strict=False)["all"].class_names == ("Kiwi", "kiwi", "plum")


def test_a_name_that_is_not_utf8_is_an_error_and_printable(folder):
    try:
        (folder / "kiwi" / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    message = refusal(open_folder, folder)
    assert "not valid UTF-8" in message
    assert message.encode("utf-8")


def test_hostile_names_are_printed_harmlessly(folder):
    (folder / "kiwi" / "\x1b[2J\n<script>.png").touch()
    lines = check_folder(folder).lines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert "\n" not in lines[0]
    assert printable("a\u202eb") == "a\\u202eb"


def test_an_empty_class_a_single_image_and_one_class_only(folder):
    (folder / "fig").mkdir()
    picture(folder / "lime" / "1.png", 80)
    findings = problems(folder)
    assert findings["empty-class"].severity == "error"
    assert "remove its folder" in findings["empty-class"].message
    assert findings["single-image"].severity == "warning"
    assert findings["single-image"].where == "lime"
    assert open_folder(folder, strict=False)["all"].class_names == ("kiwi", "lime", "plum")
    (
        picture(folder.parent / "alone" / "kiwi" / "1.png", 1),
        picture(folder.parent / "alone" / "kiwi" / "2.png", 2),
    )
    assert problems(folder.parent / "alone")["one-class"].severity == "warning"
    assert len(open_folder(folder.parent / "alone")["all"]) == 2


def test_classes_that_train_and_test_do_not_share(folder, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    folder.rename(top / "train")
    picture(top / "test" / "kiwi" / "9.png", 90), picture(top / "test" / "Plumm" / "9.png", 91)
    findings = problems(top)
    assert "'plum'" in findings["unknown-class"].message
    assert findings["untested-class"].where == "plum"
    assert len(open_folder(top, strict=False)["test"]) == 1


def test_links(folder, tmp_path):
    outside = picture(tmp_path / "elsewhere" / "x.png", 80)
    os.symlink(outside, folder / "kiwi" / "far.png")
    os.symlink(tmp_path / "elsewhere", folder / "lychee")
    os.symlink(folder, folder / "plum" / "again")
    os.symlink(folder / "plum", folder / "kiwi" / "sister")
    os.symlink("nowhere.png", folder / "kiwi" / "broken.png")
    os.symlink("self.png", folder / "kiwi" / "self.png")
    os.symlink("0.png", folder / "kiwi" / "same.png")
    report = check_folder(folder)
    kinds = [(problem.kind, problem.where) for problem in report.findings]
    assert {
        ("link-outside", "kiwi/far.png"),
        ("link-outside", "lychee"),
        ("link-loop", "plum/again"),
        ("link-folder", "kiwi/sister"),
        ("broken-link", "kiwi/broken.png"),
        ("broken-link", "kiwi/self.png"),
        ("duplicate", "kiwi/same.png"),
    } == set(kinds)
    assert all(problem.severity == "error" for problem in report.findings if "link" in problem.kind)
    assert len(open_folder(folder, strict=False)["all"]) == 7
    os.symlink(folder, tmp_path / "shortcut")
    assert check_folder(tmp_path / "shortcut").class_names == ("kiwi", "plum")


def test_a_pipe_does_not_hang_the_check(folder):
    os.mkfifo(folder / "kiwi" / "pipe.png")
    assert problems(folder)["not-a-file"].severity == "warning"
    assert len(open_folder(folder)["all"]) == 6


def test_unreadable_folders_and_files(folder, monkeypatch):
    scandir, opened = os.scandir, Image.open

    def refuse(path, call):
        if os.fspath(path).endswith(("plum", "0.png")):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return call(path)

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path, scandir))
    monkeypatch.setattr(Image, "open", lambda path: refuse(path, opened))
    findings = problems(folder)
    assert "change its permissions" in findings["unreadable"].message
    assert findings["unreadable"].where == "plum"
    assert findings["corrupt"].where == "kiwi/0.png"
    assert "Permission denied" in findings["corrupt"].message


def test_copies_within_a_class_across_classes_and_across_splits(folder, tmp_path):
    picture(folder / "kiwi" / "copy.bmp", 0)
    assert problems(folder)["duplicate"].severity == "warning"
    picture(folder / "plum" / "copy.tif", 1)
    assert problems(folder)["two-labels"].severity == "warning"
    assert check_folder(folder).ok
    top = tmp_path / "top"
    top.mkdir()
    folder.rename(top / "train")
    picture(top / "test" / "kiwi" / "0.tiff", 2), picture(top / "test" / "plum" / "0.png", 95)
    findings = problems(top)["leak"]
    assert findings.severity == "error"
    assert "two splits" in refusal(open_folder, top)
    lenient = open_folder(top, strict=False)
    assert "train/kiwi/2.png" not in lenient["train"].ids
    assert "test/kiwi/0.tiff" in lenient["test"].ids
    assert not set(lenient["train"].sha256) & set(lenient["test"].sha256)


def test_no_images_no_classes_no_folder_a_file_an_archive(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "sub-folder" in refusal(open_folder, tmp_path / "empty", strict=False)
    (tmp_path / "empty" / "kiwi").mkdir()
    assert "no usable picture" in refusal(open_folder, tmp_path / "empty", strict=False)
    picture(tmp_path / "flat" / "1.png", 1)
    assert "sub-folder" in refusal(open_folder, tmp_path / "flat")
    assert problems(tmp_path / "flat")["no-classes"].severity == "error"
    assert "does not exist" in refusal(open_folder, tmp_path / "nowhere")
    assert "is a file" in refusal(open_folder, tmp_path / "flat" / "1.png")
    (tmp_path / "photos.zip").touch()
    assert "unpack" in refusal(check_folder, tmp_path / "photos.zip")


def test_lines_are_limited_per_kind(folder):
    for number in range(20):
        (folder / "kiwi" / f"empty{number}.png").touch()
    assert len(check_folder(folder).lines(limit=3)) == 4
    assert "17 more" in check_folder(folder).lines(limit=3)[-1]
    assert "(19 more" in refusal(open_folder, folder)


def test_hashes_handed_over_are_those_of_the_pixels(folder):
    images = open_folder(folder)["all"]
    assert (
        images.sha256
        == LabeledImages(
            [images.image(position) for position in range(6)], images.targets, images.class_names, images.ids
        ).sha256
    )


def test_sources(folder, tmp_path, monkeypatch):
    assert parse_source("digits", ["digits"]).kind == "built-in"
    assert parse_source(folder).kind == "folder"
    assert parse_source("cub:/data", formats=["cub"]).path == "/data"
    assert "not a known format" in refusal(parse_source, "cub:/data")
    assert "known formats are cars" in refusal(parse_source, "cub:/data", formats=["cars"])
    assert "did you mean the built-in 'digits'" in refusal(parse_source, "digit", ["digits"])
    assert "does not exist" in refusal(parse_source, "C:\\photos")
    assert "does not exist" in refusal(parse_source, tmp_path / "no")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert parse_source("digits", ["digits"]).kind == "built-in"
    assert parse_source("./digits", ["digits"]).kind == "folder"
    opened = open_source(folder)["all"]
    assert set(open_source(folder)) == {"all"}
    assert open_source("digits", {"digits": lambda: 5}) == 5
    assert open_source("up:y", formats={"up": lambda path: {path: opened}})["y"].ids == opened.ids


# ---- splits


@pytest.fixture(scope="module")
def pool():
    return noise_set(np.repeat(np.arange(4), (30, 20, 10, 3)), ("d", "c", "b", "a"), ids="pool/{:02d}")


@pytest.fixture(scope="module")
def held_out(pool):
    return noise_set(np.arange(8) % 4, pool.class_names, seed=1, ids="test/{}")


@pytest.mark.parametrize(
    "factor, total, single, two, few",
    [(100, 1242, 83, 101, 123), (50, 1427, 62, 83, 109), (20, 1798, 21, 47, 81), (10, 2238, 0, 2, 46)],
)
def test_cub_long_tail_counts_are_those_of_the_brief(factor, total, single, two, few):
    counts = long_tail_counts(5994 / 200, factor, 200)
    assert counts.sum() == total
    assert (counts == 1).sum() == single
    assert (counts <= 2).sum() == two
    assert (counts < 5).sum() == few
    assert counts[0] == 29
    assert counts[-1] == (2 if factor == 10 else 1)
    assert np.all(np.diff(counts) <= 0)


def test_long_tail_counts_of_a_few_classes_and_refusals():
    assert long_tail_counts([40, 40], 10).tolist() == [40, 4]
    assert long_tail_counts([40], 10).tolist() == [40]
    assert long_tail_counts(50, 1, 3).tolist() == [50, 50, 50]
    assert "at least 1" in refusal(long_tail_counts, 5, 0.5, 3)
    assert "number of classes" in refusal(long_tail_counts, 5.0, 10)


def test_few_shot_sets_nest_do_not_depend_on_order_and_take_all_of_a_small_class(pool):
    sets = [few_shot(pool, shots, seed=3) for shots in (1, 2, 5, 10)]
    for small, large in zip(sets, sets[1:]):
        assert set(small.ids) < set(large.ids)
    assert sets[3].counts() == {"d": 10, "c": 10, "b": 10, "a": 3}
    assert len(set(sets[3].ids)) == 33
    shuffled = pool[np.random.default_rng(5).permutation(63)]
    assert set(few_shot(shuffled, 5, seed=3).ids) == set(sets[2].ids) != set(few_shot(pool, 5, seed=4).ids)
    assert "at least 1" in refusal(few_shot, pool, 0, 0)


def test_growing_the_pool_keeps_the_order_of_what_was_there(pool):
    part = pool[[position for position in range(63) if position % 7]]
    for name, before in rank_classes(part, 0).items():
        after = rank_classes(pool, 0)[name]
        assert tuple(item for item in after if item in before) == before
        assert len(before) == 3 or (len(after) > len(before) and list(before) != sorted(before))
    chosen = set(few_shot(pool, 5, 0).ids) & set(part.ids)
    assert chosen <= set(few_shot(part, 5, 0).ids)


def test_the_choice_is_fair():
    pool = LabeledImages(
        [np.zeros((1, 1, 3), np.uint8)] * 10,
        np.zeros(10, int),
        ("a",),
        [f"{number}" for number in range(10)],
        digests=[f"{number}" for number in range(10)],
    )
    seen = np.zeros(10)
    for seed in range(600):
        for name in few_shot(pool, 3, seed).ids:
            seen[int(name)] += 1
    expected, spread = 600 * 0.3, np.sqrt(600 * 0.3 * 0.7)
    assert np.abs(seen - expected).max() < 4.5 * spread


def test_long_tails_nest_and_follow_the_counts(pool):
    for factor in (2, 10, 100):
        sizes = np.array(sorted(long_tail(pool, factor, 0).counts().values(), reverse=True))
        assert np.array_equal(sizes, np.minimum(long_tail_counts([30, 20, 10, 3], factor), [30, 20, 10, 3]))
    assert set(long_tail(pool, 100, 0).ids) < set(long_tail(pool, 10, 0).ids) < set(long_tail(pool, 2, 0).ids)


def test_splits_of_multi_label_sets_and_empty_classes_are_refused(pool):
    multi = LabeledImages(
        [pool.image(0)] * 4, np.eye(4), pool.class_names, list("wxyz"), task="multi", digests=list("wxyz")
    )
    assert "multi-label" in refusal(few_shot, multi, 1, 0)
    assert len(carve_validation(multi, 0.5, 0)[1]) == 2
    assert "no image to choose from" in refusal(few_shot, pool[pool.targets != 2], 1, 0)


def test_validation_is_carved_per_class_and_never_empties_one(pool):
    train, val = carve_validation(pool, 0.3, seed=0)
    assert val.counts() == {"d": 9, "c": 6, "b": 3, "a": 1}
    assert set(train.ids).isdisjoint(val.ids)
    assert len(train) + len(val) == 63
    assert carve_validation(pool, 0.99, seed=0)[0].counts() == {"d": 1, "c": 1, "b": 1, "a": 1}
    assert len(carve_validation(pool, 0.0, seed=0)[1]) == 0
    assert "below 1" in refusal(carve_validation, pool, 1.0, 0)


def test_manifest_round_trip_and_content_check(pool, held_out, tmp_path):
    sets = {"train": pool, "test": held_out}
    manifest = Manifest.build(sets, seed=0, shots=5, validation=0.2)
    manifest.save(tmp_path / "manifest.json")
    again = Manifest.load(tmp_path / "manifest.json")
    assert again == manifest
    assert again.fingerprint() == manifest.fingerprint()
    assert again.short == {"a": 3}
    parts = again.sets(sets)
    assert {name: len(images) for name, images in parts.items()} == {"train": 14, "val": 4, "test": 8}
    changed = LabeledImages(
        [255 - pool.image(position) for position in range(63)], pool.targets, pool.class_names, pool.ids
    )
    assert "has changed" in refusal(again.sets, {"train": changed, "test": held_out})
    assert "not all in the source" in refusal(again.sets, {"train": pool})
    assert Manifest.build(sets, seed=0, shots=10).rank == manifest.rank


def test_damaged_manifests_are_refused(tmp_path):
    assert "no manifest" in refusal(Manifest.load, tmp_path / "none.json")
    for content in ("{", "[]", "{}", json.dumps({"genaug_manifest": 2}), json.dumps({"genaug_manifest": 1})):
        (tmp_path / "bad.json").write_text(content)
        assert "build a new one" in refusal(Manifest.load, tmp_path / "bad.json")


def test_train_and_test_may_share_neither_ids_nor_content(pool, held_out):
    assert "also in test" in refusal(Manifest.build, {"train": pool + held_out, "test": held_out}, 0)
    twin = LabeledImages([held_out.image(0)], [0], pool.class_names, ["pool/twin"])
    assert "also in test" in refusal(Manifest.build, {"train": pool + twin, "test": held_out}, 0)
    assert "not both" in refusal(
        Manifest.build, {"train": pool, "test": held_out}, 0, shots=1, imbalance_factor=10
    )
    assert "add a train folder" in refusal(Manifest.build, {"test": held_out}, 0)


def test_without_a_test_split_one_is_kept_back_that_does_not_depend_on_the_shots(pool):
    first, ten = (Manifest.build({"all": pool}, seed=0, shots=shots, test_fraction=0.4) for shots in (1, 10))
    assert first.test == ten.test
    assert len(first.test) == 25
    assert set(first.train) < set(ten.train)
    assert not set(ten.train) & set(ten.test)
    assert "too few" in refusal(Manifest.build, {"all": few_shot(pool, 1, 0)}, 0)


def test_a_given_val_split_is_used(pool, held_out):
    manifest = Manifest.build(
        {"train": pool, "val": held_out[:4], "test": held_out[4:]}, seed=0, shots=5, validation=0.5
    )
    assert manifest.val == held_out.ids[:4]
    assert len(manifest.train) == 18


def test_no_test_image_reaches_a_stage(pool, held_out):
    manifest = Manifest.build({"train": pool, "test": held_out}, seed=0, shots=5)
    assert_only(manifest.train, manifest, "fit")
    assert_only(manifest.train[:3], manifest, "fit")
    message = refusal(assert_only, [*manifest.train, held_out.ids[2]], manifest, "invert")
    assert "'invert'" in message
    assert "test image" in message
    spare = next(name for name in pool.ids if name not in manifest.train)
    assert "not a training image" in refusal(assert_only, [spare], manifest, "plan")
    assert "not a training image" in refusal(assert_only, ["x"], ["y"], "plan")


def test_tuning_uses_reserved_seeds_and_unused_pool_images(pool, held_out):
    assert TUNING_SEEDS == (100, 101, 102, 103, 104)
    manifest = Manifest.build({"train": pool, "test": held_out}, seed=0, shots=5, validation=0.2)
    rest = unused(pool, manifest)
    assert len(rest) == 63 - 18
    assert not set(rest.ids) & {*manifest.train, *manifest.val, *manifest.test}
    twin = LabeledImages([pool.image(manifest.train[0])], [0], pool.class_names, ["twin"])
    assert "twin" not in unused(pool + twin, manifest).ids
    sets = tuning_sets(pool, 102, imbalance_factor=10)
    assert set(sets["train"].ids).isdisjoint(sets["test"].ids)
    assert len(sets["train"]) + len(sets["test"]) == 63
    assert "not 0" in refusal(tuning_sets, pool, 0, shots=5)
