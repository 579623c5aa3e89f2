"""The doctor names what is wrong with real trainings, made sick on purpose, and lets healthy ones be."""

import contextlib
import time
from pathlib import Path

import pytest
import torch
from workbench import REPO

from tok1d.cli import main
from tok1d.config.parse import parse_train
from tok1d.data.dataset import CachedDataset, load_data
from tok1d.runs import Run, RunError
from tok1d.training.doctor import Doctor, read_diagnoses
from tok1d.training.train import train

FRAMES = REPO.parent / "shared" / "data" / "indian-roads"
TINY = dict(
    image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=8, toy_images=64,
    toy_val_images=4, steps=150, batch_size=8, log_every=5, checkpoint_every=1000, elastic=False,
    optimizer="adamw",
)  # fmt: skip
VQ = dict(quantizer="vq", codebook_size=256)
NO_ENTROPY = VQ | dict(entropy_weight=0, entropy_weight_end=0)
FROM_STEP_0 = dict(elastic=True, elastic_warmup_fraction=0, token_mixing=False, warmup_steps=20)
GAN = dict(adversarial_weight=0.1, batch_size=4)

SICK = {
    "nan": dict(l2_weight=1e30, log_every=1),
    "diverging": dict(quantizer="kl", lr=0.6, warmup_steps=0),
    "dead-parameters": VQ | dict(quantizer_weight=0),
    "collapse": NO_ENTROPY | dict(commitment_weight=20, lr=0.01),
    "mean-image": NO_ENTROPY | FROM_STEP_0 | dict(num_latent_tokens=32),
    "mean-image, tokens are fine": FROM_STEP_0 | dict(lr=2e-5, steps=200),
    "discriminator-winning": GAN | dict(lr=1e-5, discriminator_lr=1e-3),
    "data-bound": {},
}
HEALTHY = {
    "fsq": {},
    "vq, L1": VQ | dict(l1_weight=1, l2_weight=0),
    "vq, rotated, 4 images": VQ | dict(rotation_trick=True, batch_size=4, seed=3),
    "vq_ema": dict(quantizer="vq_ema", codebook_size=256),
    "lfq": dict(quantizer="lfq", codebook_size=1024),
    "simvq": dict(quantizer="simvq", codebook_size=256),
    "softvq": dict(quantizer="softvq", codebook_size=256),
    "kl": dict(quantizer="kl"),
    "elastic, muon": dict(elastic=True, optimizer="muon"),
    "no mixing, slow, in two parts": dict(token_mixing=False, lr=3e-4, grad_accum_steps=2),
    "32 tokens at 32 px": dict(image_size=32, num_latent_tokens=32, batch_size=4),
    "adversarial": GAN
    | VQ
    | dict(discriminator_start=120, discriminator_lr=2e-5, lecam_weight=0.01, steps=200),
    "real frames": dict(data=FRAMES / "val", image_size=32, charbonnier_weight=1, l2_weight=0),
}


class Enough(Exception):
    """Ends a training from `on_log`."""


class SlowDisk(CachedDataset):
    """Images that take longer than a step."""

    def train_batch(self, *args, **options):
        time.sleep(0.2)
        return super().train_batch(*args, **options)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def watch(outputs: Path, run: str, until: str = "", slow: bool = False, **params) -> Doctor:
    """Train, with the doctor there, until it says `until`, or to the end."""
    name = "".join(c if c.isalnum() else "-" for c in run)
    _, data, tokenizer, config, _ = configs = parse_train(TINY | params | {"outputs": outputs, "run": name})
    run = Run.open(*configs)
    images, _ = load_data(data, tokenizer.image_size, run.cache)
    if slow:
        images = SlowDisk(**vars(images))
    doctor = Doctor(run)

    def on_log(record):
        if until in [diagnosis.name for diagnosis in doctor.see(record)]:
            raise Enough

    with contextlib.suppress(Enough):
        train(run, images, tokenizer, config, on_log)
    return doctor


@pytest.mark.parametrize("case", SICK)
def test_a_sick_run_is_diagnosed_by_name(case, outputs):
    name = case.split(",")[0]
    doctor = watch(outputs, f"sick {case}", name, slow=case == "data-bound", **SICK[case])
    diagnosis = next((d for d in doctor.found if d.name == name), None)
    assert diagnosis, f"said {[d.name for d in doctor.found]} in {doctor.records[-1]['step']} steps"
    assert diagnosis.since_step <= doctor.records[-1]["step"]
    assert "=" in diagnosis.advice or diagnosis.advice.startswith("cure")
    if case == "mean-image, tokens are fine":
        assert "collapse" not in {d.name for d in doctor.found}


@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_run_is_left_alone(case, outputs):
    params = HEALTHY[case]
    if "data" in params and not params["data"].exists():
        pytest.skip(f"there are no real frames beside the repository: {params['data']}")
    doctor = watch(outputs, f"healthy {case}", **params)
    assert (
        doctor.records[-1]["step"] == (TINY | params)["steps"] and doctor.records[-1]["variation"] > 0.1
    )  # it is healthy
    assert [str(diagnosis) for diagnosis in doctor.found] == []


def test_stop_on_ends_a_sick_run_that_can_be_looked_at_and_continued(outputs, capsys):
    """One sentence; checkpoint, diagnosis and timings stay; with `stop_on=` it goes on regardless."""
    params = SICK["collapse"] | dict(stop_on="nan,collapse", checkpoint_every=20)
    with pytest.raises(RunError, match=r"^collapse since step \d+: .* type entropy_weight=0.1") as caught:
        watch(outputs, "stopped", **params)
    run = Run(outputs / "runs" / "stopped")
    assert [d.name for d in read_diagnoses(run)] == ["collapse"] and "\n" not in str(caught.value)
    assert main(["doctor", str(run.path)]) == 1 and str(caught.value) in capsys.readouterr().out
    stopped = run.metrics[-1]["step"]
    assert stopped < TINY["steps"] and [t["step"] for t in run.timings][-1] == stopped
    with pytest.raises(RunError, match=r"^collapse"):
        watch(outputs, "stopped", **params)  # as a scheduler does: it does not go on
    watch(outputs, "stopped", **params | dict(stop_on=""))
    out = capsys.readouterr().out
    assert "continuing" in out and Run(run.path).metrics[-1]["step"] == TINY["steps"]
