"""Faults for real: kill, interrupt, fill the disk, damage, change, double, and look whether the finished set
is the uninterrupted one.

    python tools/faults.py [--minutes 25] [--again] [--commands augment] [--only kill,disk] [--out
    tests/faults.json] [--seed 0]

Every trial runs a command of genaug in a child process (forked from this one, which has imported
everything, so that a trial costs its work and not the imports), disturbs it at an event
that was drawn beforehand, and runs the same command again, undisturbed. Each must end finished and equal
to the uninterrupted result, or refused with a sentence and exit code 2. Trials
that are done are kept in the work folder and passed over by the next call, so the harness itself can be
stopped. At the end the counts are printed and written.
"""

import argparse
import csv
import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

AUGMENT = [
    "augment",
    "SRC",
    "OUT",
    "--method",
    "diff-ii@naming.steps=24;num_inference_steps=6;naming.batch_size=1",
    "--shots",
    "2",
    "--copies",
    "2",
    "--quiet",
    "--batch-size",
    "3",
]
GENERATOR = [
    "augment",
    "SRC",
    "OUT",
    "--method",
    "dcgan@steps=12;size=16;width=8;batch_size=4",
    "--shots",
    "none",
    "--copies",
    "1",
    "--quiet",
    "--batch-size",
    "3",
]
COMPARE = [
    "compare",
    "SRC",
    "--methods",
    "original,real-guidance@num_inference_steps=10",
    "--backbone",
    "tiny",
    "--shots",
    "1",
    "--seeds",
    "1",
    "--repeats",
    "1",
    "--copies",
    "1",
    "--updates",
    "12",
    "--no-measure",
    "--out",
    "OUT",
    "--quiet",
]
REPRODUCE = [
    "reproduce",
    "diff_ii_main_job",
    "--scale",
    "seconds",
    "--methods",
    "original,round-trip",
    "--out",
    "OUT",
]
COMMANDS = {"augment": AUGMENT, "generator": GENERATOR, "compare": COMPARE, "reproduce": REPRODUCE}


def code_hash() -> str:
    """Of the package's modules: trials of other code say nothing about this one, so they lie in another
    folder."""
    digest = hashlib.sha256()
    for path in sorted((REPOSITORY / "genaug").rglob("*.py")):
        digest.update(path.relative_to(REPOSITORY).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def prepare() -> None:
    """Import what the commands need, once for all children; nothing is computed here, since the threads of a
    computation do not survive a fork."""
    # noqa: E401, F401
    import peft  # noqa: F401

    # noqa: E401, F401
    import genaug.cli  # noqa: F401
    import genaug.experiment  # noqa: F401
    import genaug.generators.dcgan  # noqa: F401
    import genaug.report  # noqa: F401


def write_source(folder: Path) -> None:
    "Two classes of three pictures each: digits of the built-in set."
    from genaug.datasets import load
    from genaug.pictures import encode_png

    digits = load("digits")["train"]
    for index in (0, 1):
        for number, item in enumerate(
            [position for position, target in enumerate(digits.targets) if target == index][:3]
        ):
            path = folder / digits.class_names[index] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(digits.image(item)))


# ---- events: moments at which a child can be disturbed


def stage_of(path: str) -> str:
    "What a file that is being written belongs to."
    for stage, words in (
        ("inverting", ("/inversions/",)),
        ("learning", ("/checkpoint/", "/concepts/", "/generators/", "/steps/")),
        ("painting", ("/train/",)),
        ("training", ("/runs/", "results.csv")),
    ):
        if any(word in path for word in words):
            return stage
    return "keeping books"


@contextmanager
def events(happened):
    "Call `happened(stage)` before every update of a training and around every file that is put in its place."
    import genaug.training as training

    before = (training.one_update, os.replace, os.fsync)

    def update(*arguments, **options):
        happened("learning")
        return before[0](*arguments, **options)

    def replace(source, target, **options):
        happened(stage_of(str(target)))
        before[1](source, target, **options)
        happened(stage_of(str(target)))

    def fsync(handle):
        happened(
            stage_of(os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}"))
        )
        before[2](handle)

    training.one_update, os.replace, os.fsync = update, replace, fsync
    try:
        yield
    finally:
        training.one_update, os.replace, os.fsync = before


