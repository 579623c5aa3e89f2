"""The command line: `tok1d run | train | sweep | watch | report | doctor | …`; heavy imports are late."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tok1d import __version__
from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import NOTEBOOKS
from tok1d.config.parse import (
    described,
    given_params,
    own_parameters,
    parse,
    parse_notebook,
    parse_pairs,
    parse_train,
    read_params,
)
from tok1d.config.peers import is_peer
from tok1d.config.schema import DataConfig, EvalConfig
from tok1d.runs import TRY_AGAIN, Lost, RunError
from tok1d.runs.find import runs_in
from tok1d.system.files import forbidden, no_space, remedy
from tok1d.system.interrupt import SAID

LOCAL = Path("params/sites/local.py")
HELP = {"help_option_names": ["-h", "--help"]}  # and plain text, in which [..] is no markup
app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=HELP
)
Files = Annotated[list[str], typer.Option(
    "-f", "--params-file", metavar="YAML", help="Parameter file (repeatable).", default_factory=list,
    show_default=False,
)]  # fmt: skip
Pairs = Annotated[list[str], typer.Option(
    "-p", "--param", metavar="NAME=VALUE", help="One parameter (repeatable).", default_factory=list,
    show_default=False,
)]  # fmt: skip
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders, such as outputs/runs/quickstart.")]
Notebook = StrEnum("Notebook", sorted(NOTEBOOKS))  # type: ignore[misc]


def main(argv: list[str] | None = None) -> int:
    """Do what the words of a command line say, by default those of this process; returns the exit status.

    A `ConfigError`, a `RunError`, or a file that the system refuses becomes one sentence on stderr and status
    1 (`TRY_AGAIN` for a run that lost its machine), a command line that cannot be read status 2, Ctrl-C 130.
    What only tok1d can have caused keeps its traceback.
    """
    command = typer.main.get_command(app)
    if hasattr(sys.stdout, "reconfigure"):  # a screen that cannot show a letter shows ?
        sys.stdout.reconfigure(errors="replace")
    try:
        with command.make_context("tok1d", sys.argv[1:] if argv is None else list(argv)) as context:
            return command.invoke(context) or 0
    except typer.Exit as ended:  # of --help and --version
        return ended.exit_code
    except typer.TyperException as error:
        inside = getattr(error, "ctx", None)
        asked = inside.command_path if inside else "tok1d"
        print(f"tok1d: {error.format_message().rstrip('.')} (see '{asked} --help')", file=sys.stderr)
        return error.exit_code
    except (ConfigError, RunError) as error:
        print(f"tok1d: {error}", file=sys.stderr)
        return TRY_AGAIN if isinstance(error, Lost) else 1
    except KeyboardInterrupt as stopped:
        print(f"tok1d: {stopped if stopped.args else SAID}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None
    except OSError as error:
        if no_space(error):
            print("tok1d: the disk is full: make room there; the same command continues", file=sys.stderr)
        elif isinstance(error.filename, str | bytes | Path):
            where = Path(os.fsdecode(error.filename))
            why = f"({os.strerror(error.errno or 0).lower()}): move away what is there, or give another path"
            if forbidden(error):
                why = remedy(error, where.parent)
            print(f"tok1d: {where} cannot be used {why}", file=sys.stderr)
        else:
            raise
        return 1
    return 0


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tok1d {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, help="Show it and exit.")]


@app.callback()
def tok1d(version: Version = False) -> None:
    """A notebook-centric workbench for 1D image tokenization."""


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="Such as notebooks/train.ipynb.")],
    files: Files,
    pairs: Pairs,
    limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Interrupt the notebook after this long.")
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For its checkpoint then, before it is killed; default 60."),
    ] = None,
) -> None:
    """Run one notebook headless, in its run folder.

    The same command continues a run that was killed, and leaves a finished one alone.
    """
    from tok1d.jupyter.execute import execute
    from tok1d.system.processes import end_with_stdin

    end_with_stdin()
    execute(notebook, given_params(files, pairs), limit, grace)


def typed(files: list[str], pairs: list[str]) -> list[str]:
    """These parameters as arguments, for more processes."""
    return [w for file in files for w in ("-f", file)] + [w for pair in pairs for w in ("-p", pair)]


@app.command()
def train(files: Files, pairs: Pairs) -> int:
    """Train as notebooks/train.ipynb does, as a plain program.

    Also under torchrun, accelerate and srun. 'tok1d run notebooks/train.ipynb' with the same parameters then
    evaluates the run and finishes it.
    """
    from tok1d.training.launch import train_command

    return train_command(given_params(files, pairs), ["train", *typed(files, pairs)])


@app.command()
def prior(files: Files, pairs: Pairs) -> int:
    """Train a prior over tokens, as notebooks/generate.ipynb does.

    As a plain program, also under torchrun, accelerate and srun. 'tok1d run notebooks/generate.ipynb' with
    the same parameters then generates images from it, and finishes the run.
    """
    from tok1d.generation.train import train_prior_command

    return train_prior_command(given_params(files, pairs), ["prior", *typed(files, pairs)])


@app.command()
def evaluate(
    runs: Runs,
    files: Files,
    pairs: Pairs,
    data: Annotated[
        str, typer.Option(help="Images to measure on; default: the run's validation images.")
    ] = "",
    outputs: Annotated[
        str | None, typer.Option("-o", "--outputs", help="Folder of all results, for those of peers.")
    ] = None,
) -> None:
    """Measure finished runs, each number with its interval.

    Of several runs also the differences of the others from the first. They are kept in each run's eval.json,
    those of --data in its folder evaluations/, with a card of how they were measured; runs whose cards differ
    are not compared. Instead of a run, peer:NAME is a published tokenizer (peer:titok-l32), peer:PATH one of
    its files on a disk.
    """
    from tok1d.evaluation.runs import evaluate_runs
    from tok1d.jupyter.tables import print_table
    from tok1d.system.processes import end_with_stdin

    end_with_stdin()
    params = given_params(files, pairs)
    config, images = parse(params, EvalConfig, DataConfig)  # of images too: messages say to type those
    reading = {name: getattr(images, name) for name in DataConfig.model_fields if name in params}
    others = reading.pop("data", ""), reading.pop("val_data", "")
    where = {"outputs": outputs} if outputs else {}
    found = evaluate_runs(runs, config, data or others[0] or others[1], **where, **reading)
    for title, rows, notes in found:
        print(title)
        print_table(rows)
        print(*notes, sep="\n", end="\n" * bool(notes), flush=True)


@app.command()
def reconstruct(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a model folder, or a hub id.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="JPEG, PNG, WebP, TIFF, HEIC …")],
    tokens: Annotated[str, typer.Option(metavar="1,8,64", help="Token counts; default: 1, 2, 4 … all.")] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="Default: outputs/photos/PHOTO.")
    ] = None,
) -> None:
    """Put your own photos through a tokenizer.

    Each becomes square and as small as the tokenizer's images. Writes a PNG of the original and one for each
    token count, and slider.html, one file with all of them that needs no network. Files that are there
    already are left alone, and nothing is written then.
    """
    from tok1d.jupyter.photos import reconstruct_photos

    *pictures, page = reconstruct_photos(run, photos, tokens, out)
    print(f"{len(pictures)} PNG files beside {page}: open that in a browser")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A sweep or run, such as outputs/runs.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: FOLDER/report.html.")] = None,
) -> None:
    """Make one offline HTML page of executed notebooks."""
    from tok1d.jupyter.report import build_report, executed_notebooks

    page = build_report(
        executed_notebooks(folder), out or folder / "report.html", title=f"tok1d · {folder.name}"
    )
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)")


@app.command()
def doctor(runs: Runs) -> int:
    """Say what is wrong with training runs, and what to try.

    From their records, while they train or afterwards; changes nothing. Of the folder of a sweep, such as
    outputs/toy, all its runs. The exit status is 1 if anything is wrong with any of them now.
    """
    from tok1d.training.doctor import complaints

    sick = 0
    for run in [run for folder in runs for run in runs_in(folder)]:
        lines, is_sick = complaints(run)
        print(*lines, sep="\n")
        sick += is_sick
    return int(sick > 0)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP", help="Such as params/sweeps/toy.yaml.")],
    files: Files,
    pairs: Pairs,
    site: Annotated[Path, typer.Option(help="Where it runs: a Parsl configuration.")] = LOCAL,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Start nothing: list the runs, what is missing, and about the hours."),
    ] = False,
    outputs: Annotated[
        str | None,
        typer.Option("-o", "--outputs", help="Folder of all results; default: what the file says."),
    ] = None,
) -> int:
    """Make many runs, on this machine's GPUs or a cluster.

    Each parameter given here holds for all of them. The same command again continues what was killed.
    """
    from tok1d.sweeps.plan import complete, read_plan

    plan = read_plan(file, given_params(files, pairs), **({"outputs": outputs} if outputs else {}))
    if complete(plan) and not dry_run:
        print(f"{plan.folder} is finished, nothing to do")
        return 0
    from tok1d.sweeps.run import dry_run as describe
    from tok1d.sweeps.run import run_sweep

    return describe(plan, site) if dry_run else run_sweep(plan, site)


@app.command()
def watch(
    folder: Annotated[
        Path, typer.Argument(help="The folder of a sweep's results, such as outputs/toy, not its YAML file.")
    ],
) -> None:
    """Show the live table of a sweep until it ends.

    Only shows: closing it stops no run. From any machine that sees the folder; where the output is no
    terminal the table is printed once.
    """
    from tok1d.sweeps.table import watch as show

    show(folder)


@app.command()
def figures(
    files: Files,
    pairs: Pairs,
    folder: Annotated[Path, typer.Argument(help="The folder that holds the sweeps.")] = Path("outputs"),
) -> int:
    """Draw all figures again, of sweeps and published ones.

    Each sweep's by notebooks/figures.ipynb with these parameters; those of numbers in FOLDER/published.
    """
    from tok1d.sweeps.publish import redraw_all

    return redraw_all(folder, given_params(files, pairs))


@app.command()
def publish(
    sweep: Annotated[Path, typer.Argument(help="The folder of a finished sweep, such as outputs/toy.")],
    title: Annotated[str, typer.Option(metavar="TEXT", help="What the table calls it.")],
    pictures: Annotated[
        bool, typer.Option(help="Figures that show images too; not of images that may not be passed on.")
    ] = True,
) -> None:
    """Copy a finished sweep's results into this project.

    Its numbers and figures, no weights: to outputs/published/SWEEP, in place of what was published of it
    before. Then the table of all published results is written into README.md here. No commit is made, and
    nothing is sent anywhere.
    """
    from tok1d.sweeps.publish import around_results, renew
    from tok1d.sweeps.publish import publish as copy

    around_results()  # before anything is written
    print(f"published: {copy(sweep, title, pictures=pictures)}")
    renew()


@app.command()
def params(notebook: Notebook, files: Files, pairs: Pairs) -> None:
    """Show every parameter of a notebook and its value.

    The value is the one that 'tok1d run' would use with the same -f and -p.
    """
    path = Path("notebooks", f"{notebook}.ipynb")
    own = own_parameters(path) if path.exists() else {}
    for config in parse_notebook(notebook, own | given_params(files, pairs)):
        print(described(config))


@app.command()
def prefetch(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="PARAMS",
            help="Parameter files of trainings (not of sweeps), such as params/reference/mae_64.yaml; "
            "NAME=VALUE, without -p, holds for each of them; peer:NAME is a published tokenizer.",
        ),
    ],
) -> int:
    """Fetch the pretrained weights that trainings need.

    Of encoders, losses, metrics and parents to fine-tune, into the caches of this machine, for when it has no
    internet; no images. Says where each file lies, and goes on after one that cannot be had; the exit status
    is 1 then. Without a file: for the default parameters.
    """
    from tok1d.sweeps.dry_run import peer_files, pretrained_files

    peers = [text for text in texts if is_peer(text)]
    pairs = [text for text in texts if "=" in text and not Path(text).exists() and text not in peers]
    files = [text for text in texts if text not in (*pairs, *peers)]
    seen: set[str] = set()
    failed = 0
    for file in [*peers, *(files or [""] * (not peers))]:
        try:
            params = parse_train(
                (read_params(file) if file and file not in peers else {}) | parse_pairs(pairs)
            )
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}" if file else str(error)) from None
        for look in peer_files(file) if file in peers else pretrained_files(params):
            try:
                found = look()
            except ConfigError as error:
                print(f"tok1d: {f'{file} needs what is not here: ' * bool(file)}{error}", file=sys.stderr)
                failed += 1
                continue
            for weights in found:
                if weights.sha256 not in seen:
                    print(f"{weights.source}\n  {weights.path}\n  sha256 {weights.sha256}", flush=True)
                seen.add(weights.sha256)
    if not failed:
        print(f"{len(seen)} pretrained files are on this machine" if seen else "no pretrained file is needed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
