"""Write the files that `test_safety_net.py` compares with, once and by hand: `python
tests/make_safety_net.py`.

The files in `tests/safety/` were made on commit 564de8b. They say what that code makes, and are only
replaced on purpose: whoever changes one changes what users' stored work is
worth, and says so. Without an option nothing that exists is overwritten; `--add` writes what is missing (a
new method, say); `--replace` makes everything anew.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(name, value)

import safety_world as world
from PIL import Image
from safety_world import SAFETY

from genaug.arms import make_arm
from genaug.cli import run


def write_table(name, keys, make, replace):
    "A JSON file of one entry per key; entries that are there stay."
    path = SAFETY / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not replace else {}
    table = old | {key: make(key) for key in keys if key not in old}
    lines = ",\n".join(
        f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in table.items()
    )
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def write_picture(path, make, replace):
    if replace or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make()).save(path, optimize=True)


def write_zip(name, fill, replace):
    "A zip of what `fill` puts into a folder."
    path = SAFETY / f"{name}.zip"
    if replace or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder) / "made")
            world.pack(Path(folder) / "made", path)


def begin(name, out):
    """A set by the command line, then half of its pictures and all that is written at the end taken away;
    what was taken away is put on record."""
    assert run(world.command(world.COMMANDS[name], out)) == 0
    for folder in list(out.rglob("checkpoint")):
        shutil.rmtree(folder)  # large, and of no use once a concept is complete
    record = world.finished_record(out)
    taken = record["files"][::2]
    write_picture(
        SAFETY / f"out-{name}-missing.png",
        lambda: world.strip([world.read_strip(out / "train" / file) for file in taken]),
        True,
    )
    (SAFETY / f"out-{name}.json").write_text(
        json.dumps({"command": world.COMMANDS[name], "taken": taken, **record}, ensure_ascii=False, indent=1)
        + "\n",
        encoding="utf-8",
    )
    for file in (
        *(f"train/{file}" for file in taken),
        "train/metadata.jsonl",
        "train/classes.json",
        ".genaug/decisions.jsonl",
        ".genaug/run.json",
    ):
        (out / file).unlink(missing_ok=True)


def compare(out):
    "A finished comparison, without its report."
    assert run(world.command(world.COMMANDS["compare"], out)) == 0
    (SAFETY / "out-compare.json").write_text(
        json.dumps({"command": world.COMMANDS["compare"]}, indent=1) + "\n", encoding="utf-8"
    )
    for path in (*out.glob("report*"), out / "figures"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main(options):
    replace = "--replace" in options
    if SAFETY.exists() and any(SAFETY.iterdir()) and not replace and "--add" not in options:
        sys.exit(
            f"{SAFETY} is not empty: its files say what commit 564de8b made. Use --add for what is "
            "missing, --replace to make all anew on purpose."
        )
    SAFETY.mkdir(exist_ok=True)
    arms = world.arm_texts()
    write_table("arms", arms, lambda text: world.arm_record(text) | {"unit": world.unit_key(text)}, replace)
    write_table(
        "plans",
        [text for text in arms if make_arm(text).augmenter is not None and "+" not in text],
        world.plan_record,
        replace,
    )
    write_table(
        "feeds",
        list(world.feeds()),
        lambda name: {task: world.feed_record(name, task) for task in ("single", "multi")},
        replace,
    )
    write_table(
        "mixtures",
        world.mixture_texts(),
        lambda name: [[round(value, 6) for value in row] for row in world.mixture(name)[1].tolist()],
        replace,
    )
    for name in world.mixture_texts():
        write_picture(world.mixture_file(name), lambda name=name: world.mixture(name)[0], replace)
    for name, kind in world.picture_names():
        write_picture(
            SAFETY / "pictures" / kind / f"{name}.png",
            lambda name=name, kind=kind: world.painted(name, kind),
            replace,
        )
    for kind in world.CONCEPTS:
        write_zip(f"concepts/{kind}", lambda out, kind=kind: world.learn(kind).save(out), replace)
    write_table("trainings", list(world.trainings()), training_record, replace)
    write_table("embedded", ["record"], lambda key: world.embedded_record(), replace)
    write_table("processor", ["schedule"], lambda key: world.schedule_print(), replace)
    for name in ("augment", "learned"):
        write_zip(f"out-{name}", lambda out, name=name: begin(name, out), replace)
    write_zip("out-compare", compare, replace)
    print(
        f"{sum(path.stat().st_size for path in SAFETY.rglob('*') if path.is_file()) / 1e3:.0f} kB in "
        f"{SAFETY.relative_to(Path.cwd()) if SAFETY.is_relative_to(Path.cwd()) else SAFETY}"
    )


def training_record(name):
    given = [world.answers(name, seed) for seed in range(3)]
    return {"accuracies": [round(world.share_right(text), 4) for text in given], "answers": given}


if __name__ == "__main__":
    main(sys.argv[1:])