class Child:
    "A command of genaug in a forked process; `at` is the event at which `disturb` is called in it."

    def __init__(self, arguments, cwd: Path, at=None, disturb=None, user=None, record: Path | None = None):
        self.log = cwd / f"log-{time.time_ns()}.txt"
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                code = self.work(arguments, cwd, at, disturb, user, record)
            finally:
                os._exit(code)

    def work(self, arguments, cwd, at, disturb, user, record) -> int:
        handle = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
        os.dup2(handle, 1), os.dup2(handle, 2)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True),
            io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True),
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        if user is not None:
            os.setgroups([]), os.setgid(user), os.setuid(user)
        from genaug.cli import run

        seen = []

        def happened(stage):
            seen.append(stage)
            if at is not None and len(seen) == at + 1:
                disturb()

        with events(happened):
            code = run(arguments)
        if record is not None:
            record.write_text(json.dumps(seen))
        return code

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


# ---- what a result is


def result_of(command: str, out: Path) -> dict:
    "What must be equal: ids, labels and pixels of a set; the rows of a comparison, without times."
    if command in ("augment", "generator"):
        from genaug.synthetic_set import open_synthetic

        made = open_synthetic(out)
        return {
            "ids": list(made.ids),
            "labels": made.labels.tolist(),
            "pixels": [made.image(index) for index in range(len(made))],
        }
    path = out / "results.csv" if command == "compare" else next(out.rglob("*.csv"))
    rows = [
        {
            key: value
            for key, value in row.items()
            if not any(word in key for word in ("wall", "second", "time", "hash", "version", "date"))
        }
        for row in csv.DictReader(path.open())
    ]
    return {
        "rows": sorted(
            json.dumps(row, sort_keys=True)
            for row in rows
            if not any(word in str(row.get("metric", "")) for word in ("second", "time"))
        )
    }


def equal(left: dict, right: dict) -> bool:
    import numpy as np

    def plain(result):
        return {key: value for key, value in result.items() if key != "pixels"}

    pictures = zip(left.get("pixels", []), right.get("pixels", []))
    return plain(left) == plain(right) and all(
        a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 2 for a, b in pictures
    )


def images_of(out: Path) -> dict:
    from genaug.result_folder import is_whole

    return (
        {path: path.stat().st_ino for path in (out / "train").rglob("*.png") if is_whole(path)}
        if (out / "train").is_dir()
        else {}
    )


# ---- the bench


