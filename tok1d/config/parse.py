"""The only door for parameters: names and values in, validated configs out, or one sentence that helps."""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tok1d.config.fields import (
    Config,
    ConfigError,
    to_number,
)
from tok1d.config.losses import check_losses
from tok1d.config.notebooks import NOTEBOOKS, Params, TrainParams, configs_of
from tok1d.config.schema import DataConfig, EvalConfig, RunConfig, TokenizerConfig, TrainConfig, fields

EXAMPLES = dict(
    val_data="photos/val", data_root="photos", bdd_labels="labels.json", weather="clear,rainy",
    timeofday="night", scene="highway", token_counts="1,8,64", runs="run-a,run-b", random_like="dinov2",
    fit_data="photos/train",
    encoder_checkpoint="weights/dinov2.safetensors", encoder_revision="main",
    init_from="outputs/runs/quickstart", stop_on="nan,collapse",
    perceptual_checkpoint="weights/vgg16.pth", discriminator_checkpoint="weights/dino.safetensors",
    align_checkpoint="weights/dinov2.safetensors", inception_checkpoint="weights/inception_fid.pth",
    dino_checkpoint="weights/dinov2.pth", lpips_checkpoint="weights/vgg16.pth", reference_data="photos/train",
)  # fmt: skip


RENAMED = {  # old name of a parameter -> its name now; run folders and people's files have the old ones
    "encoder_weights": "encoder_checkpoint", "perceptual_weights": "perceptual_checkpoint",
    "align_weights": "align_checkpoint", "discriminator_weights": "discriminator_checkpoint",
    "inception_weights": "inception_checkpoint", "dino_weights": "dino_checkpoint",
    "lpips_weights": "lpips_checkpoint", "accumulate": "grad_accum_steps", "align": "align_features",
    "elastic_full_share": "elastic_warmup_fraction", "checkpoint_activations": "activation_checkpointing",
}  # fmt: skip


def parse_train(params: dict[str, Any]) -> TrainParams:
    """The train notebook's parameters, checked; see `parse`."""
    return TrainParams(*parse(params, *configs_of("train")))


def parse_notebook(notebook: str, params: dict[str, Any]) -> Params:
    """Any shipped notebook's parameters, checked; see `parse`."""
    return NOTEBOOKS[notebook](*parse(params, *configs_of(notebook)))


def without_defaults(notebook: str, cell: dict[str, Any]) -> dict[str, Any]:
    """The values of a shipped notebook's parameters cell, but for those that repeat a default. They stand
    there to be read: some defaults depend on which others were told.
    """
    known = fields(*configs_of(notebook))
    return {n: v for n, v in cell.items() if n not in known or v != known[n].default}


def parse(params: dict[str, Any], *classes: type[Config]) -> tuple[Any, ...]:
    """Sort flat parameters into `classes`: one of each, in order.

    Raises `ConfigError`, one sentence: the spelling of an unknown name, the type or range of a bad value.
    """
    known = fields(*classes)
    params = renamed(params, warn=True)
    for name in params:
        if name not in known:
            raise ConfigError(unknown_name(name, known))
    out = []
    for cls in classes:
        try:
            out.append(cls(**{k: v for k, v in params.items() if k in cls.model_fields}))
        except ValidationError as error:
            raise ConfigError(_sentence(error.errors()[0], known)) from None
    check_counts(out)
    check_losses(out, params)
    return tuple(out)


def check_values(params: dict[str, Any]) -> None:
    """The values of parameters as they were kept, each by itself. Raises `ConfigError`."""
    for cls in (RunConfig, DataConfig, TokenizerConfig, TrainConfig):
        try:
            cls(**{name: value for name, value in params.items() if name in cls.model_fields})
        except ValidationError as error:
            wrong = [each for each in error.errors() if each["loc"]]
            if wrong:
                raise ConfigError(_sentence(wrong[0], fields(cls))) from None


def renamed(params: dict[str, Any], warn: bool = False) -> dict[str, Any]:
    """These parameters by their present names; with `warn`, each old one is said, in one sentence on stderr.

    Raises `ConfigError` if one is given by both its names.
    """
    for old in RENAMED.keys() & params.keys():
        new = RENAMED[old]
        if new in params:
            raise ConfigError(f"{old} is called {new} now, and both are given: leave out {old}")
        if warn:
            print(f"tok1d: {old} is called {new} now: type {new}={_shown(params[old])}", file=sys.stderr)
    return {RENAMED.get(name, name): value for name, value in params.items()}


