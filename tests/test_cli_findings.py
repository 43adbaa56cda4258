"""Findings have one channel on all commands: the terminal, the folder, and one JSON object."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from test_refusals_first import paint_folder

import genaug.cli as cli
from genaug.commands.reproduce import own_kernel
from genaug.commands.terminal import Refusal, Terminal
from genaug.data import sources


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Two classes; one picture occurs twice, one name moves the cursor, one class is a code."
    root = paint_folder(
        tmp_path_factory.mktemp("findings") / "my photos", ("train", "test"), ("owl\x1b[2J", "n01440764")
    )
    shutil.copy(root / "train" / "n01440764" / "0.png", root / "train" / "n01440764" / "copy.png")
    return root


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    "A finished set, what the command printed, and its folder."
    out, heard = tmp_path_factory.mktemp("made") / "a set", io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", heard)
        code = cli.run(["augment", str(photos), str(out), "--method", "smote", "--copies", "1", "--quiet"])
    return code, heard.getvalue(), out


def run_json(capsys, *arguments):
    "Exit code and the one JSON object of a command."
    code = cli.run([str(argument) for argument in arguments])
    return code, json.loads(capsys.readouterr().out)


def kinds(findings):
    return {finding["kind"] for finding in findings}


def test_check_prints_one_object(photos, capsys):
    code, record = run_json(capsys, "check", photos, "--json", "--quiet")
    assert code == 0
    assert record["command"] == "check"
    assert record["counts"]["n01440764"] == {"train": 4, "test": 3}
    assert "duplicate" in kinds(record["findings"])


@pytest.mark.parametrize(
    "source",
    [
        "digits",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("digit-scenes", "textures", "many-digits", "lesions")
        ),
    ],
)
def test_check_answers_alike_for_built_in_names(source, capsys):
    code, record = run_json(capsys, "check", source, "--json")
    assert code == 0
    assert len(record["counts"]) >= 2
    assert all(isinstance(count, int) for parts in record["counts"].values() for count in parts.values())


def test_errors_of_check_end_with_code_two_and_stand_in_the_object(photos, capsys, tmp_path):
    shutil.copytree(photos, tmp_path / "bad")
    (tmp_path / "bad" / "train" / "n01440764" / "0.png").write_text("no picture")
    code, record = run_json(capsys, "check", tmp_path / "bad", "--json", "--quiet")
    assert code == 2
    assert any(
        finding["severity"] == "error" and "0.png" in finding["where"] for finding in record["findings"]
    )
    assert record["next"] is None


def test_a_refusal_stands_in_the_object_and_on_standard_error(capsys, tmp_path):
    code = cli.run(["augment", "digits", str(tmp_path / "out"), "--method", "diff-i", "--json"])
    heard = capsys.readouterr()
    assert code == 2
    assert kinds(json.loads(heard.out)["findings"]) == {"refused"}
    assert "did you mean 'diff-ii'" in heard.err


def test_what_was_found_before_a_refusal_is_in_the_object_too(capsys, tmp_path):
    code, record = run_json(
        capsys,
        "augment",
        "digits",
        tmp_path / "out",
        "--method",
        "smote",
        "--metaclass",
        "digit",
        "--shots",
        "1",
        "--copies",
        "0.01",
        "--json",
        "--quiet",
    )
    assert code == 2
    assert {"refused", "no-effect"} <= kinds(record["findings"])


def test_check_of_a_label_table_names_its_labels(tmp_path, capsys):
    draw = np.random.default_rng(1)
    lines = ["image,age,cough,fever"]
    for number in range(8):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{(number // 2) % 2},{(number // 4) % 2}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    code = cli.run(["check", f"label-table:{tmp_path}", "--quiet"])
    text = capsys.readouterr().out
    assert code == 0
    assert all(name in text for name in ("age", "cough", "fever"))


def test_findings_of_augment_are_printed_and_kept(made):
    code, text, out = made
    assert code == 0
    assert "is a copy of" in text
    assert "duplicate" in kinds(json.loads((out / "findings.json").read_text())["findings"])


def test_notes_stay_in_the_record_of_the_run(made):
    assert json.loads((made[2] / ".genaug" / "run.json").read_text())["condition"] == "natural"


def test_no_control_character_of_a_class_name_reaches_the_terminal(made):
    assert "\x1b" not in made[1]
    assert "owl\\x1b[2J" in made[1]


def test_augment_prints_one_object(photos, capsys, tmp_path):
    code, record = run_json(
        capsys, "augment", photos, tmp_path / "out", "--method", "smote", "--copies", "1", "--quiet", "--json"
    )
    assert code == 0
    assert record["images"] == 7
    assert record["counts"]["n01440764"] == 4


def test_compare_prints_one_object_and_keeps_its_findings(capsys, tmp_path):
    code, record = run_json(
        capsys,
        "compare",
        "digits",
        "--methods",
        "original,mixup",
        "--replace",
        "0.3",
        "--shots",
        "2",
        "--seeds",
        "1",
        "--repeats",
        "1",
        "--updates",
        "2",
        "--out",
        tmp_path / "out",
        "--quiet",
        "--json",
    )
    assert code == 0
    assert [line["arm"] for line in record["summary"]] == ["original", "mixup"]
    assert "no-effect" in kinds(record["findings"])
    assert "no-effect" in kinds(json.loads((tmp_path / "out" / "findings.json").read_text())["findings"])


def test_a_second_comparison_says_which_other_arms_are_in_the_file(capsys, tmp_path):
    quick = [
        "--shots",
        "2",
        "--seeds",
        "1",
        "--repeats",
        "1",
        "--updates",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert cli.run(["compare", "digits", "--methods", "original,mixup", *quick]) == 0
    assert cli.run(["compare", "digits", "--methods", "original,cutmix", *quick]) == 0
    assert "mixup" in capsys.readouterr().out.rsplit("cutmix", 1)[1]
    assert "mixup" in (tmp_path / "out" / "results.csv").read_text()


def test_audit_prints_one_object(made, capsys):
    code, record = run_json(capsys, "audit", made[2], "--json")
    assert code == 0
    assert {row["check"] for row in record["rows"]} >= {"sources_are_training", "no_test_source"}
    assert not any(finding["severity"] == "error" for finding in record["findings"])


def test_audit_of_moved_photographs(made, photos, capsys, tmp_path):
    shutil.copytree(made[2], tmp_path / "set")
    shutil.copytree(photos, tmp_path / "moved")
    note = tmp_path / "set" / ".genaug" / "run.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"source": str(tmp_path / "gone")}))
    assert cli.run(["audit", str(tmp_path / "set")]) == 2
    assert "name their folder with --source" in capsys.readouterr().err
    assert cli.run(["audit", str(tmp_path / "set"), "--source", str(tmp_path / "moved")]) == 0


@pytest.mark.parametrize("content", ["", "[]", "{", '{"source": 3}', "[" * 5000])
def test_audit_with_a_damaged_note(content, made, capsys, tmp_path):
    shutil.copytree(made[2], tmp_path / "set")
    (tmp_path / "set" / ".genaug" / "run.json").write_text(content)
    assert cli.run(["audit", str(tmp_path / "set")]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_audit_of_a_set_made_through_the_api(made, photos, capsys, tmp_path):
    shutil.copytree(made[2], tmp_path / "set")
    (tmp_path / "set" / ".genaug" / "run.json").unlink()
    assert cli.run(["audit", str(tmp_path / "set")]) == 2
    assert "--source" in capsys.readouterr().err
    assert cli.run(["audit", str(tmp_path / "set"), "--source", str(photos)]) == 0


def test_audit_of_an_unfinished_set(made, capsys, tmp_path):
    shutil.copytree(made[2], tmp_path / "set")
    (tmp_path / "set" / "train" / "metadata.jsonl").unlink()
    assert cli.run(["audit", str(tmp_path / "set")]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_audit_of_a_comparison_names_a_set_of_it(capsys, tmp_path):
    (tmp_path / "comparison.json").write_text("{}")
    assert cli.run(["audit", str(tmp_path)]) == 2
    assert "holds a comparison" in capsys.readouterr().err


def test_the_next_command_is_quoted_and_works(photos, capsys, tmp_path):
    import shlex

    assert cli.run(["check", str(photos), "--quiet"]) == 0
    command = capsys.readouterr().out.rsplit("Next: ", 1)[1].strip()
    assert shlex.split(command)[:3] == ["genaug", "compare", str(photos)]


def test_there_is_no_next_command_for_data_without_training_pictures(capsys, tmp_path):
    paint_folder(tmp_path / "set", ("test",))
    code, record = run_json(capsys, "check", tmp_path / "set", "--json", "--quiet")
    assert record["next"] is None


def test_a_terminal_without_the_characters_does_not_stop_a_command(photos, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    monkeypatch.setattr(
        sources, "examine_source", lambda *_, **__: (_ for _ in ()).throw(Refusal("Blaumeise é."))
    )
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert cli.run(["check", "digits"]) == 2
    Terminal("check").say("Ω")
    assert sys.stdout.errors == "strict"


def test_a_full_terminal_is_a_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.run(["check", "digits"]) == 2
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.close()
    assert "No space left" in capsys.readouterr().err


def test_a_kernel_registered_by_others_is_not_used(tmp_path, monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager

    foreign = tmp_path / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "foreign", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with own_kernel() as name:
        assert KernelSpecManager().get_kernel_spec(name).argv[0] == sys.executable
        assert name not in ("python3", "python")
    import os

    assert os.environ["JUPYTER_PATH"] == str(tmp_path)


@pytest.mark.long
def test_a_table_runs_in_the_python_of_the_command(tmp_path, monkeypatch):
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "foreign", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert cli.run(["reproduce", "diff_ii_main_job", "--no-run", "--out", str(tmp_path / "out")]) == 0


def test_a_missing_kernel_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel_launcher", None)
    assert cli.run(["reproduce", "diff_ii_main_job"]) == 2
    assert "ipykernel" in capsys.readouterr().err


def test_fewer_images_than_asked_for_are_named_and_accepted_only_if_asked(capsys, tmp_path):
    arguments = [
        "augment",
        "digits",
        "OUT",
        "--method",
        "real-filter@rounds=1;num_inference_steps=2",
        "--shots",
        "2",
        "--copies",
        "1",
        "--quiet",
    ]
    strict = cli.run([*arguments[:2], str(tmp_path / "a"), *arguments[3:]])
    heard = capsys.readouterr()
    if strict == 2:
        assert "turned down" in heard.err
        assert cli.run([*arguments[:2], str(tmp_path / "b"), *arguments[3:], "--allow-fewer"]) == 0
        assert "classes got fewer images than asked for" in capsys.readouterr().out
