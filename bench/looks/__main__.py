"""Judges and measures how results look.

    python -m bench.looks pairs FOLDER                                     # fetches and paints pairs of pictures
    python -m bench.looks make FOLDER/pairs.toml RESULTS --contender ...   # makes the pictures of all contenders
    python -m bench.looks sheets FOLDER/pairs.toml RESULTS SHEETS --key F  # blind sheets and forms for judges
    python -m bench.looks votes KEY FORM ...                               # counts the votes of filled-in forms
    python -m bench.looks table FOLDER/pairs.toml RESULTS                  # measures of all results, and the goals
    python -m bench.looks faces FOLDER/pairs.toml RESULTS                  # whether faces are still faces
    python -m bench.looks measure RESULT STYLE CONTENT                     # all measures of one result
    python -m bench.looks sizes SMALL LARGE ...                            # contrast of larger results, scaled down
    python -m bench.looks similarity RESULT PREVIEW ...                    # structural similarity of previews

`make looks BENCH='COMMAND ...'` runs the same with `examples` on the path, which `pairs` needs. RESULTS is a folder of
SIZE/PAIR/CONTENDER.png, wherever the pictures come from. Exits with 1 if anything fails; `table`, `faces`
and `votes` with --winner also if a goal is missed.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import ROOT
from bench.checkouts import CheckoutError
from bench.environments import InstallationError
from bench.looks import contenders
from bench.looks.catalogue import make_pairs
from bench.looks.contenders import Contender, ContenderError, make_pictures
from bench.looks.faces import DetectionError, detect, kept
from bench.looks.files import Pictures, load, measure_files, pixels, resized
from bench.looks.measures import OCTAVES, as_rows, contrast_ratios, similarity
from bench.looks.pairs import Kind, Pair, PairsError, read_pairs
from bench.looks.sheets import read_key, shuffled, write_sheets
from bench.looks.table import Measured, groups, rows, table
from bench.looks.votes import VoteError, goal_table, read_votes, unjudged, vote_table

_ERRORS = (OSError, InstallationError, CheckoutError, PairsError, ContenderError, DetectionError, VoteError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit code."""
    args = _parser().parse_args(arguments)
    try:
        return 0 if args.run(args) else 1
    except _ERRORS as error:
        print(error, file=sys.stderr)
        return 1


def _pairs(args: argparse.Namespace) -> bool:
    for pair in make_pairs(args.folder, args.cache, args.paintings):
        print(f"{pair.name:<28}{pair.kind:<12}{', '.join(map(str, pair.sizes))} px")
    print(f"Pairs: {args.folder / 'pairs.toml'}")
    return True


def _make(args: argparse.Namespace) -> bool:
    wanted = [(pair, size) for size in args.sizes for pair in read_pairs(args.pairs, args.only) if size in pair.sizes]
    failures = []
    for contender in map(Contender.parse, args.contender):
        try:
            make_pictures(contender, wanted, args.results, cache=args.cache / "environments", threads=args.threads)
        except (ContenderError, InstallationError, CheckoutError) as error:
            # The others can still be made.
            failures.append(str(error))
    for failure in failures:
        print(failure, file=sys.stderr)
    return not failures


def _cases(args: argparse.Namespace) -> list[tuple[Pair, int, list[str]]]:
    """Return each pair and size of which there are results, with their contenders.

    Raises:
        PairsError: the pairs file is wrong, or there is no result at all.
    """
    cases = []
    pairs = read_pairs(args.pairs, args.only)
    for size in args.sizes or args.results.sizes():
        for pair in pairs:
            names = args.results.contenders(pair.name, size)
            if chosen := [name for name in args.contenders or names if name in names]:
                cases.append((pair, size, chosen))
    if not cases:
        raise PairsError(f"{args.results.folder}: has no result of these pairs, sizes and contenders")
    return cases


def _sheets(args: argparse.Namespace) -> bool:
    cases = [case for case in _cases(args) if len(case[2]) > 1]
    seed = secrets.randbits(32) if args.seed is None else args.seed
    sheets = shuffled(cases, args.judges, seed)
    pairs = [pair for pair, _, _ in cases]
    write_sheets(sheets, pairs, args.results, folder=args.sheets, key=args.key, seed=seed)
    print(f"{len(sheets)} sheets of {len(cases)} pairs and sizes for {args.judges} judges: {args.sheets}")
    return bool(sheets)


def _votes(args: argparse.Namespace) -> bool:
    sheets = read_key(args.key)
    votes = [vote for form in args.forms for vote in read_votes(form.read_text(), sheets)]
    if missing := unjudged(votes, sheets):
        print(f"not judged: {', '.join(missing)}")
    print("\n".join(vote_table(votes)))
    if args.winner is None:
        return True
    lines, is_met = goal_table(votes, args.winner)
    print("\n".join(lines))
    return is_met


def _table(args: argparse.Namespace) -> bool:
    measured = []
    for pair, size, names in _cases(args):
        for name in names:
            path = args.results.path(pair.name, size, name)
            measures = measure_files(path, pair.style, pair.content, args.style_scale)
            measured.append(Measured(contender=name, pair=pair.name, size=size, measures=measures))
    print("\n".join(table(measured)))
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in measured], indent=2))
    return all(row.is_met for _, _, some in groups(measured) for row in rows(some))


