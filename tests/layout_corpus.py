"""Forty folders of tiny pictures as people have them, and ten ways to spoil a set made from one; both
deterministic."""

import csv
import io
import json
import os
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

METHODS = ("smote", "round-trip", "real-gen@num_inference_steps=1", "real-guidance@num_inference_steps=10")


def pixels(seed, size=(20, 16), channels=3):
    "Coloured blocks, different for every seed."
    draw = np.random.default_rng([seed, 99])
    blocks = draw.integers(0, 256, (8, 8, channels)).astype(np.uint8)
    array = np.kron(blocks, np.ones((4, 4, 1))).astype(np.uint8)[: size[1], : size[0]]
    return array[:, :, 0] if channels == 1 else array


def save(path, seed, size=(20, 16), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "P": 3, "CMYK": 4, "I;16": 1}[mode]
    array = pixels(seed, size, channels)
    image = (
        Image.fromarray(array.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(array, mode if mode == "CMYK" else None)
    )
    (image.quantize(16) if mode == "P" else image).save(path, **options)


def classes(root, names, each=3, seed=0, suffix=".png", stem="{}", **options):
    "Class folders with pictures; `each` is a number or one per class."
    counts = [each] * len(names) if isinstance(each, int) else each
    for row, (name, count) in enumerate(zip(names, counts)):
        for number in range(count):
            save(root / name / (stem.format(number) + suffix), 1000 * seed + 50 * row + number, **options)


def parts(root, names, train=3, test=2, val=0, spelling=("train", "val", "test"), **options):
    for seed, (part, count) in enumerate(zip(spelling, (train, val, test))):
        if count:
            classes(root / part, names, count, seed=10 + seed, **options)


def table(
    root,
    splits,
    columns=("path", "patient_id", "kiwi", "plum"),
    delimiter=",",
    encoding="utf-8",
    folder="",
    below="",
    patients=True,
):
    "A label table per split and its pictures."
    number = 0
    for split, (name, count) in splits.items():
        rows = []
        for position in range(count):
            save(root / below / f"{split}{position}.png", 7000 + number)
            rows.append(
                [
                    f"{split}{position}.png",
                    f"{split}-{position // 2}",
                    int(position % 3 != 1),
                    int(position % 3 != 0),
                ]
            )
            number += 1
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=delimiter).writerows(
                [
                    columns if patients else [columns[0], *columns[2:]],
                    *(rows if patients else [[row[0], *row[2:]] for row in rows]),
                ]
            )


def _mixed(root):
    classes(root, ("ant", "bee"), 2)
    save(root / "ant" / "grey.png", 90, mode="L")
    save(root / "ant" / "alpha.png", 91, mode="RGBA")
    save(root / "bee" / "palette.gif", 92, mode="P")
    save(root / "bee" / "print.jpg", 93, mode="CMYK")


def _rotated(root):
    classes(root, ("ant", "bee"), 2)
    for number in range(3):
        exif = Image.Exif()
        exif[0x0112] = (3, 6, 8)[number]
        save(root / "ant" / f"turned{number}.jpg", 80 + number, size=(24, 12), exif=exif, quality=95)


def _links(root):
    classes(root, ("ant", "bee"), 3)
    os.symlink("0.png", root / "ant" / "same.png")


def _junk(root):
    classes(root, ("ant", "bee"), 3)
    for name in ("Thumbs.db", ".DS_Store", "._0.png", "notes.txt"):
        (root / "ant" / name).write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    save(root / "cover.png", 95)


def _missing_test(root):
    parts(root, ("ant", "bee"))
    classes(root / "train", ("cow",), 3, seed=30)


def _linked_root(root):
    home = root.parent / "elsewhere"
    parts(home, ("ant", "bee"))
    os.symlink(home, root)