class Bench:
    "A work folder, the uninterrupted results, and the trials done so far."

    def __init__(self, work: Path, seed: int = 0):
        self.work, self.rng = work, random.Random(seed)
        work.mkdir(parents=True, exist_ok=True)
        self.records = work / "trials.jsonl"
        self.done = (
            {record["name"]: record for record in map(json.loads, self.records.read_text().splitlines())}
            if self.records.exists()
            else {}
        )
        self.source = work / "source"
        if not self.source.exists():
            child = os.fork()
            if child == 0:
                write_source(self.source)
                os._exit(0)
            os.waitpid(child, 0)
        self.known = {}

    def arguments(self, command: str, out: Path, source: Path | None = None) -> list[str]:
        return [
            {"SRC": str(source or self.source), "OUT": str(out)}.get(word, word) for word in COMMANDS[command]
        ]

    def reference(self, command: str) -> tuple[dict, list[str]]:
        "The uninterrupted result and the stages of its events."
        if command not in self.known:
            folder, record = self.work / f"reference-{command}", self.work / f"events-{command}.json"
            if not record.exists():
                shutil.rmtree(folder, ignore_errors=True)
                started, child = time.time(), Child(self.arguments(command, folder), self.work, record=record)
                code = child.wait()
                (self.work / f"seconds-{command}.json").write_text(json.dumps(time.time() - started))
                if code:
                    raise SystemExit(f"The undisturbed command '{command}' failed: {child.said()[-1500:]}")
            self.known[command] = (result_of(command, folder), json.loads(record.read_text()))
        return self.known[command]

    def seconds(self, command: str) -> float:
        "How long the undisturbed command took."
        self.reference(command)
        return json.loads((self.work / f"seconds-{command}.json").read_text())

    def moments(self, command: str, count: int) -> list[int]:
        "Events drawn at random, every stage first."
        stages = self.reference(command)[1]
        first = [
            self.rng.choice([index for index, name in enumerate(stages) if name == stage])
            for stage in sorted(set(stages))
        ]
        return (first + self.rng.sample(range(len(stages)), min(count, len(stages))))[:count]

    def trial(self, name: str, command: str, fault) -> dict:
        """One fault: `fault(out, bench)` disturbs and returns its children; afterwards the command runs
        undisturbed. It must finish; where a file was damaged it may refuse."""
        if name in self.done:
            return self.done[name]
        started, out = time.time(), self.work / "trial" / "out"
        shutil.rmtree(self.work / "trial", ignore_errors=True)
        (self.work / "trial").mkdir()
        try:
            children = fault(out, self) or []
            before = images_of(out)
            last = Child(self.arguments(command, out), self.work / "trial")
            code, said = last.wait(), "\n".join(child.said() for child in [*children, last])
            remaining = {path for path, inode in images_of(out).items() if before.get(path) == inode}
            outcome = "finished" if code == 0 else "refused" if code == 2 else f"exit {code}"
            if code == 0 and any(
                '"metric": "failed"' in row for row in result_of(command, out).get("rows", ())
            ):
                outcome = "refused"  # in one cell of the table, whose row says why; the others are there
            changed = outcome == "finished" and not equal(result_of(command, out), self.reference(command)[0])
            record = {
                "name": name,
                "command": command,
                "outcome": outcome,
                "changed": changed,
                "lost": len(set(before) - remaining) if code == 0 else 0,
                "traceback": "Traceback (most recent" in said or "Fault of the program" in said,
                "seconds": round(time.time() - started, 1),
                "said": last.said().strip().splitlines()[-1:][0][-300:] if code else "",
            }
        except Skip as reason:
            record = {
                "name": name,
                "command": command,
                "outcome": f"skipped: {reason}",
                "changed": False,
                "lost": 0,
                "traceback": False,
                "seconds": 0.0,
                "said": "",
            }
        record["good"] = not (record["changed"] or record["lost"] or record["traceback"]) and (
            record["outcome"] == "finished"
            or record["outcome"] == "refused"
            and name.startswith("file")
            or record["outcome"].startswith("skipped")
        )
        if not record["good"] and "said" in locals():
            record["log"] = locals()["said"][-1500:]
        self.done[name] = record
        with self.records.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record


class Skip(Exception):
    pass


# ---- faults


def stopped(command, at, number, source=None, **options):
    "A child that ends itself with a signal at an event."

    def fault(out, bench):
        child = Child(
            bench.arguments(command, out, source),
            bench.work / "trial",
            at,
            lambda: os.kill(os.getpid(), number),
            **options,
        )
        code = child.wait()
        if number == signal.SIGINT and code not in (130, 0):
            raise SystemExit(f"SIGINT ended with {code}: {child.said()[-800:]}")
        return [child]

    return fault