def _faces(args: argparse.Namespace) -> bool:
    # The detector sees faces in other pictures, too, where there are none.
    cases = [case for case in _cases(args) if case[0].kind is Kind.PERSON]
    results = [(pair, size, name) for pair, size, names in cases for name in names]
    contents = list(dict.fromkeys(pair.content for pair, _, _ in results))
    paths = [args.results.path(pair.name, size, name) for pair, size, name in results]
    found = dict(zip([*contents, *paths], detect([*contents, *paths], args.cache / "environments"), strict=True))
    lost = 0
    print(f"{'pair':<28}{'size':>5}  {'contender':<20}faces kept")
    for (pair, size, name), path in zip(results, paths, strict=True):
        if faces := found[pair.content]:
            count = kept(faces, found[path])
            lost += len(faces) - count
            verdict = "" if count == len(faces) else "  LOST"
            print(f"{pair.name:<28}{size:>5}  {name:<20}{count} of {len(faces)}{verdict}")
    print(f"{lost} faces lost")
    return not lost


def _measure(args: argparse.Namespace) -> bool:
    for name, text in as_rows(measure_files(args.result, args.style, args.content, args.style_scale)):
        print(f"{name:<34}{text}")
    return True


def _sizes(args: argparse.Namespace) -> bool:
    small = load(args.small)
    print(f"{'contrast, luma / chroma':<34}" + "".join(f"{octave // 2} to {octave} px".rjust(15) for octave in OCTAVES))
    for path in args.large:
        ratios = contrast_ratios(pixels(resized(load(path), small.size)), pixels(small))
        print(f"{path.name:<34}" + "".join(f"{luma:.2f} / {chroma:.2f}".rjust(15) for luma, chroma in ratios.values()))
    return True


def _similarity(args: argparse.Namespace) -> bool:
    result = load(args.result)
    for path in args.previews:
        preview = load(path)
        print(f"{path.name:<34}{similarity(pixels(preview), pixels(resized(result, preview.size))):.3f}")
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.looks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], bool], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name,
            help=text,
            description=f"{text.capitalize()}.",
            parents=parents,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    _add_making(command)
    _add_judging(command)
    _add_measuring(command)
    return parser


def _add_making(command: Callable[..., argparse.ArgumentParser]) -> None:
    pairs = command("pairs", _pairs, "fetch and paint pairs of pictures, and write their pairs.toml", _cache())
    pairs.add_argument("folder", type=Path)
    pairs.add_argument(
        "--paintings", type=Path, help="folder with tubingen.jpg, starry_night.jpg, the_scream.jpg and shipwreck.jpg"
    )
    make = command("make", _make, "make the pictures of contenders that are not there yet", _chosen(), _cache())
    make.epilog = contenders.__doc__
    make.add_argument("--contender", action="append", required=True, metavar="NAME=KIND:ARGUMENTS")
    make.add_argument("--sizes", type=int, nargs="+", default=(256,), help="longest edges in pixels")
    make.add_argument("--threads", type=int, default=1, help="CPU threads of each contender")


def _add_judging(command: Callable[..., argparse.ArgumentParser]) -> None:
    sheets = command("sheets", _sheets, "make shuffled sheets and a form for each judge", _chosen(), _of_results())
    sheets.add_argument("sheets", type=Path, help="folder for the sheets")
    sheets.add_argument("--key", type=Path, required=True, help="file that says who is who; judges must not see it")
    sheets.add_argument("--judges", type=int, default=3, help="number of judges")
    sheets.add_argument("--seed", type=int, help="seed of the shuffles; random if omitted")
    votes = command("votes", _votes, "count the votes of filled-in forms")
    votes.add_argument("key", type=Path)
    votes.add_argument("forms", type=Path, nargs="+")
    votes.add_argument("--winner", metavar="NAME", help="contender that the goal is meant for")


def _add_measuring(command: Callable[..., argparse.ArgumentParser]) -> None:
    results = (_chosen(), _of_results())
    measures = command("table", _table, "print all measures over all pairs, and whether the goals are met", *results)
    measures.add_argument("--json", type=Path, help="file for all figures")
    command(
        "faces", _faces, "print whether the faces of photographs of people are found in the results", *results, _cache()
    )
    one = command("measure", _measure, "print all measures of one result")
    for name in ("result", "style", "content"):
        one.add_argument(name, type=Path)
    for parser in (measures, one):
        parser.add_argument(
            "--style-scale", type=float, default=1.0, help="longest edge of the style over that of the content"
        )
    sizes = command("sizes", _sizes, "print the contrast of larger results, scaled to the size of a small one")
    sizes.add_argument("small", type=Path)
    sizes.add_argument("large", type=Path, nargs="+")
    previews = command("similarity", _similarity, "print the structural similarity of previews to their result")
    previews.add_argument("result", type=Path)
    previews.add_argument("previews", type=Path, nargs="+")


def _cache() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".bench" / "looks", help="folder for packages and environments"
    )
    return parser


def _chosen() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("pairs", type=Path, help="pairs.toml")
    parser.add_argument(
        "results", type=lambda text: Pictures(Path(text)), help="folder of results: SIZE/PAIR/CONTENDER.png"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="PAIR", help="names of pairs; all if omitted")
    return parser


def _of_results() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--sizes", type=int, nargs="+", default=(), help="longest edges in pixels; all if omitted")
    parser.add_argument("--contenders", nargs="+", default=(), metavar="NAME", help="contenders; all if omitted")
    return parser


if __name__ == "__main__":
    sys.exit(main())
