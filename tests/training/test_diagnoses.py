"""What the doctor says of records written by hand, live, and in the terminal."""

import re

import pytest
from patients import COLLAPSED, LONG, PLAYING, WELL, at, records, start_run, write

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train
from tok1d.config.registry import DIAGNOSES
from tok1d.runs import Run
from tok1d.training.doctor import MOST, Doctor, checkup, examine, read_diagnoses, write_diagnoses
from tok1d.training.symptoms import PLOTS, Case, Context, advice

NAN = float("nan")
COMPLAINTS = {
    "skipped steps": (
        "nan",
        dict(skipped=lambda s: max(0, s - 260)),
        {},
        270,
        "40 steps were skipped",
        "lr=0.0003",
    ),
    "no number": ("nan", dict(l2=at(280, 0.01, NAN), skipped=None), {}, 280, "3 steps were skipped", "lr="),
    "worse than it was": (
        "diverging",
        dict(psnr=at(200, 22.0, 15.0)),
        {},
        200,
        "PSNR 15.0 dB after 22.0 dB",
        "lr=0.0003, or warmup",
    ),
    "worse than gray": (
        "diverging",
        dict(psnr=5.0),
        dict(optimizer="muon"),
        10,
        "the 6 dB",
        "muon_lr=0.003 and",
    ),
    "discriminator came": (
        "gan-onset",
        PLAYING | dict(psnr=at(200, 22.0, 15.0), logits_fake=at(190, None, -1.0)),
        dict(adversarial_weight=0.3),
        200,
        "PSNR 15.0 dB after",
        "adversarial_weight=0.1",
    ),
    "explosion": (
        "exploding-gradient",
        dict(grad_norm=at(200, 0.5, 500)),
        {},
        200,
        "norm 5e+02 after 0.5",
        "lr=",
    ),
    "overflow": ("exploding-gradient", dict(grad_norm=1e6), {}, 10, "clipped to grad_clip=1", "lr="),
    "no gradient": (
        "dead-parameters",
        dict(grad_norm_encoder=at(100, 0.1, 0.0)),
        {},
        100,
        "encoder's gradient norm is 0",
        "lr=",
    ),
    "gradient not finite": (
        "dead-parameters",
        dict(grad_norm_quantizer=NAN, skipped=0),
        {},
        10,
        "is nan",
        "lr=",
    ),
    "tokens alike": (
        "collapse",
        dict(token_variation=at(150, 0.5, 1e-4)),
        dict(quantizer="vq", entropy_weight=0),
        150,
        "less than 0.1% of the tokens' variance",
        "type entropy_weight=0.1 and entropy_weight_end=0.01, or lr=0.0003",
    ),
    "few codes": (
        "collapse",
        dict(perplexity=3.0),
        dict(quantizer="vq"),
        10,
        "3.0 codes of the 1,024 that it could",
        "quantizer=fsq",
    ),
    "nothing but noise": (
        "collapse",
        dict(kl=0.01),
        dict(quantizer="kl"),
        10,
        "0.01 nats",
        "kl_weight=1e-06",
    ),
    "one image for all": (
        "mean-image",
        dict(variation=0.002),
        dict(elastic=True, elastic_warmup_fraction=0),
        10,
        "vary 0.2% as much",
        "type elastic_warmup_fraction=0.4",
    ),
    "sure of everything": (
        "discriminator-winning",
        PLAYING | dict(logits_real=9.0, logits_fake=at(200, 0, -9.0), discriminator=at(200, 1, 0)),
        dict(adversarial_weight=0.1),
        200,
        "logits of images 9.0, of reconstructions -9.0",
        "discriminator_lr=0.0002",
    ),
    "weight explodes": (
        "discriminator-winning",
        PLAYING | dict(adaptive_weight=at(200, 0.1, 900.0)),
        dict(adversarial_weight=0.1),
        200,
        "adaptive weight 9e+02",
        "lecam_weight=0.001",
    ),
    "waiting": (
        "data-bound",
        dict(loader_wait=at(100, 0.01, 0.6)),
        {},
        100,
        "waits 60% of the time",
        "outputs=",
    ),
}