BEFORE = {"encoder": "vit", "decoder_refine": "none"}  # what run folders and models had before they said so


def check_counts(configs: Iterable[Config]) -> None:
    """Token counts to evaluate are counts that the tokenizer has."""
    configs = list(configs)
    tokenizer = next((config for config in configs if isinstance(config, TokenizerConfig)), None)
    evaluation = next((config for config in configs if isinstance(config, EvalConfig)), None)
    if tokenizer is None or evaluation is None:
        return
    K = tokenizer.num_latent_tokens
    for count in evaluation.token_counts:
        if count > K or (count != K and not tokenizer.elastic):
            allowed = f"counts up to num_latent_tokens={K}" if tokenizer.elastic else f"{K}, or elastic=true"
            raise ConfigError(f"token_counts={count} is no count of this tokenizer: type {allowed}")


def read_params(*files: str | Path) -> dict[str, Any]:
    """Flat parameters of YAML files, later files winning over earlier ones.

    A file with `base: params/reference/base.yaml` (a path from the project's folder, or from a folder that
    holds the file) is read on top of that other file; plain papermill leaves that to
    `tok1d.jupyter.execute.parameters`.
    """
    params: dict[str, Any] = {}
    for file in files:
        params |= _read_file(Path(file), ())
    return params


def given_params(files: list[str], pairs: list[str]) -> dict[str, Any]:
    """Flat parameters of `-f` files and `-p NAME=VALUE` pairs, the pairs winning. Raises `ConfigError`."""
    for text in pairs:
        if "=" not in text:
            raise ConfigError(f"-p {text} has no value: type -p NAME=VALUE, such as -p steps=1000")
    return read_params(*files) | parse_pairs(pairs)


