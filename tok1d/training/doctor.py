"""The doctor: named diagnoses of a training run, from its records alone.

    examine(records, timings, context)     # pure: what is wrong at the end of these records
    Doctor(run).see(record)                # live: what is new with this record
    tok1d doctor RUN                       # afterwards, from the run folder

What is looked for, and when it counts, is in `tok1d.training.symptoms`; what to try, in
`tok1d.training.symptoms`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, ConfigDict
from typing_extensions import TypedDict

from tok1d.config.registry import DIAGNOSES, Diagnosis, known_diagnosis
from tok1d.runs import Run, RunError
from tok1d.runs.files import read_json
from tok1d.training.symptoms import CHECKS, Case, Context, Record

FILE = "diagnoses.json"
BELOW = 0.1  # dB that a linear code of equal bits may be ahead
MOST = 4000  # records that a doctor remembers


def examine(
    records: Iterable[Record], timings: Iterable[Record] = (), context: Context | None = None
) -> list[Diagnosis]:
    """What is wrong at the end of these records, causes first; nothing, if the run is healthy.

    `records` are those of metrics.jsonl, `timings` those of timings.jsonl, both from the first step on;
    records that hold their timings already, as `on_log` gets them, are fine too.
    """
    by_step = {timing["step"]: timing for timing in timings}
    merged = [by_step.get(record["step"], {}) | record for record in records]
    case = Case(merged, context or Context({}))
    found = [diagnosis for check in CHECKS if (diagnosis := check(case))]
    return sorted(found, key=lambda diagnosis: list(DIAGNOSES).index(diagnosis.name))


class Doctor:
    """Watches a run that trains. It reads the run folder (parameters, records before a restart), and writes
    nothing.
    """

    def __init__(self, run: Run):
        self.run, self.context = run, context_of(run)
        self.records = thinned(records_of(run))
        self.now = examine(self.records, context=self.context)  # what holds
        self.found: list[Diagnosis] = []  # what `see` returned so far

    def see(self, record: Record) -> list[Diagnosis]:
        """Take in a record, with its timings where known; returns the diagnoses of names that it did not
        return before.

        Those of a run that was sick when it was stopped come again with its first record. A record of an
        earlier step, after a run went back to a checkpoint, replaces those from there on.
        """
        if not self.context.parts:  # they are known after a step or two
            self.context = context_of(self.run)
        while self.records and self.records[-1]["step"] >= record["step"]:
            self.records.pop()
        self.records.append(record)
        self.records = thinned(self.records)
        self.now = examine(self.records, context=self.context)
        return self._new(self.now)

    def see_rollback(self, step: int, evidence: str) -> list[Diagnosis]:
        """The same for steps that left no record, for want of a finite gradient up to `step`."""
        return self._new([Case([], self.context).finds("nan", step, evidence)])

    def _new(self, diagnoses: list[Diagnosis]) -> list[Diagnosis]:
        known = {diagnosis.name for diagnosis in self.found}
        new = [diagnosis for diagnosis in diagnoses if diagnosis.name not in known]
        self.found += new
        return new


def thinned(records: list[Record]) -> list[Record]:
    """At most `MOST` records, the newer half untouched: a record of a long run takes no longer to see."""
    while len(records) > MOST:
        half = len(records) // 2
        records = records[:half:2] + records[half:]
    return records


def context_of(run: Run) -> Context:
    return Context(run.params, run.load_report.get("parameters", []))


def records_of(run: Run) -> list[Record]:
    """The records in a run folder, each with its timings."""
    timings = {timing["step"]: timing for timing in run.timings}
    return [timings.get(record["step"], {}) | record for record in run.metrics]


def write_diagnoses(run: Run, found: Iterable[Diagnosis]) -> None:
    """Add to the run's `diagnoses.json` what is not in it yet."""
    known = read_diagnoses(run)
    names = {diagnosis.name for diagnosis in known}
    new = [diagnosis for diagnosis in found if diagnosis.name not in names]
    if new:
        run.write_json(FILE, [asdict(diagnosis) for diagnosis in [*known, *new]])


class Row(TypedDict):
    """A diagnosis in the run's `diagnoses.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    name: Annotated[str, AfterValidator(known_diagnosis)]
    since_step: int
    evidence: str
    advice: str


def read_diagnoses(run: Run) -> list[Diagnosis]:
    """What was found while the run trained."""
    path = run / FILE
    rows = read_json(path, list[Row], f"type 'rm {path}'") if path.exists() else []
    return [Diagnosis(**row) for row in rows]


def checkup(run: Run) -> tuple[list[Diagnosis], list[Diagnosis], int]:
    """A run folder's diagnoses: those at its last record, those that are over, and that record's step.

    Raises `RunError` if the folder is no run, or has no record yet.
    """
    if not (run / "params.yaml").exists():
        raise RunError(f"{run.path} is no run folder: give one that holds params.yaml and metrics.jsonl")
    records = records_of(run)
    if not records:
        raise RunError(
            f"{run.path} has no record yet: wait for its first log_every={run.params['log_every']} steps"
        )
    now = examine(records, context=context_of(run)) + below_linear_code(run)
    names = {diagnosis.name for diagnosis in now}
    over = [diagnosis for diagnosis in read_diagnoses(run) if diagnosis.name not in names]
    return now, over, int(records[-1]["step"])


def below_linear_code(run: Run) -> list[Diagnosis]:
    """One if the run's last evaluation has a linear code of equal bits ahead at its largest token count."""
    if not (run / "eval.json").exists():
        return []
    evaluation = run.evaluation
    line = {row["num_tokens"]: row["psnr"] for row in evaluation.get("linear_code") or () if "psnr" in row}
    rows = [row for row in evaluation["results"] if row["num_tokens"] in line and "psnr" in row]
    if not rows:
        return []
    most = max(rows, key=lambda row: row["num_tokens"])
    ahead = line[most["num_tokens"]] - most["psnr"]
    if ahead < BELOW:
        return []
    evidence = f"{ahead:.1f} dB more at {most['num_tokens']} tokens"
    return [Case([], context_of(run)).finds("below-linear-code", run.metrics[-1]["step"], evidence)]


def complaints(run: Run) -> tuple[list[str], bool]:
    """A checkup in lines, and whether anything is wrong now. Raises what `checkup` raises."""
    now, over, step = checkup(run)
    lines = [f"{run.path}, {step} steps: {len(now) or 'no'} complaint{'s' * (len(now) > 1)}"]
    lines += [f"  {diagnosis}" for diagnosis in now]
    lines += [f"  over by now: {diagnosis}" for diagnosis in over]
    return lines, bool(now)