@contextmanager
def small_disk(folder: Path, megabytes: int = 64):
    "A tmpfs under the folder; raises `Skip` where none can be mounted."
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        raise Skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def fill(folder: Path) -> None:
    "Write a file until nothing fits any more."
    with open(folder / "ballast", "wb", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def full_disk(command, at):
    """The disk is full from an event on; then there is room again, and what lies there is moved to where the
    trial looks."""

    def fault(out, bench):
        disk = bench.work / "trial" / "disk"
        with small_disk(disk):
            child = Child(
                bench.arguments(command, disk / "out"), bench.work / "trial", at, lambda: fill(disk)
            )
            code = child.wait()
            if (disk / "out").exists():
                shutil.copytree(disk / "out", out)
        if code not in (0, 2):
            raise SystemExit(f"A full disk ended with {code}: {child.said()[-1500:]}")
        return [child]

    return fault


def read_only(command, at):
    "Broken off, then the disk is read-only: the command must refuse."

    def fault(out, bench):
        disk = bench.work / "trial" / "disk"
        with small_disk(disk):
            first = Child(
                bench.arguments(command, disk / "out"),
                bench.work / "trial",
                at,
                lambda: os.kill(os.getpid(), signal.SIGKILL),
            )
            first.wait()
            if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
                raise Skip("no disk can be made read-only here")
            child = Child(bench.arguments(command, disk / "out"), bench.work / "trial")
            code = child.wait()
            if (disk / "out").exists():
                shutil.copytree(disk / "out", out)
        if code != 2:
            raise SystemExit(f"A read-only disk ended with {code}: {child.said()[-1500:]}")
        return [first, child]

    return fault


def killed_after(command, share):
    """A child whose work goes on in a process of its own (the kernel of a notebook), killed after a share of
    the time that the undisturbed command took."""

    def fault(out, bench):
        child = Child(bench.arguments(command, out), bench.work / "trial")
        time.sleep(share * bench.seconds(command))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(3)  # the kernel sees that nobody listens any more
        return [child]

    return fault


def other_user(command, at):
    "Broken off, then run by somebody without permission to write there."

    def fault(out, bench):
        if os.geteuid():
            raise Skip("privileges can only be dropped by root")
        first = Child(
            bench.arguments(command, out),
            bench.work / "trial",
            at,
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        )
        first.wait()
        logs = bench.work / "trial" / "nobody"
        logs.mkdir(mode=0o777), logs.chmod(0o777)
        child = Child(bench.arguments(command, out), logs, user=65534)
        if child.wait() != 2:
            raise SystemExit(f"Without permission: {child.said()[-1500:]}")
        return [first, child]

    return fault


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    if how == "empty":
        path.write_bytes(b"")
    if how == "flipped" and data:
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        path.write_bytes(bytes(changed))
    if how == "foreign":
        path.write_bytes(b"<html>404 not found</html>\n")
    if how == "missing":
        path.unlink()


def kind_of(path: Path) -> str:
    return "picture" if path.suffix == ".png" else re.sub(r"[0-9a-f]{8,}|[0-9]+", "#", path.name)


CRITICAL = (
    "picture",
    "optimizer.pt",
    "progress.json",
    "state.safetensors",
    "plan.jsonl",
    "concept.json",
    "c#.safetensors",
    "pytorch_lora_weights.safetensors",
    "painter.safetensors",
    "painter.json",
    "metadata.jsonl",
    "results.csv",
    "comparison.json",
)
HOWS = ("truncated", "flipped", "empty", "foreign", "missing")


def damaged(command, at, kind, how):
    "Broken off at an event (None: finished), then one file of a kind is damaged."

    def fault(out, bench):
        child = Child(
            bench.arguments(command, out),
            bench.work / "trial",
            at,
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        )
        child.wait()
        there = [path for path in sorted(out.rglob("*")) if path.is_file() and kind_of(path) == kind]
        if not there:
            raise Skip(f"no file of the kind {kind} at this moment")
        damage(there[len(there) // 2], how)
        return [child]

    return fault


def source_changes(command, at, how):
    """Broken off, then the source is changed (the command must refuse, unless the change is about no picture
    that it draws) and restored."""

    def fault(out, bench):
        source, remaining = bench.source, bench.work / "trial" / "kept"
        first = Child(
            bench.arguments(command, out),
            bench.work / "trial",
            at,
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        )
        first.wait()
        shutil.copytree(source, remaining)
        used = (
            json.loads((out / "plan.jsonl").read_text().split("\n")[0])["sources"]
            if (out / "plan.jsonl").exists()
            else {}
        )
        pictures = sorted(source.rglob("*.png"))
        picture, last = (
            next((path for path in pictures if path.relative_to(source).as_posix() in used), pictures[0]),
            pictures[-1],
        )
        try:
            if how == "replaced":
                shutil.copy(last, picture)
            if how == "removed":
                [path.unlink() for path in sorted(picture.parent.glob("*.png"))[:2]]
            if how == "added":
                shutil.copy(last, picture.with_name("000.png"))
            begun = (out / "plan.jsonl").exists() or (out / "comparison.json").exists()
            child = Child(bench.arguments(command, out), bench.work / "trial")
            code = child.wait()
        finally:
            shutil.rmtree(source)
            shutil.copytree(remaining, source)
        untouched = code == 0 and equal(
            result_of(command, out), bench.reference(command)[0]
        )  # an added picture need not be drawn
        if begun and code != 2 and not untouched:
            raise SystemExit(f"A changed source ended with {code}: {child.said()[-1500:]}")
        if code == 0 and not (begun and untouched):
            shutil.rmtree(out)  # a set of other photographs, rightly finished
        return [first, child]

    return fault


def clock(command, at, years):
    "Broken off, then all files lie in the future or in the past."

    def fault(out, bench):
        child = Child(
            bench.arguments(command, out),
            bench.work / "trial",
            at,
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        )
        child.wait()
        for path in out.rglob("*"):
            os.utime(path, (max(0, time.time() + years * 3.15e7),) * 2)
        return [child]

    return fault


def several(command, count):
    "The same command several times at once: the others wait, or are refused."

    def fault(out, bench):
        children = [Child(bench.arguments(command, out), bench.work / "trial") for _ in range(count)]
        codes = [child.wait() for child in children]
        if set(codes) - {0, 2} or 0 not in codes:
            raise SystemExit(
                f"{count} at once ended with {codes}: {[child.said()[-600:] for child in children]}"
            )
        return children

    return fault


def torchrun(command, count):
    "A torchrun of some processes, every one of which must end well."

    def fault(out, bench):
        script = bench.work / "trial" / "command.py"
        script.write_text("import sys; from genaug.cli import run; sys.exit(run(sys.argv[1:]))")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(count),
                str(script),
                *bench.arguments(command, out),
            ],
            cwd=bench.work / "trial",
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
        )
        if done.returncode:
            raise SystemExit(f"torchrun ended with {done.returncode}: {done.stderr[-1500:]}")
        return []

    return fault


def trials(bench: Bench, kills: int = 20, commands=tuple(COMMANDS)):
    "All trials by name, the quick and telling ones first: (name, command, fault)."
    for command, count in (("augment", kills), ("generator", kills // 2), ("compare", kills // 2)):
        if command not in commands:
            continue
        stages = bench.reference(command)[1]
        for number, at in enumerate(bench.moments(command, count)):
            yield f"kill {command} {number} while {stages[at]}", command, stopped(command, at, signal.SIGKILL)
        for number, at in enumerate(bench.moments(command, 5)):
            yield (
                f"interrupt {command} {number} while {stages[at]}",
                command,
                stopped(command, at, signal.SIGINT),
            )
        for number, at in enumerate(bench.moments(command, 6)):
            yield f"disk {command} {number} full while {stages[at]}", command, full_disk(command, at)
        for number, at in enumerate(bench.moments(command, 2)):
            yield f"disk {command} {number} read-only after {stages[at]}", command, read_only(command, at)
            yield (
                f"user {command} {number} without permission after {stages[at]}",
                command,
                other_user(command, at),
            )
        middle = len(stages) * 2 // 3
        for how in ("replaced", "removed", "added"):
            yield f"source {command} {how}", command, source_changes(command, middle, how)
        for years in (-100, 10):
            yield f"clock {command} {years} years", command, clock(command, middle, years)
        for count in (2, 4):
            yield f"several {command} {count} at once", command, several(command, count)
        kinds = sorted(
            {kind_of(path) for path in (bench.work / f"reference-{command}").rglob("*") if path.is_file()}
            | ({"optimizer.pt", "progress.json", "state.safetensors"} if command != "compare" else set())
        )
        learning = max(index for index, stage in enumerate(stages) if stage == "learning") - 1
        for number, kind in enumerate(kinds):
            for how in HOWS if kind in CRITICAL else (HOWS[number % 5], HOWS[(number + 2) % 5]):
                passing = kind in (
                    "optimizer.pt",
                    "progress.json",
                    "state.safetensors",
                )  # these are gone when all is finished
                if not passing:
                    yield f"file {command} {kind} {how}, finished", command, damaged(command, None, kind, how)
                if passing or kind in ("picture", "plan.jsonl", "concept.json", "painter.safetensors"):
                    yield (
                        f"file {command} {kind} {how}, broken off",
                        command,
                        damaged(command, learning if passing else middle, kind, how),
                    )
    for number, share in enumerate(
        bench.rng.uniform(0.1, 0.95) for _ in range(6 if "reproduce" in commands else 0)
    ):
        yield f"kill reproduce {number} after {share:.0%}", "reproduce", killed_after("reproduce", share)
    for count in (2, 4):
        for command in sorted({"augment", "generator"} & set(commands)):
            yield f"torchrun {command} {count}", command, torchrun(command, count)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    (
        options.add_argument("--minutes", type=float, default=25),
        options.add_argument("--again", action="store_true"),
        options.add_argument("--only", default="", help="words in the names of trials"),
    )
    options.add_argument("--commands", default=",".join(COMMANDS))
    options.add_argument("--kills", type=int, default=20), options.add_argument("--seed", type=int, default=0)
    (
        options.add_argument("--out", type=Path, default=REPOSITORY / "tests" / "faults.json"),
        options.add_argument(
            "--work",
            type=Path,
            default=Path(tempfile.gettempdir()) / f"genaug-faults-{os.getuid()}-{code_hash()[:12]}",
        ),
    )
    chosen = options.parse_args()
    if chosen.again:
        shutil.rmtree(chosen.work, ignore_errors=True)
    prepare()
    bench, started, left = Bench(chosen.work, chosen.seed), time.time(), 0
    words = [word for word in chosen.only.split(",") if word]
    for name, command, fault in trials(bench, chosen.kills, chosen.commands.split(",")):
        if words and not any(word in name for word in words):
            continue
        if time.time() - started > chosen.minutes * 60 and name not in bench.done:
            left += 1
            continue
        try:
            record = bench.trial(name, command, fault)
        except SystemExit as error:
            record = bench.done[name] = {
                "name": name,
                "command": command,
                "outcome": "wrong exit",
                "changed": False,
                "lost": 0,
                "traceback": "Traceback" in str(error),
                "seconds": 0,
                "said": "",
                "good": False,
                "log": str(error),
            }
        print(
            f"{'ok   ' if record['good'] else 'WRONG'} {record['seconds']:6.1f} s  {name}: "
            f"{record['outcome']}" + ("" if record["good"] else f"\n{record.get('log', '')}"),
            flush=True,
        )
    write_figures(bench, chosen.out, left, time.time() - started)
    raise SystemExit(any(not record["good"] for record in bench.done.values()))


def write_figures(bench: Bench, path: Path, left: int, seconds: float) -> None:
    "The counts, on the terminal and in a file that is committed."
    records = list(bench.done.values())
    tried = [record for record in records if not record["outcome"].startswith("skipped")]
    figures = {
        "faults tried": len(tried),
        "ended finished": sum(record["outcome"] == "finished" for record in tried),
        "ended refused with a sentence": sum(record["outcome"] == "refused" for record in tried),
        "sets changed": sum(record["changed"] for record in tried),
        "images lost": sum(record["lost"] for record in tried),
        "tracebacks": sum(record["traceback"] for record in tried),
        "wrong": sum(not record["good"] for record in tried),
        "skipped": len(records) - len(tried),
        "not tried for lack of time": left,
        "seconds": round(sum(record["seconds"] for record in tried)),
        "by kind": dict(Counter(record["name"].split()[0] for record in tried)),
    }
    print(json.dumps(figures, indent=1))
    if left == 0:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
