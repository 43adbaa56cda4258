"""The command line: every mistake is one sentence with exit code 2; the commands do what they say."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_pipeline import random_pipeline

from genaug import __version__
from genaug.cli import explain, run
from genaug.commands.effort import find_table
from genaug.messages import GenaugError

ROOT = Path(__file__).resolve().parent.parent
QUICK = [
    "--shots",
    "2",
    "--seeds",
    "1",
    "--repeats",
    "1",
    "--updates",
    "2",
    "--classifier-weights",
    "random",
    "--quiet",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "A plain folder: two classes (one with blanks and accents in its name), train and test, several formats."
    root, draw = tmp_path_factory.mktemp("cli") / "my photos", np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for index, name in enumerate(("Blaumeise é", "wren")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                array = (60 + 90 * index + draw.integers(0, 40, (20, 16 + number, 3))).astype(np.uint8)
                Image.fromarray(array).save(root / part / name / f"{number}.{'jpg' if number % 2 else 'png'}")
    return root


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    "A real model folder of the smallest kind."
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    random_pipeline().save_pretrained(folder)
    return str(folder)


def sentence(capsys):
    "What stands on standard error: exactly one line that begins with genaug."
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert lines[0].startswith("genaug: "), text
    assert lines[0].endswith((".", "?", ")")), text
    assert "Traceback" not in text, text
    return lines[0]


MISTAKES = {
    "unknown command": (["agument", "x", "y"], "No such command 'agument'"),
    "missing argument": (["augment"], "Missing argument 'SOURCE'"),
    "unknown option": (["check", "digits", "--sede", "3"], "No such option"),
    "no number": (["augment", "digits", "OUT", "--copies", "many"], "--copies is a number above 0"),
    "negative seed": (["augment", "digits", "OUT", "--seed", "-1"], "--seed is a whole number from 0"),
    "unknown source": (["check", "digit-scense"], "did you mean the built-in 'digit-scenes'"),
    "no such folder": (["augment", "no/such/folder", "OUT"], "does not exist"),
    "unknown format": (["check", "cube:/data"], "not a known format"),
    "known format, no folder": (["check", "cub:/no/such/data"], "does not exist"),
    "unknown method": (["augment", "digits", "OUT", "--method", "diff-i"], "did you mean 'diff-ii'"),
    "mixer as augmenter": (["augment", "digits", "OUT", "--method", "mixup"], "makes no images"),
    "balancer behind an augmenter": (
        ["augment", "digits", "OUT", "--method", "round-trip+drw"],
        "works while a classifier trains",
    ),
    "budget in the method": (
        ["augment", "digits", "OUT", "--method", "smote@fill=true"],
        "Say how many images with --copies",
    ),
    "two budgets": (
        ["augment", "digits", "OUT", "--method", "smote", "--fill", "--total", "9"],
        "Give one of --fill, --even and --total",
    ),
    "unknown use": (["compare", "digits", "--out", "OUT", "--use", "swapping"], "There is no use 'swapping'"),
    "two methods": (["augment", "digits", "OUT", "--method", "round-trip,diff-ii"], "one method"),
    "unknown field": (
        ["augment", "digits", "OUT", "--method", "diff-ii@guidance=3"],
        "has no field 'guidance'",
    ),
    "unknown condition": (
        ["augment", "digits", "OUT", "--method", "round-trip", "--condition", "sunny"],
        "no condition 'sunny'",
    ),
    "shots": (["compare", "digits", "--shots", "few", "--out", "OUT"], "--shots is a number"),
    "shots and imbalance": (
        ["compare", "digits", "--imbalance", "10", "--out", "OUT"],
        "--shots none together with --imbalance",
    ),
    "seeds": (["compare", "digits", "--seeds", "3-", "--out", "OUT"], "--seeds is a count"),
    "no repeats": (
        ["compare", "digits", "--repeats", "0", "--out", "OUT"],
        "--repeats is a whole number from 1",
    ),
    "replace": (
        ["compare", "digits", "--replace", "2", "--out", "OUT"],
        "--replace is a number of at least 0 and at most 1",
    ),
    "suffix file": (["compare", "digits", "--suffixes", "nowhere.txt", "--out", "OUT"], "does not exist"),
    "classifier": (
        [
            "compare",
            "digits",
            "--methods",
            "original",
            "--classifier",
            "resnet51",
            "--seeds",
            "1",
            "--out",
            "OUT",
            "--quiet",
        ],
        "no network 'resnet51'",
    ),
    "backbone": (
        [
            "compare",
            "digits",
            "--methods",
            "round-trip",
            "--backbone",
            "no/such/model/folder",
            "--out",
            "OUT",
            "--quiet",
        ],
        "no/such/model/folder",
    ),
    "report of nothing": (["report", "nothing"], "does not exist"),
    "audit of nothing": (["audit", "nothing"], "holds no plan"),
    "unknown table": (["reproduce", "table_nine"], "There is no table 'table_nine'"),
    "scale": (["reproduce", "diff_ii_main_job", "--scale", "week"], "seconds, hour or paper"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, capsys, tmp_path, monkeypatch):
    arguments, words = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "OUT" / "train").exists()
    assert not (tmp_path / "OUT" / "results.csv").exists()


def test_a_device_that_is_not_there(capsys, tmp_path, pipeline):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    assert (
        run(
            [
                "augment",
                "digits",
                str(tmp_path / "out"),
                "--method",
                "round-trip",
                "--backbone",
                pipeline,
                "--device",
                "cuda",
            ]
        )
        == 2
    )
    assert "cuda" in sentence(capsys).lower()


@pytest.mark.parametrize("command", ["augment", "compare"])
def test_a_folder_in_use_is_refused_and_left_alone(command, capsys, tmp_path, photos):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    options = [str(tmp_path / "out")] if command == "augment" else ["--out", str(tmp_path / "out")]
    assert run([command, str(photos), *options]) == 2
    assert "not empty" in sentence(capsys)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("command", ["augment", "compare"])
def test_a_file_as_result_folder_is_refused(command, capsys, tmp_path, photos):
    (tmp_path / "out").write_text("")
    assert (
        run(
            [
                command,
                str(photos),
                *([str(tmp_path / "out")] if command == "augment" else ["--out", str(tmp_path / "out")]),
            ]
        )
        == 2
    )
    assert "is a file" in sentence(capsys)


def test_faults_of_the_program_are_not_blamed_on_the_user(monkeypatch, capsys):
    from genaug.data import sources

    monkeypatch.setattr(sources, "check_folder", lambda *_, **__: 1 / 0)
    assert run(["check", "."]) == 1
    assert "Fault of the program (ZeroDivisionError" in sentence(capsys)
    monkeypatch.setenv("GENAUG_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["check", "."])


@pytest.mark.parametrize(
    "error, code, words",
    [
        (KeyboardInterrupt(), 130, "same command again"),
        (MemoryError(), 2, "--batch-size"),
        (PermissionError(13, "Permission denied", "x"), 2, "Permission denied"),
        (GenaugError("a\n  b"), 2, "a b"),
        (RuntimeError("x" * 9999), 1, "report it"),
    ],
)
def test_what_is_said_about_an_error(error, code, words):
    text, given = explain(error)
    assert given == code
    assert words in text
    assert "\n" not in text
    assert len(text) < 500


def test_help_answers_at_once_and_names_every_command():
    began = time.process_time()
    usage = os.times().children_user
    shown = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import sys; from genaug.cli import main; sys.argv = ['genaug', '--help']; main()",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert shown.returncode == 0
    assert all(
        name in shown.stdout for name in ("check", "augment", "compare", "report", "reproduce", "audit")
    )
    assert not re.search(
        r"\| +(torch|diffusers|transformers|timm|pandas|matplotlib|numpy)$", shown.stderr, re.MULTILINE
    )
    assert os.times().children_user - usage < 1.5
    assert time.process_time() - began < 1


@pytest.mark.parametrize("command", ["check", "augment", "compare", "report", "reproduce", "audit"])
def test_every_command_has_help(command, capsys):
    assert run([command, "--help"]) == 0
    assert "Usage: genaug" in capsys.readouterr().out


def test_check_names_faults_and_the_next_step(photos, capsys, tmp_path):
    assert run(["check", str(photos), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "0 errors" in text
    assert "Next: genaug compare" in text
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.png").write_bytes(b"nothing")
    assert run(["check", str(tmp_path / "set"), "--quiet"]) == 2
    assert "is not a picture" in capsys.readouterr().out


def test_augment_report_audit(photos, capsys, tmp_path, pipeline):
    out = tmp_path / "new" / "set"
    assert (
        run(
            [
                "augment",
                str(photos),
                str(out),
                "--method",
                "round-trip",
                "--copies",
                "2",
                "--backbone",
                pipeline,
                "--metaclass",
                "bird",
                "--quiet",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "Estimated cost" in text
    assert "'a photo of a wren bird'" in text
    assert "16 images" in text
    record = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    assert len(record) == 16
    assert all(line["sources"][0].startswith("train/") for line in record)
    assert (
        run(
            [
                "augment",
                str(photos),
                str(out),
                "--method",
                "round-trip",
                "--copies",
                "2",
                "--backbone",
                pipeline,
                "--metaclass",
                "bird",
                "--quiet",
            ]
        )
        == 0
    )  # finished: nothing to do
    capsys.readouterr()
    assert (
        run(
            [
                "augment",
                str(photos),
                str(out),
                "--method",
                "round-trip",
                "--copies",
                "3",
                "--backbone",
                pipeline,
                "--metaclass",
                "bird",
                "--quiet",
            ]
        )
        == 2
    )
    assert "the budget changed" in sentence(capsys)
    assert run(["report", str(out)]) == 0
    assert (out / "report.html").is_file()
    assert run(["audit", str(out)]) == 0
    assert "Every source is a training image" in capsys.readouterr().out


def test_own_photographs_with_the_toy_backbone_are_told_the_truth(photos, capsys, tmp_path):
    assert (
        run(
            [
                "augment",
                str(photos),
                str(tmp_path / "set"),
                "--method",
                "round-trip",
                "--copies",
                "1",
                "--quiet",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "knows only its own small world" in text
    assert "--backbone" in text
    assert {Image.open(path).size for path in (tmp_path / "set" / "train").rglob("*.png")} == {(32, 32)}


def test_compare_prints_the_table_and_writes_everything(photos, capsys, tmp_path, pipeline):
    out = tmp_path / "out"
    arguments = [
        "compare",
        str(photos),
        "--methods",
        "original,round-trip,mixup",
        "--backbone",
        pipeline,
        "--copies",
        "1",
        *QUICK,
        "--out",
        str(out),
    ]
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert "minus original" in text
    assert "minus round-trip" in text
    assert "Estimated cost" in text
    assert {"results.csv", "report.html", "comparison.json", "splits", "runs"} <= {
        path.name for path in out.iterdir()
    }
    runs = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    assert run(arguments) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == runs
    assert run([*arguments, "--shots", "1"]) == 2
    assert "the number of shots changed" in sentence(capsys)


def test_a_method_without_suffixes_is_told(photos, capsys, tmp_path, pipeline, monkeypatch):
    from genaug import compare

    monkeypatch.setattr(
        compare, "compare", lambda *_, **__: (_ for _ in ()).throw(GenaugError("Enough seen."))
    )
    assert (
        run(
            [
                "compare",
                str(photos),
                "--methods",
                "diff-ii",
                "--backbone",
                pipeline,
                "--suffixes",
                "none",
                *QUICK,
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "the split ratio has no effect" in capsys.readouterr().out


def test_an_interrupted_augment_continues(photos, tmp_path, pipeline):
    "SIGINT as by Ctrl-C: one sentence, code 130, no finished set; the same command then finishes it."
    out = tmp_path / "set"
    code = (
        "import os, signal, genaug.painting as painting; from genaug.cli import main; whole, sent = "
        "painting.write_atomic, []\n"
        # a background job of a shell inherits that SIGINT is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def write(path, data):\n    whole(path, data)\n    if str(path).endswith('.png') and not "
        "sent: sent.append(1); os.kill(os.getpid(), signal.SIGINT)\n"
        "painting.write_atomic = write; main()"
    )
    arguments = [
        "augment",
        str(photos),
        str(out),
        "--method",
        "round-trip",
        "--copies",
        "1",
        "--backbone",
        pipeline,
        "--quiet",
    ]
    stopped = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert stopped.returncode == 130
    assert "run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    # what was being written is finished, no more
    assert len(list(out.rglob("*.png"))) >= 1
    assert not (out / "train" / "metadata.jsonl").exists()
    assert run(["report", str(out)]) == 2
    assert run(arguments) == 0
    assert len(list((out / "train").rglob("*.png"))) == 8


def test_the_table_notebooks_are_found_in_a_checkout():
    assert find_table("diff_ii_main_job.ipynb").name == "diff_ii_main_job.ipynb"


def test_reproduce_without_papermill_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert run(["reproduce", "diff_ii_main_job"]) == 2
    assert "pip install 'genaug[tables]'" in sentence(capsys)


def test_a_tail_is_filled_and_compared_without_a_generator(capsys, tmp_path):
    out = tmp_path / "set"
    assert (
        run(
            [
                "augment",
                "digits",
                str(out),
                "--method",
                "smote",
                "--imbalance",
                "20",
                "--total",
                "33",
                "--quiet",
            ]
        )
        == 0
    )
    rows = [
        json.loads(line)
        for line in (out / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    counts = [sum(row["class_name"] == name for row in rows) for name in {row["class_name"] for row in rows}]
    assert len(rows) == 33
    assert sorted(counts) == [3] * 7 + [4] * 3
    assert all(row["sources"] for row in rows)
    actual = tmp_path / "compared"
    assert (
        run(
            [
                "compare",
                "digits",
                "--shots",
                "none",
                "--imbalance",
                "20",
                "--methods",
                "original,smote@fill=true,cmo-drw,oversampling+strong-augmentation",
                "--use",
                "append",
                "--seeds",
                "1",
                "--repeats",
                "1",
                "--updates",
                "2",
                "--out",
                str(actual),
                "--quiet",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "cmo+drw" in said
    assert "oversampling+strong-augmentation" in said
    assert "smote@fill=true" in said
    assert "tiny" not in (actual / "results.csv").read_text(encoding="utf-8")  # no backbone was needed


# one plan, declared ranges, methods


def test_a_set_is_planned_once(photos, tmp_path, monkeypatch, capsys):
    """The plan that is counted and shown is the one that is painted; what a method that learns will cost is
    said before it is planned."""
    from genaug.recipe import Recipe

    planned, plain = [], Recipe.plan
    monkeypatch.setattr(Recipe, "plan", lambda self, *rest: planned.append(self.name) or plain(self, *rest))
    begin = ["augment", str(photos), str(tmp_path / "set"), "--copies", "1", "--quiet"]
    assert run([*begin, "--method", "real-guidance@num_inference_steps=3"]) == 0
    assert planned == ["real-guidance"]
    said = capsys.readouterr().out
    assert said.index("Estimated cost") < said.index("First prompts")
    assert "8 images painted" in said
    begin[2] = str(tmp_path / "learned")
    assert run([*begin, "--method", "diff-gen@num_inference_steps=2;naming.steps=1"]) == 0
    assert planned == ["real-guidance", "diff-gen"]
    assert (
        "1 steps of concept learning, 8 images painted (32 denoiser evaluations)" in capsys.readouterr().out
    )


def test_the_ranges_of_options_are_those_of_the_question():
    from genaug.commands.values import declared_ranges
    from genaug.comparison import Comparison
    from genaug.settings import declared

    bounds = {
        field: bound
        for field, (_, bound) in declared(Comparison).items()
        if bound is not None and not bound.words
    }
    read = declared_ranges("comparison", "Comparison")
    assert {field: (bound.low, bound.high, bound.above, bound.below) for field, bound in bounds.items()} == {
        field: tuple(actual) for field, actual in read.items()
    }
    assert {"shots", "copies", "updates", "batch_size", "replace", "test_fraction", "splits"} <= set(read)


@pytest.mark.parametrize(
    "option, text, words",
    [
        ("--batch-size", "65537", "from 1 to 65,536"),
        ("--updates", "0", "from 1 to 100,000,000"),
        ("--copies", "10001", "at most 10,000"),
        ("--shots", "1000001", "from 1 to 1,000,000"),
        ("--seeds", "2147483648,1", "beyond 2,147,483,647"),
        ("--test-share", "1", "below 1"),
    ],
)
def test_the_first_refusals_follow_the_declared_ranges(option, text, words, capsys):
    assert run(["compare", "digits", option, text]) == 2
    assert words in sentence(capsys)


def test_help_says_the_ranges(capsys):
    assert run(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 to 65,536" in text
    assert "above 0 to 10,000" in text


def test_methods_and_their_settings_are_listed(capsys):
    from genaug.registry import method_names

    assert run(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["lines"]
    assert [line["name"] for line in listed] == list(method_names())
    for name in ("original", "diff-ii", "smote", "drw", "feature-space", "mixup+drw"):
        assert run(["methods", name, "--json"]) == 0
        lines = json.loads(capsys.readouterr().out)["lines"]
        assert all(set(line) == {"setting", "allowed", "value", "comment"} for line in lines)
    assert run(["methods", "diff-iii"]) == 2
    assert "did you mean 'diff-ii'" in sentence(capsys)


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"genaug {__version__}\n"
