"""Records of training runs, written by hand."""

import json
from pathlib import Path

from tok1d.config.parse import parse_train
from tok1d.runs import Run

WELL = dict(
    psnr=20.0, num_tokens=16, grad_norm=0.5, grad_norm_encoder=0.3, grad_norm_quantizer=0.2,
    grad_norm_decoder=0.4, perplexity=60.0, variation=0.6, token_variation=0.5, skipped=0, l2=0.01,
)  # fmt: skip
PLAYING = dict(logits_real=0.5, logits_fake=-0.5, discriminator=0.8, adaptive_weight=0.1)


def records(steps: int = 300, every: int = 10, **columns) -> list[dict]:
    """Healthy records, but for `columns`: a number, or a function of the step (None: not there)."""
    values = [WELL | columns for _ in range(every, steps + 1, every)]
    made = []
    for step, row in zip(range(every, steps + 1, every), values, strict=True):
        row = {key: value(step) if callable(value) else value for key, value in row.items()}
        made.append({"step": step} | {key: value for key, value in row.items() if value is not None})
    return made


def at(step: int, before, after):
    """A column that changes at `step`."""
    return lambda s: after if s >= step else before


COLLAPSED = dict(token_variation=lambda s: 1e-4 if 100 <= s < 200 else 0.5)


LONG = dict(
    encoder_size="S", decoder_size="S", image_size=256, elastic=False, steps=10_000, batch_size=64,
    optimizer="adamw",
)  # fmt: skip


def start_run(outputs: Path) -> Run:
    """A run folder without records."""
    return Run.open(
        *parse_train(LONG | {"outputs": outputs, "run": "run", "quantizer": "vq", "entropy_weight": 0})
    )


def write(run: Run, rows: list[dict], name: str = "metrics.jsonl") -> None:
    run.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))
