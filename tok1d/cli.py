"""The command line: `tok1d run | train | sweep | watch | report | doctor | …`; heavy imports are late."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tok1d.config.fields import ConfigError
from tok1d.config.parse import own_parameters, parse, parse_notebook, parse_train, read_params
from tok1d.config.schema import NOTEBOOKS, EvalConfig
from tok1d.runs import TRY_AGAIN, Lost, Run, RunError
from tok1d.system import no_space


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.function(args) or 0
    except (ConfigError, RunError) as error:
        print(f"tok1d: {error}", file=sys.stderr)
        return TRY_AGAIN if isinstance(error, Lost) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None
    except OSError as error:
        if not no_space(error):
            raise
        print("tok1d: the disk is full: make room there; the same command continues", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tok1d", description="A notebook-centric workbench for 1D image tokenization."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser(
        "run", help="run one notebook headless, with checked parameters, in its run folder"
    )
    run.add_argument("notebook", type=Path)
    _take_params(run)
    run.add_argument("--limit", type=float, metavar="SECONDS", help="interrupt the notebook after this long")
    run.add_argument(
        "--grace",
        type=float,
        metavar="SECONDS",
        help="for its checkpoint then, before it is killed; default 60",
    )
    run.set_defaults(function=_run)

    train = commands.add_parser(
        "train", help="the training part of notebooks/train.ipynb, also under torchrun, accelerate and srun"
    )
    _take_params(train)
    train.set_defaults(function=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure finished runs, each number with its interval and card; of several, compare them",
    )
    evaluate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    evaluate.add_argument(
        "--data", default="", help="images to measure on; default: the run's validation images"
    )
    _take_params(evaluate)
    evaluate.set_defaults(function=_evaluate)

    report = commands.add_parser(
        "report", help="one offline HTML page from the executed notebooks of a sweep or run"
    )
    report.add_argument("folder", type=Path)
    report.add_argument("-o", "--out", type=Path, help="default: FOLDER/report.html")
    report.set_defaults(function=_report)

    doctor = commands.add_parser(
        "doctor", help="what is wrong with training runs, and what to try; exit status 1 if anything is"
    )
    doctor.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    doctor.set_defaults(function=_doctor)

    sweep = commands.add_parser(
        "sweep", help="many runs, on this machine's GPUs or a cluster; again to continue"
    )
    sweep.add_argument("file", type=Path, metavar="SWEEP", help="such as params/sweeps/toy.yaml")
    sweep.add_argument("--site", type=Path, default=Path("params/sites/local.py"), help="where it runs")
    sweep.add_argument("--dry-run", action="store_true", help="list the runs, what is missing, and the hours")
    sweep.add_argument("-o", "--outputs", help="folder of all results; default: what the file says")
    _take_params(sweep)
    sweep.set_defaults(function=_sweep)

    watch = commands.add_parser(
        "watch", help="the live table of a sweep, from any machine that sees its folder"
    )
    watch.add_argument("folder", type=Path, help="such as outputs/toy")
    watch.set_defaults(function=_watch)

    figures = commands.add_parser(
        "figures", help="draw all figures again: of every sweep below a folder, and the published ones"
    )
    figures.add_argument("folder", type=Path, nargs="?", default=Path("outputs"), help="default: outputs")
    _take_params(figures)
    figures.set_defaults(function=_figures)

    publish = commands.add_parser(
        "publish", help="copy a sweep's numbers and figures to outputs/published, and into README's table"
    )
    publish.add_argument("sweep", type=Path, help="such as outputs/toy")
    publish.add_argument("--title", required=True, help="what the table calls it")
    publish.set_defaults(function=_publish)

    params = commands.add_parser(
        "params", help="every parameter of a notebook, with the value that 'tok1d run' uses"
    )
    params.add_argument("notebook", choices=sorted(NOTEBOOKS))
    _take_params(params)
    params.set_defaults(function=_params)

    prefetch = commands.add_parser(
        "prefetch",
        help="fetch the pretrained weights that parameter files need, for machines without internet",
    )
    prefetch.add_argument(
        "params", nargs="+", metavar="PARAMS", help="YAML files, or NAME=VALUE for all of them"
    )
    prefetch.set_defaults(function=_prefetch)
    return parser


def _take_params(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-f", "--params-file", action="append", default=[], metavar="YAML", help="parameter file (repeatable)"
    )
    command.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE", help="one parameter (repeatable)"
    )


def _params_of(args: argparse.Namespace) -> dict[str, Any]:
    for text in args.param:
        if "=" not in text:
            raise ConfigError(f"-p {text} has no value: type -p NAME=VALUE, such as -p steps=1000")
    return read_params(*args.params_file) | _pairs(args.param)


def _run(args: argparse.Namespace) -> None:
    from tok1d.jupyter.execute import execute
    from tok1d.system import end_with_stdin

    end_with_stdin()
    execute(args.notebook, _params_of(args), args.limit, args.grace)


def _train(args: argparse.Namespace) -> int:
    from tok1d.training.launch import train_command

    again = [text for file in args.params_file for text in ("-f", file)]
    again += [text for pair in args.param for text in ("-p", pair)]
    return train_command(_params_of(args), ["train", *again])


def _pairs(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts as parameters."""
    pairs = (text.partition("=") for text in texts)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _prefetch(args: argparse.Namespace) -> None:
    from tok1d.evaluation.features import metric_checkpoints
    from tok1d.losses.frozen import loss_checkpoints
    from tok1d.models.finetune import is_hub_id, read_parent
    from tok1d.models.weights import read_weights

    texts = [text for text in args.params if "=" in text and not Path(text).exists()]
    files = [text for text in args.params if text not in texts]
    seen = set()
    for params in [read_params(file) for file in files] or [{}]:
        configs = parse_train(params | _pairs(texts))
        tokenizer, train = configs.tokenizer, configs.train
        wanted = loss_checkpoints(train) + metric_checkpoints(configs.evaluation)
        if is_hub_id(train.init_from):
            wanted.append(read_parent(train.init_from))
        elif not train.init_from and tokenizer.encoder_init != "random":
            wanted.append(read_weights(tokenizer, train))
        for weights in wanted:
            if weights.sha256 not in seen:
                print(f"{weights.source}\n  {weights.path}\n  sha256 {weights.sha256}", flush=True)
            seen.add(weights.sha256)
    print(f"{len(seen)} pretrained files are on this machine" if seen else "no pretrained file is needed")