def parse_pairs(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts as parameters."""
    pairs = (text.partition("=") for text in texts)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read_file(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """One file on top of its `base`; `above` are the files that led here."""
    if file.resolve() in above:
        raise ConfigError(f"{file} is its own base: remove a 'base:' line")
    return with_base(read_yaml(file), (*above, file.resolve()))


def with_base(params: dict[str, Any], above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """`params` on top of the file that its `base` names, if it names one."""
    base = params.get("base")
    if base is None:
        return params
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"base must be a parameter file, got {base!r}: type base: params/reference/base.yaml"
        )
    places = [Path(base), *(folder / base for file in above[-1:] for folder in file.parents)]
    found = next((place for place in places if place.is_file()), Path(base))
    return _read_file(found, above) | {name: value for name, value in params.items() if name != "base"}


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of names and values, as it is. Raises `ConfigError`."""
    try:
        values = yaml.load(Path(file).read_text(encoding="utf-8-sig"), PlainLoader)
        count = _count(values, {})
    except FileNotFoundError:
        raise ConfigError(f"there is no parameter file {file}: see params/ for examples") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{file} cannot be read: give a text file of 'name: value' lines") from None
    except TwiceError as error:
        raise ConfigError(f"{file} {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{where} is not valid YAML: write one 'name: value' a line") from None
    if count > MOST_VALUES:
        raise ConfigError(f"{file} holds more than {MOST_VALUES:,} values: write less *aliases, or none")
    if not isinstance(values, dict | None):
        raise ConfigError(f"{file} holds no 'name: value' lines: write for example 'steps: 1000'")
    return values or {}


MOST_VALUES = 100_000  # of a file, each as often as an alias repeats it


def _count(value: Any, known: dict[int, int]) -> int:
    """Values in lists in lists; `known` are those of the lists that were counted, by id."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


class TwiceError(ValueError):
    """A name that has two values."""


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML whose values are numbers, words, true, false, nothing, lists and names with values: all that a
    notebook's cell and JSON can hold. A date, 12:30:45 and 007 are words, as they were typed; a name that is
    given twice is refused. Read by libyaml where it is, in a tenth of the time.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in lines:
                    raise TwiceError(
                        f"gives {key.value} twice, in lines {lines[key.value]} and {line}: leave out one"
                    )
                lines[key.value] = line
        return super().construct_mapping(node, deep)


WHOLE = r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"
REAL = r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
TAG = "tag:yaml.org,2002:"
PlainLoader.yaml_implicit_resolvers = {
    first: [each for each in found if each[0] not in (f"{TAG}timestamp", f"{TAG}int", f"{TAG}float")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(f"{TAG}int", re.compile(WHOLE), list("-+0123456789"))
PlainLoader.add_implicit_resolver(f"{TAG}float", re.compile(REAL), list("-+0123456789."))
for _name in ("binary", "timestamp", "set", "omap", "pairs"):
    PlainLoader.add_constructor(TAG + _name, yaml.SafeLoader.construct_undefined)


def unknown_name(name: Any, known: Iterable[str]) -> str:
    elsewhere = [notebook for notebook in NOTEBOOKS if name in fields(*configs_of(notebook))]
    if elsewhere:
        return f"{name} is not a parameter here: it belongs to the notebook {' and '.join(elsewhere)}"
    close = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"the parameters here are {', '.join(known)}"
    return f"{_shown(name)} is not a parameter: {hint}"


def _sentence(error: ErrorDetails, known: dict[str, Any]) -> str:
    """One pydantic error as one sentence: the name, what it must be, what it was, what to type."""
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    name, kind, got = str(error["loc"][0]), error["type"], error["input"]
    field, example = known[name], EXAMPLES.get(name, known[name].default)
    bounds = {"greater_than_equal": "at least", "greater_than": "more than",
              "less_than_equal": "at most", "less_than": "less than"}  # fmt: skip
    needs = {"bool": "must be true or false", "int": "must be a whole number", "float": "must be a number",
             "string_type": "must be text", "string_too_short": "must not be empty"}  # fmt: skip
    if kind in bounds:
        need = f"must be {bounds[kind]} {to_number(*error['ctx'].values())}"
    elif kind == "literal_error":
        options = get_args(field.annotation)
        need, example = f"must be one of {', '.join(options)}", _closest(str(got), options) or example
    elif kind == "string_pattern_mismatch":
        need = "must be a plain name, up to 100 letters, digits and . _ + -, starting with a letter or digit"
        example = re.sub(r"[^\w.+-]+", "-", got)[:100].strip(".+-") or example
    else:
        need = next((words for start, words in needs.items() if kind.startswith(start)), error["msg"])
        need = need.removeprefix("Value error, ")
    each = "each of " if len(error["loc"]) > 1 else ""
    tail = f"for example type {name}={_shown(example)}" if example not in ("", ()) else field.description
    return f"{each}{name} {need}, got {_shown(got, repr)}: {tail}"


def _closest(got: str, options: tuple[str, ...]) -> str | None:
    """The option that was probably meant: `b` and `base` are B."""
    lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(got.lower(), lower, n=1) or filter(got.lower().startswith, lower)
    return next((lower[option] for option in close), None)


def _shown(value: Any, show: Any = str) -> str:
    """A value as one would type it: on one line, and not too long."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else show(value)
    text = text if text and text.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def assigned(cells: list[str]) -> dict[str, ast.expr]:
    """Names and values that these parameters cells assign, papermill's own names left out."""
    names = {}
    for node in (node for source in cells for node in ast.parse(source).body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and not target.id.startswith("PAPERMILL_"):
                names[target.id] = node.value
    return names


def own_parameters(notebook: Path) -> dict[str, Any]:
    """What the parameters cell of a notebook assigns; of a shipped one `without_defaults`."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        sources = ["".join(cell["source"]) for cell in tagged]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{notebook} is no notebook: type one such as notebooks/train.ipynb") from None
    try:
        found = {name: ast.literal_eval(value) for name, value in assigned(sources).items()}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"the parameters cell of {notebook} does not give plain values ({type(error).__name__}): "
            f"write NAME = VALUE lines there"
        ) from None
    return without_defaults(notebook.stem, found) if notebook.stem in NOTEBOOKS else found


def described(config: Config) -> str:
    """A config as YAML, a line a parameter, with what each is as a comment."""
    lines = [f"# {(type(config).__doc__ or '').splitlines()[0]}"]
    for name, value in config.model_dump(mode="json").items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
        text = text.removesuffix("...\n").strip()
        lines.append(f"{name}: {text}  # {type(config).model_fields[name].description}")
    return "\n".join([*lines, ""])