@pytest.mark.parametrize(
    ("name", "columns", "params", "since", "evidence", "tip"), COMPLAINTS.values(), ids=COMPLAINTS
)
def test_a_complaint_in_plain_words_with_what_to_type(name, columns, params, since, evidence, tip):
    found = {d.name: d for d in examine(records(**columns), context=Context(LONG | params))}
    assert name in found, found
    diagnosis = found[name]
    assert (diagnosis.since_step, evidence in diagnosis.evidence, tip in diagnosis.advice) == (
        since,
        True,
        True,
    ), diagnosis
    assert str(diagnosis).startswith(f"{name} since step {since}: {DIAGNOSES[name]} (") and "\n" not in str(
        diagnosis
    )
    typed = dict(re.findall(r"(\w+)=([\w.+-]+)", diagnosis.advice))
    assert typed, "nothing to type"
    parse_train(LONG | params | typed)  # every parameter and value is one
    assert all(str(params.get(key)) != value for key, value in typed.items())  # and another than before


def test_every_diagnosis_is_found_advised_on_and_drawn():
    """Its name and meaning are in the registry, all else in `symptoms`."""
    of_records = DIAGNOSES.keys() - {"below-linear-code"}  # which an evaluation shows
    assert {name for name, *_ in COMPLAINTS.values()} == of_records
    assert {name for plot in PLOTS for name in plot.names} == of_records
    params = Case([], Context({})).params
    assert all(advice(name, params).startswith("type ") for name in DIAGNOSES)


FINE = {
    "nothing": ({}, {}),
    "too short to tell": (dict(variation=0.0, token_variation=0.0), dict(steps=100_000)),
    "still warming up": (dict(variation=0.0), dict(warmup_steps=5000)),
    "varies more and more": (dict(variation=lambda s: 1e-7 * 1.05**s), {}),
    "batches of one image": (dict(variation=0.0, token_variation=0.0), dict(batch_size=1)),
    "one skipped step": (dict(skipped=at(200, 0, 1)), {}),
    "a noisy batch": (
        dict(psnr=lambda s: 12.0 if s == 250 else 20.0, perplexity=lambda s: 2 if s == 300 else 60),
        {},
    ),
    "elastic": (
        dict(num_tokens=lambda s: 16 if s % 70 < 20 else 1, psnr=lambda s: 22 if s % 70 < 20 else 15),
        {},
    ),
    "a discriminator that learns": (PLAYING, dict(adversarial_weight=0.1)),
    "a discriminator just came": (
        PLAYING | dict(discriminator=at(280, None, 0.0), logits_real=20.0, logits_fake=-20.0),
        dict(adversarial_weight=0.1),
    ),
    "a slow start": (dict(loader_wait=at(20, 0.9, 0.02)), {}),
    "records of an older version": (dict.fromkeys(set(WELL) - {"psnr"}), {}),
}


@pytest.mark.parametrize(("columns", "params"), FINE.values(), ids=FINE)
def test_no_complaint(columns, params):
    assert examine(records(**columns), context=Context(LONG | params)) == []


def test_no_record_no_complaint():
    assert examine([]) == []


def test_timings_and_the_load_report_count_too():
    timings = [{"step": r["step"], "loader_wait": 0.5} for r in records()]
    assert [d.name for d in examine(records(), timings)] == ["data-bound"]
    rows = [
        {"part": "decoder", "trainable": 3, "gradient_not_0": 3},
        {"part": "quantizer", "trainable": 1, "gradient_not_0": 0},
    ]
    context = Context(dict(quantizer="vq", quantizer_weight=0), rows)
    assert "type quantizer_weight=1:" in examine(records(), context=context)[0].advice


# ---------------------------------------------------------------------------------------------- run folder


@pytest.fixture
def run(tmp_path) -> Run:
    return start_run(tmp_path)