def _report(args: argparse.Namespace) -> None:
    from tok1d.jupyter.report import build_report

    order = {name: i for i, name in enumerate(NOTEBOOKS)}
    found = [*args.folder.glob("*/*.ipynb"), *args.folder.glob("*.ipynb")]
    notebooks = [path for path in found if not path.name.startswith(".")]
    if not notebooks:
        raise RunError(
            f"there is no executed notebook in {args.folder}: run one with 'tok1d run notebooks/train.ipynb'"
        )
    notebooks.sort(key=lambda path: (path.parent == args.folder, path.parent.name, order.get(path.stem, 99)))
    out = build_report(
        notebooks, args.out or args.folder / "report.html", title=f"tok1d · {args.folder.name}"
    )
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _evaluate(args: argparse.Namespace) -> None:

    from tok1d.system import end_with_stdin

    end_with_stdin()
    (config,) = parse(_params_of(args), EvalConfig)
    for line in evaluate_command(args.runs, config, args.data):
        print(line, flush=True)


def _doctor(args: argparse.Namespace) -> int:
    from tok1d.runs import Run
    from tok1d.training.doctor import checkup

    sick = 0
    for folder in args.runs:
        now, over, step = checkup(Run(folder))
        print(f"{folder}, {step} steps: {len(now) or 'no'} complaint{'s' * (len(now) > 1)}")
        for diagnosis in now:
            print(f"  {diagnosis}")
        for diagnosis in over:
            print(f"  over by now: {diagnosis}")
        sick += bool(now)
    return int(sick > 0)


def _sweep(args: argparse.Namespace) -> int:
    from tok1d.sweeps.plan import complete, read_plan

    plan = read_plan(args.file, _params_of(args), **({"outputs": args.outputs} if args.outputs else {}))
    if complete(plan) and not args.dry_run:
        print(f"{plan.folder} is finished, nothing to do")
        return 0
    from tok1d.sweeps.run import dry_run, run_sweep

    return dry_run(plan, args.site) if args.dry_run else run_sweep(plan, args.site)


def _watch(args: argparse.Namespace) -> None:
    from tok1d.sweeps.table import watch

    watch(args.folder)


def _figures(args: argparse.Namespace) -> int:
    from tok1d.sweeps.publish import redraw_all

    return redraw_all(args.folder, _params_of(args))


def _publish(args: argparse.Namespace) -> None:
    from tok1d.sweeps.publish import around_results, publish, renew

    around_results()  # before anything is written
    print(f"published: {publish(args.sweep, args.title)}")
    renew()


def _params(args: argparse.Namespace) -> None:
    path = Path("notebooks", f"{args.notebook}.ipynb")
    own = own_parameters(path) if path.exists() else {}
    for config in parse_notebook(args.notebook, own | _params_of(args)):
        print(f"# {(type(config).__doc__ or '').splitlines()[0]}")
        for name, value in config.model_dump(mode="json").items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
            text = text.removesuffix("...\n").strip()
            print(f"{name}: {text}  # {type(config).model_fields[name].description}")
        print()


def evaluate_command(folders: list[Path], config: EvalConfig, data: str) -> Iterator[str]:
    """`tok1d evaluate`: each run's numbers as lines, then the differences of the others from the first.

    Raises `RunError` when their cards differ.
    """
    from tok1d.evaluation.card import same_card
    from tok1d.evaluation.runs import compare, evaluate_run
    from tok1d.jupyter.tables import table_lines

    runs = [Run(folder).finished for folder in folders]
    width = shutil.get_terminal_size((110, 24)).columns
    for run in runs:
        evaluation = evaluate_run(run, config, data)
        yield f"{run.path}: {evaluation['card']['images']} images"
        yield from table_lines(evaluation["results"], width)
        yield from (f"note: {warning}" for warning in evaluation["warnings"])
    same_card(runs)
    for run in runs[1:]:
        yield f"{run.path} minus {runs[0].path}, over the same images"
        yield from table_lines(compare(runs[0], run, config), width)


if __name__ == "__main__":
    sys.exit(main())