LAYOUTS = {
    "flat": lambda root: classes(root, ("ant", "bee")),
    "three classes": lambda root: classes(root, ("ant", "bee", "cow"), 4),
    "train and test": lambda root: parts(root, ("ant", "bee")),
    "three parts": lambda root: parts(root, ("ant", "bee", "cow"), val=2),
    "other spellings": lambda root: parts(
        root, ("ant", "bee"), val=2, spelling=("Training", "VALID", "Testing")
    ),
    "spaces": lambda root: classes(root, ("great tit", "house  sparrow"), stem="my photo {}"),
    "prefixes": lambda root: classes(root, ("cat", "cat-wild", "cat wild")),
    "prefixes in parts": lambda root: parts(root, ("cat", "cat-wild", "cat.wild")),
    "unicode": lambda root: classes(root, ("Äpfel", "果物", "груша"), stem="bild ü{}"),
    "decomposed accents": lambda root: classes(
        root, (unicodedata.normalize("NFD", "pêche"), "prune"), stem=unicodedata.normalize("NFD", "é{}")
    ),
    "digits": lambda root: classes(root, ("0", "1", "2")),
    "natural order": lambda root: classes(root, ("a1", "a2", "a10")),
    "numbered names": lambda root: classes(root, ("001.Owl", "002.Wren")),
    "reserved names": lambda root: classes(root, ("CON", "a:b", "nul")),
    "capitals": lambda root: classes(root, ("Zebra", "ant", "Bee")),
    "percent and marks": lambda root: classes(root, ("50% off", "what's this", "a+b=c")),
    "long names": lambda root: classes(root, ("x" * 120, "y" * 120)),
    "unequal": lambda root: classes(root, ("ant", "bee", "cow"), (5, 2, 2)),
    "one picture in a class": lambda root: classes(root, ("ant", "bee"), (3, 1)),
    "one picture each": lambda root: classes(root, ("ant", "bee", "cow"), 1),
    "unequal parts": lambda root: (
        classes(root / "train", ("ant", "bee"), (6, 2)),
        classes(root / "test", ("ant", "bee"), 2, seed=5),
    ),
    "class without test": _missing_test,
    "grey": lambda root: classes(root, ("ant", "bee"), mode="L"),
    "transparent": lambda root: classes(root, ("ant", "bee"), mode="RGBA"),
    "palette": lambda root: classes(root, ("ant", "bee"), mode="P"),
    "sixteen bits": lambda root: classes(root, ("ant", "bee"), mode="I;16"),
    "jpeg": lambda root: parts(root, ("ant", "bee"), suffix=".jpg", quality=90),
    "webp and tiff": lambda root: (
        classes(root, ("ant",), suffix=".webp"),
        classes(root, ("bee",), seed=3, suffix=".TIFF"),
    ),
    "mixed kinds": _mixed,
    "turned by EXIF": _rotated,
    "sizes": lambda root: (
        classes(root, ("ant",), size=(12, 24)),
        classes(root, ("bee",), seed=3, size=(24, 13)),
    ),
    "sub-folders": lambda root: (
        classes(root, ("ant/2020", "ant/2021", "bee/2020")),
        classes(root, ("bee",), 1, seed=4),
    ),
    "deep sub-folders": lambda root: parts(root, ("ant/a/b", "ant/a/c", "bee/x")),
    "names of parts as classes": lambda root: classes(root, ("train", "bus", "tram")),
    "link inside": _links,
    "link to the folder": _linked_root,
    "junk": _junk,
    "table": lambda root: table(root, {"train": ("train.csv", 6), "test": ("test.csv", 4)}),
    "table with semicolons": lambda root: table(
        root,
        {"train": ("fruit_train.csv", 6), "val": ("fruit_dev.csv", 3), "test": ("fruit_test.csv", 4)},
        delimiter=";",
        encoding="utf-8-sig",
        folder="tables",
        below="files",
    ),
    "table without test": lambda root: table(
        root, {"train": ("train.csv", 7)}, columns=("Path", "", "kiwi", "plum"), patients=False
    ),
}


@dataclass(frozen=True)
class Made:
    "A set that `genaug augment` made from a layout."

    name: str
    root: Path  # of the photographs
    source: str  # SOURCE
    out: Path  # OUT
    method: str


def method_of(name):
    "The arms take turns over the corpus; several labels per image are not for all."
    return "round-trip" if name.startswith("table") else METHODS[list(LAYOUTS).index(name) % len(METHODS)]


def build(name, folder):
    "The photographs of a layout: their folder and SOURCE."
    root = Path(folder) / "photos"
    LAYOUTS[name](root)
    return root, f"label-table:{root}" if name.startswith("table") else str(root)


def make(name, folder, run):
    "Build a layout and run `genaug augment` on it; `run` is `genaug.cli.run`."
    root, source = build(name, folder)
    out = Path(folder) / "out"
    code = run(["augment", source, str(out), "--method", method_of(name), "--copies", "1", "--quiet"])
    assert code == 0, f"augment on '{name}' with {method_of(name)} ended with {code}"
    return Made(name, root, source, out, method_of(name))


# ---- ten ways to spoil a set: each takes a copy of it, changes it, and gives back what it did