def test_doctor_live(run):
    """It says each name once, forgets what is undone, and says it again after a restart."""
    doctor, said = Doctor(run), []
    for record in records(**COLLAPSED):
        said += [(record["step"], d.name, d.since_step) for d in doctor.see(record)]
    assert said == [(150, "collapse", 100)] and doctor.now == []

    sick = records(150, **COLLAPSED)
    write(run, sick)
    doctor = Doctor(run)
    assert [d.name for d in doctor.now] == ["collapse"] and doctor.found == []
    assert [d.name for d in doctor.see(sick[-1] | {"step": 160})] == ["collapse"]
    doctor.see(sick[0])  # back to the checkpoint of step 0
    assert [r["step"] for r in doctor.records] == [10] and doctor.now == []
    assert [str(d)[:17] for d in doctor.see_rollback(12, "5 steps in a row")] == ["nan since step 12"]


def test_a_long_run_is_remembered_in_part(run):
    """However long, seeing a record takes the same time; the newest are all there, and the first."""
    write(run, records(100_000))
    steps = [r["step"] for r in Doctor(run).records]
    assert len(steps) <= MOST and steps[0] == 10 and steps == sorted(steps)
    assert steps[-2000:] == list(range(80_010, 100_001, 10))


def test_in_the_terminal(run, tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    assert (
        capsys.readouterr().err == f"tok1d: {tmp_path / 'nowhere'} is no run folder: "
        "give one that holds params.yaml and metrics.jsonl\n"
    )
    assert main(["doctor", str(run.path)]) == 1
    assert "has no record yet: wait for its first log_every=20 steps\n" in capsys.readouterr().err

    write(run, records())
    assert main(["doctor", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path}, 300 steps: no complaint\n"

    write_diagnoses(run, examine(records(150, **COLLAPSED), context=Context(run.params)))
    write_diagnoses(run, examine(records(160, **COLLAPSED), context=Context(run.params)))
    assert [(d.name, d.since_step) for d in read_diagnoses(run)] == [("collapse", 100)]  # the first of a name
    assert (
        main(["doctor", str(run.path)]) == 0
        and "over by now: collapse since step 100" in capsys.readouterr().out
    )

    with open(run / "metrics.jsonl", "a") as out:
        out.write('{"step": 310, "loss"')  # it is being written
    write(run, [{"step": r["step"], "loader_wait": 0.5} for r in records()], "timings.jsonl")
    assert main(["doctor", str(run.path), str(run.path)]) == 1
    out = capsys.readouterr().out
    assert out.count("300 steps: 1 complaint\n  data-bound since step 10: ") == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("colapse", "(did you mean collapse?), got 'colapse'"),
        ("mean_image", "(did you mean mean-image?)"),
        (["nan", "x"], "got 'x'"),
    ],
)
def test_stop_on_takes_names_of_diagnoses(given, said):
    with pytest.raises(ConfigError) as caught:
        parse_train({"stop_on": given})
    assert str(caught.value).startswith("each of stop_on must be one of nan, diverging,") and said in str(
        caught.value
    )
    assert str(caught.value).endswith("for example type stop_on=nan,collapse")
    assert parse_train({"stop_on": list(DIAGNOSES)}).train.stop_on == tuple(DIAGNOSES)


@pytest.mark.parametrize(("ahead", "complains"), [(1.8, True), (0.05, False), (-2.0, False)])
def test_a_tokenizer_below_the_linear_code_is_told_so(tmp_path, ahead, complains):
    run = start_run(tmp_path)
    write(run, records())
    rows = [{"num_tokens": k, "psnr": 20.0 + k} for k in (1, 64)]
    line = [row | {"psnr": row["psnr"] + ahead} for row in rows]
    run.write_json("eval.json", {"card": {}, "results": rows, "linear_code": line})
    now, _, _ = checkup(run)
    assert [d.name for d in now] == ["below-linear-code"] * complains
    if complains:
        assert "(1.8 dB more at 64 tokens); type patch_size=8, or steps=40000" in str(now[0])
