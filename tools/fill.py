"""Fill a list of table cells in several processes, for as long as there is time.

    python tools/fill.py --workers 2 --minutes 60           # what nbs/tables/ten_splits.csv wants and lacks
    python tools/fill.py --check /tmp/check --workers 2     # one split of every cell again, elsewhere
    python tools/fill.py --compare /tmp/check               # ... and beside the rows
    python tools/fill.py --dry-run                          # the jobs, and what is still missing

It may be stopped at any time and goes on where it was: every finished run has its row and its answers. The
jobs of the first turn begin first, the longest of a turn before the others.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "nbs" / "tables" / "ten_splits.csv"


def options(arguments):
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path, default=LIST, help="CSV of the cells")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--device", default="cpu", help="where networks run: cpu, cuda, cuda:1")
    parser.add_argument("--turns", default="", help="only these turns, such as 1-3")
    parser.add_argument("--splits", default="", help="only these splits, such as 3-9")
    parser.add_argument("--results", type=Path, default=ROOT / "nbs" / "results", help="folder of the rows")
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="run one split of each cell again, in FOLDER"
    )
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="print what a check in FOLDER found")
    parser.add_argument("--dry-run", action="store_true", help="print the jobs; run nothing")
    return parser.parse_args(arguments)


def print_check(before, again):
    "The runs that a check repeated, the largest difference first."
    from genaug.filling import repeated_runs

    runs = repeated_runs(before, again)
    order = runs.difference.abs().sort_values(ascending=False, kind="stable").index
    print(runs.loc[order].to_string(index=False))
    equal = int((runs.difference == 0).sum())
    mean = runs.difference.mean()
    print(f"{len(runs)} runs, {equal} with the same accuracy; mean difference {mean:+.2f} points")


def main(arguments=None):
    given = options(arguments)
    from genaug.filling import fill_list, first_splits, jobs_of, read_wanted, split_numbers

    if given.compare:
        return print_check(given.results, given.compare)
    wanted = read_wanted(given.list)
    if given.turns:
        wanted = [line for line in wanted if line.turn in split_numbers(given.turns)]
    if given.splits:
        only = set(split_numbers(given.splits))
        wanted = [line._replace(splits=tuple(sorted(only & set(line.splits)))) for line in wanted]
    settings = {"results": str(given.results)}
    if given.check:
        wanted, settings = first_splits(wanted, **settings), {"results": str(given.check)}
    jobs = jobs_of(wanted, **settings)
    counts = Counter()
    for job in jobs:
        counts[job.turn] += job.runs
    hours = sum(job.seconds for job in jobs) / 3600
    print(f"{len(jobs)} jobs, {sum(counts.values())} runs (by turn: {dict(sorted(counts.items()))})")
    print(f"about {hours:.1f} hours of one core, without what is learned for the first time", flush=True)
    if given.dry_run:
        for job in jobs:
            print(f"turn {job.turn}: {job.label}, about {job.seconds:.0f} s")
        return 0
    failed = fill_list(
        jobs,
        given.workers,
        given.minutes,
        settings=settings | {"device": given.device},
        say=lambda line: print(line, flush=True),
    )
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    from genaug.messages import GenaugError

    try:
        sys.exit(main())
    except GenaugError as error:
        print(f"fill: {error}", file=sys.stderr)
        sys.exit(2)