def records(made):
    return [
        json.loads(line)
        for line in (made.out / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def rewrite(made, lines):
    (made.out / "train" / "metadata.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )


def plan_lines(made):
    return [json.loads(line) for line in (made.out / "plan.jsonl").read_text(encoding="utf-8").splitlines()]


def rewrite_plan(made, lines):
    (made.out / "plan.jsonl").write_text(
        "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines), encoding="utf-8"
    )


def photograph(made, part):
    "A photograph of a part as an array, or of any part there is."
    from genaug.data.sources import examine_source, formats

    sets = examine_source(made.source, formats=formats()).sets
    images = sets.get(part) or next(iter(sets.values()))
    return images.image(0)


def replaced_by_a_training_photograph(made):
    Image.fromarray(np.squeeze(photograph(made, "train"))).save(
        made.out / "train" / records(made)[0]["file_name"]
    )


def replaced_by_a_test_photograph(made):
    Image.fromarray(np.squeeze(photograph(made, "test"))).save(
        made.out / "train" / records(made)[-1]["file_name"]
    )


def one_value_changed(made):
    path = made.out / "train" / records(made)[0]["file_name"]
    array = np.array(Image.open(path))
    array.reshape(-1)[5] ^= 1
    Image.fromarray(array).save(path)


def moved_to_another_class(made):
    record = records(made)[0]
    others = sorted(
        {Path(line["file_name"]).parent.as_posix() for line in records(made)}
        - {Path(record["file_name"]).parent.as_posix()}
    ) or ["other"]
    target = made.out / "train" / others[0] / Path(record["file_name"]).name
    target.parent.mkdir(exist_ok=True)
    (made.out / "train" / record["file_name"]).rename(target)


def label_changed_in_the_metadata(made):
    lines = records(made)
    lines[0]["labels"] = [
        1 - value if lines[0]["task"] == "multi" else value for value in lines[0]["labels"]
    ][:: 1 if lines[0]["task"] == "multi" else -1]
    if lines[0]["labels"] == records(made)[0]["labels"]:  # three classes, the middle one
        lines[0]["labels"] = [1.0, *[0.0] * (len(lines[0]["labels"]) - 1)]
    if lines[0]["task"] == "single":
        lines[0]["label"] = int(np.argmax(lines[0]["labels"]))
    rewrite(made, lines)


def blank_picture(made):
    path = made.out / "train" / records(made)[0]["file_name"]
    Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)


def photograph_changed_afterwards(made):
    source = records(made)[0]["info"]
    sources = json.loads(source)["sources"] if source else []
    name = sources[0][0] if sources else next(iter(plan_lines(made)[0]["sources"]))
    path = next(
        path
        for path in made.root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and unicodedata.normalize("NFC", path.relative_to(made.root).as_posix()) == name
    )
    remaining = io.BytesIO()
    Image.fromarray(pixels(31337)).save(
        remaining,
        {".jpg": "JPEG", ".webp": "WEBP", ".tiff": "TIFF", ".gif": "GIF"}.get(path.suffix.lower(), "PNG"),
    )
    path.write_bytes(remaining.getvalue())


def extra_file(made):
    first = records(made)[0]["file_name"]
    Image.fromarray(pixels(4242)).save(made.out / "train" / Path(first).parent / "one_more.png")


def missing_file(made):
    (made.out / "train" / records(made)[-1]["file_name"]).unlink()


def foreign_input_in_the_plan(made):
    lines = plan_lines(made)
    lines[1]["inputs"] = [["test/secret.png", 1.0]]
    rewrite_plan(made, lines)


def fitted_on_another_set(made):
    lines = records(made)
    info = json.loads(lines[0]["info"])
    info["fitted_on"] = "0" * 64
    lines[0]["info"] = json.dumps(info, sort_keys=True)
    rewrite(made, lines)


def duplicated_row(made):
    lines = records(made)
    first, second = (made.out / "train" / lines[position]["file_name"] for position in (0, 1))
    shutil.copy(first, second)


WRONGS = (
    replaced_by_a_training_photograph,
    replaced_by_a_test_photograph,
    one_value_changed,
    moved_to_another_class,
    label_changed_in_the_metadata,
    blank_picture,
    photograph_changed_afterwards,
    extra_file,
    missing_file,
    foreign_input_in_the_plan,
    fitted_on_another_set,
    duplicated_row,
)


def copy(made, folder):
    "The same set and photographs somewhere else (links stay links), to be spoiled."
    folder = Path(folder)
    shutil.copytree(made.out, folder / "out", symlinks=True)
    shutil.copytree(made.root.resolve(), folder / "photos", symlinks=True)
    note = folder / "out" / ".genaug" / "run.json"
    source = made.source.replace(str(made.root), str(folder / "photos"))
    note.write_text(
        json.dumps(json.loads(note.read_text(encoding="utf-8")) | {"source": source}, ensure_ascii=False),
        encoding="utf-8",
    )
    return Made(made.name, folder / "photos", source, folder / "out", made.method)
