"""What the doctor looks for: one small function a diagnosis, from a run's records to a `Diagnosis` or None.

All of them look at the last stretch of steps (`Case.tail`) and use medians, for single batches are noisy. The
thresholds below separate the sick from the healthy runs of tests/training/test_doctor.py.

Each ends in its advice: parameters to type, chosen by what the run was trained with. `PLOTS` are the curves
that show it. A diagnosis is complete with its name and meaning in `tok1d.config.registry.DIAGNOSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from tok1d.config.notebooks import configs_of
from tok1d.config.registry import QUANTIZERS, Diagnosis, number_of_codes
from tok1d.config.schema import fields

Params = dict[str, Any]


def advice(name: str, params: Params, part: str = "", collapsed: bool = False) -> str:
    """One phrase, as a rule "type …"; the first thing named is the first to try."""
    if name == "dead-parameters":
        return fix_dead(params, part)
    if name == "mean-image" and collapsed:
        return "cure the collapse, which lets nothing else through"
    choices = {
        "nan": fix_overflow, "diverging": fix_diverging, "exploding-gradient": fix_overflow, "collapse":
        fix_collapse, "mean-image": fix_mean_image, "discriminator-winning": fix_discriminator, "gan-onset":
        fix_onset, "data-bound": fix_data_bound, "below-linear-code": fix_under_trained,
    }  # fmt: skip
    return "type " + ", or ".join(choices[name](params))


def slower(params: Params, factor: float = 0.3) -> str:
    """A lower learning rate, of whichever optimizer there is."""
    lr = f"lr={params['lr'] * factor:.1g}"
    return f"muon_lr={params['muon_lr'] * factor:.1g} and {lr}" if params["optimizer"] == "muon" else lr


def fix_overflow(params: Params) -> list[str]:
    tips = [slower(params)]
    if params["mixed_precision"] != "no":
        tips.append("mixed_precision=no to see whether bf16 is too coarse")
    if params["warmup_steps"] < 100:
        tips.append("warmup_steps=100")
    if params["grad_clip"] > 1:
        tips.append("grad_clip=1")
    return tips


def fix_diverging(params: Params) -> list[str]:
    return [slower(params), f"warmup_steps={max(100, 2 * params['warmup_steps'])}"]


def fix_dead(params: Params, part: str) -> str:
    quantizer = QUANTIZERS[params["quantizer"]]
    if part == "quantizer" and "codebook" in quantizer.losses and not params["quantizer_weight"]:
        return "type quantizer_weight=1: the codebook learns from the quantizer's own loss alone"
    if part.startswith("encoder") and quantizer.saturates:
        why = f"large inputs saturate {params['quantizer'].upper()}, which then lets no gradient through"
        return f"type {slower(params, 0.1)}: {why}"
    return (
        f"type {slower(params, 0.1)}, or if that does not help report it: a part that cannot learn is a bug"
    )


def fix_collapse(params: Params) -> list[str]:
    losses, tips = QUANTIZERS[params["quantizer"]].losses, []
    if "kl" in losses:
        return [f"kl_weight={params['kl_weight'] / 100:.1g}"]
    if "entropy" in losses:
        weight, end = max(0.1, 2 * params["entropy_weight"]), max(0.01, params["entropy_weight_end"])
        tips.append(f"entropy_weight={weight:.2g} and entropy_weight_end={end:.2g}")
    if "commitment" in losses and params["commitment_weight"] > 0.25:
        tips.append("commitment_weight=0.25")
    tips.append(slower(params))
    if not params["token_mixing"]:
        tips.append("token_mixing=true")
    if losses:
        tips.append("quantizer=fsq, which has no codebook to lose")
    return tips


def fix_mean_image(params: Params) -> list[str]:
    tips = []
    if params["elastic"] and params["elastic_warmup_fraction"] < 0.2:
        tips.append("elastic_warmup_fraction=0.4, to learn with all tokens first")
    if not params["token_mixing"]:
        tips.append("token_mixing=true")
    if "kl" in QUANTIZERS[params["quantizer"]].losses:
        tips.append(f"kl_weight={params['kl_weight'] / 100:.1g}")
    if params["optimizer"] == "adamw":
        faster = f"lr={params['lr'] * 3:.1g}, or optimizer=muon" if params["lr"] < 1e-3 else "optimizer=muon"
        tips.append(faster)
    return tips or [slower(params)]


def fix_discriminator(params: Params) -> list[str]:
    lr = (params["discriminator_lr"] or params["lr"]) / 5
    tips = [f"discriminator_lr={lr:.1g}", f"lecam_weight={max(0.001, 3 * params['lecam_weight']):.1g}"]
    later = max(params["discriminator_start"] * 2, params["steps"] // 4)
    return [*tips, f"discriminator_start={later}, when reconstructions are better"]


def fix_onset(params: Params) -> list[str]:
    ramp = max(2 * params["discriminator_ramp"], params["steps"] // 10)
    return [f"discriminator_ramp={ramp}", f"adversarial_weight={params['adversarial_weight'] / 3:.1g}"]


def fix_under_trained(params: Params) -> list[str]:
    tips = [f"steps={4 * params['steps']}"]
    if params["patch_size"] > 8 and params["encoder"] == "vit":
        tips.insert(0, "patch_size=8")
    if params["decoder_refine"] == "none":
        tips.append("decoder_refine=small")
    if params["encoder"] == "vit":
        tips.append("encoder=linear decoder_refine=small, to start from that code")
    return tips


def fix_data_bound(params: Params) -> list[str]:
    return [
        "outputs=FOLDER on a local disk, where decoded images are cached",
        "data=FOLDER on one, for sources that are not cached",
    ]


Record = dict[str, float]

LEAST = 4  # records that a complaint must last
SKIPPED = 3  # steps without a finite gradient
FALL = 3.0  # dB
GRAY = 6.0  # dB: images in 0 … 1 are never worse reconstructed by plain gray than 10 log10(1 / 0.25)
EXPLOSION = 100  # times as large as before
OVERFLOW = 1e4  # times the norm that gradients are clipped to
DEAD = 1e-9  # of the largest gradient of another part
SAME_TOKENS = 0.01  # variance of a token over the images, as a share of that over images and positions
FEW_CODES = 0.02  # perplexity, as a share of the codes that a batch could use
NO_NATS = 0.05  # of KL divergence, a token
SAME_IMAGE = 0.05  # variance of reconstructions over the images, as a share of the images' own
GROWTH = 1.5  # times, from the first to the second half of the last stretch
SURE = 0.05  # hinge loss, which starts at 1
APART = 8.0  # logits
HEAVY = 1000  # times adversarial_weight; VQGAN's adaptive weight ends at 10,000
WAITING = 0.3  # of the time
OVER_IMAGES = ("variation", "token_variation")  # are 0 for batches of a single image


class Context(NamedTuple):
    """What the records do not say: the run's parameters, and how many tensors of each part got a gradient
    (`parameters` of `load_report.json`).
    """

    params: dict[str, Any]
    parts: Sequence[dict[str, Any]] = ()


class Case:
    """The records so far, as the checks ask for them."""

    def __init__(self, records: list[Record], context: Context):
        defaults = {name: field.default for name, field in fields(*configs_of("train")).items()}
        self.records, self.params, self.parts = records, defaults | context.params, context.parts
        self.step = records[-1]["step"] if records else 0
        self.patience = min(max(self.params["steps"] // 100, 50), 1000)  # steps that a complaint must last
        self.recent = self.tail(records)

    def tail(self, records: list[Record]) -> list[Record]:
        """The last of `records`: those of the last `patience` steps, but at least `LEAST`; [] while the run,
        or the list, is shorter than that.
        """
        count = 0
        while count < len(records) and records[-1 - count]["step"] > self.step - self.patience:
            count += 1
        short = len(records) < LEAST or self.step < self.patience
        return [] if short else records[-max(count, LEAST) :]

    def possible(self, record: Record) -> int:
        """The codes that the batch of a record could use."""
        p = self.params
        tokens = p["batch_size"] * int(record.get("num_tokens", p["num_latent_tokens"]))
        return min(tokens, number_of_codes(p["quantizer"], p))

    def values(self, key: str) -> list[float]:
        """`key` in the last stretch; [] unless all of it has it."""
        if key in OVER_IMAGES and self.params["batch_size"] == 1:
            return []
        return [r[key] for r in self.recent] if all(key in r for r in self.recent) else []

    def since(self, holds: Callable[[Record], bool]) -> int:
        """The first step of the unbroken stretch of records, up to now, for which `holds`."""
        step = self.step
        for record in reversed(self.records):
            if not holds(record):
                break
            step = record["step"]
        return int(step)

    def finds(self, name: str, since: float, evidence: str, **details: Any) -> Diagnosis:
        return Diagnosis(name, int(since), evidence, advice(name, self.params, **details))


def percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def nan(case: Case) -> Diagnosis | None:
    """Steps that were skipped: the only complaint that need not last."""
    stretch = [r for r in case.records if r["step"] > case.step - case.patience]
    before = case.records[-len(stretch) - 1] if len(stretch) < len(case.records) else {}
    first = before.get("skipped", 0)
    bad = [r for r in stretch if r.get("skipped", 0) > first or not all(map(math.isfinite, r.values()))]
    skipped = max(stretch[-1].get("skipped", len(bad)) - first, 0) if stretch else 0
    if skipped < SKIPPED:
        return None
    after = f" after step {before['step']:.0f}" if before else ""
    return case.finds("nan", bad[0]["step"], f"{skipped:.0f} steps were skipped{after}")


def diverging(case: Case) -> Diagnosis | None:
    """PSNR with all tokens, now against the best so far; a discriminator's arrival has a name of its own."""
    most = max((r.get("num_tokens", 0) for r in case.records), default=0)
    records = [
        r for r in case.records if r.get("num_tokens", 0) == most and math.isfinite(r.get("psnr", math.nan))
    ]
    last = case.tail(records)
    if not last:
        return None
    now, n = median(r["psnr"] for r in last), len(last)
    starts = range(0, len(records) - n + 1, max(1, len(records) // 200))
    best, at = max((median(r["psnr"] for r in records[i : i + n]), -i) for i in starts)
    peak = records[n // 2 - at]["step"]
    limit = best - FALL if now <= best - FALL else GRAY
    if now > limit:
        return None
    evidence = f"PSNR {now:.1f} dB, under the {GRAY:.0f} dB of plain gray"
    if limit != GRAY:
        evidence = f"PSNR {now:.1f} dB after {best:.1f} dB around step {peak:.0f}"
    since = case.since(lambda r: r.get("num_tokens", 0) < most or r.get("psnr", math.inf) <= limit)
    onset = next((r["step"] for r in case.records if "logits_fake" in r), math.inf)
    return case.finds("gan-onset" if peak <= onset <= since else "diverging", since, evidence)


def exploding_gradient(case: Case) -> Diagnosis | None:
    norms = [norm for norm in case.values("grad_norm") if math.isfinite(norm)]
    if len(norms) < LEAST:
        return None
    earlier = [r["grad_norm"] for r in case.records[: -len(case.recent)] if "grad_norm" in r]
    usual = median(earlier) if len(earlier) >= LEAST else math.inf
    clip = case.params["grad_clip"]
    limit = min(max(EXPLOSION * usual, 10 * clip), OVERFLOW * clip)
    if median(norms) <= limit:
        return None
    before = f" after {usual:.2g}" if len(earlier) >= LEAST else ""
    evidence = f"gradient norm {median(norms):.2g}{before}; steps are clipped to grad_clip={clip:g}"
    return case.finds("exploding-gradient", case.since(lambda r: r["grad_norm"] > limit), evidence)


def dead_parameters(case: Case) -> Diagnosis | None:
    for row in case.parts:
        if row.get("trainable") and not row.get("gradient_not_0", 1):
            evidence = f"no tensor of the {row['part']} had a gradient other than 0 at step 2"
            return case.finds("dead-parameters", 2, evidence, part=row["part"])
    last = case.recent[-1] if case.recent else {}
    norms = [key for key in last if key.startswith("grad_norm_")]  # of each part
    for key in norms:

        def dead(record: Record, key: str = key) -> bool:
            others = [record.get(other, 0.0) for other in norms if other != key]
            largest = max(filter(math.isfinite, others), default=0.0)
            return largest > 0 and key in record and not record[key] > DEAD * largest

        if all(map(dead, case.recent)):
            part = key.removeprefix("grad_norm_")
            evidence = f"the {part}'s gradient norm is {last[key]:.2g}, while other parts' are not"
            return case.finds("dead-parameters", case.since(dead), evidence, part=part)
    return None


def collapse(case: Case) -> Diagnosis | None:
    """Tokens that are alike for all images, or a batch that uses next to no codes."""
    same, nats = case.values("token_variation"), case.values("kl")
    if same and median(same) < SAME_TOKENS and not nats:
        since = case.since(lambda r: r.get("token_variation", 1) < SAME_TOKENS)
        evidence = f"{percent(median(same))} of the tokens' variance is from image to image"
        if used := case.values("perplexity"):
            possible = case.possible(case.recent[-1])
            evidence += f", and a batch uses {median(used):.1f} codes of the {possible:,} that it could"
        return case.finds("collapse", since, evidence)
    if nats and median(nats) < NO_NATS:
        evidence = f"the KL divergence is {median(nats):.2g} nats a token, so tokens are noise"
        return case.finds("collapse", case.since(lambda r: r.get("kl", 1) < NO_NATS), evidence)

    def few(record: Record) -> bool:
        return record.get("perplexity", math.inf) < FEW_CODES * case.possible(record)

    if not (case.values("perplexity") and all(map(few, case.recent))):
        return None
    last = case.recent[-1]
    evidence = f"a batch uses {last['perplexity']:.1f} codes of the {case.possible(last):,} that it could"
    return case.finds("collapse", case.since(few), evidence)


def mean_image(case: Case) -> Diagnosis | None:
    """No variation over the images, once the learning rate is up, and none that is growing."""
    varies = case.values("variation")
    if not varies or max(varies) >= SAME_IMAGE or case.step < case.params["warmup_steps"] + case.patience:
        return None
    half = len(varies) // 2
    first, second = median(varies[:half]), median(varies[half:])
    if second + 1e-6 > GROWTH * (first + 1e-6):
        return None
    evidence = f"reconstructions vary {percent(median(varies))} as much as the images do, and no longer more"
    since = case.since(lambda r: r.get("variation", 1) < SAME_IMAGE)
    return case.finds("mean-image", since, evidence, collapsed=collapse(case) is not None)


def discriminator_winning(case: Case) -> Diagnosis | None:
    """A hinge loss of nearly 0: every logit is on its side, far beyond the margin of 1."""
    keys = ("discriminator", "logits_real", "logits_fake", "adaptive_weight")
    loss, real, fake, weight = (median(case.values(key) or [0.0]) for key in keys)
    sure = bool(case.values("discriminator")) and loss < SURE and real - fake > APART
    limit = HEAVY * case.params["adversarial_weight"]
    if not sure and not (case.params["adaptive_weight"] and weight > limit > 0):
        return None

    def holds(record: Record) -> bool:
        return record.get("discriminator", 1) < SURE if sure else record.get("adaptive_weight", 0) > limit

    evidence = f"logits of images {real:.1f}, of reconstructions {fake:.1f}, its loss {loss:.2g}"
    return case.finds("discriminator-winning", case.since(holds), f"{evidence}, adaptive weight {weight:.2g}")


def data_bound(case: Case) -> Diagnosis | None:
    waits = case.values("loader_wait")
    if not waits or median(waits) < WAITING:
        return None
    evidence = f"the loop waits {median(waits):.0%} of the time"
    return case.finds("data-bound", case.since(lambda r: r.get("loader_wait", 0) >= WAITING), evidence)


CHECKS = (
    nan, diverging, exploding_gradient, dead_parameters, collapse, mean_image, discriminator_winning,
    data_bound,
)  # fmt: skip


class Plot(NamedTuple):
    """A small plot of the doctor's panel: its title, which keys of a record it shows by which label, how."""

    title: str
    curves: dict[str, str]  # key -> label
    names: tuple[str, ...] = ()  # the diagnoses that it shows
    log: bool = False
    share: bool = False  # 0 … 1, in per cent


PLOTS = (
    Plot("loss terms", {
        "l1": "L1", "l2": "L2", "charbonnier": "Charbonnier", "perceptual": "perceptual", "align": "align",
        "commitment": "commitment", "kl": "KL", "entropy_sample": "entropy/token",
        "entropy_batch": "entropy/batch",
    }, ("diverging", "gan-onset"), log=True),
    Plot("gradient norm", {
        "grad_norm_encoder": "encoder", "grad_norm_quantizer": "quantizer", "grad_norm_decoder": "decoder",
    }, ("nan", "exploding-gradient", "dead-parameters"), log=True),
    Plot("variation over images", {
        "variation": "reconstructions", "token_variation": "tokens",
    }, ("mean-image", "collapse"), share=True),
    Plot("codes of a batch", {
        "codes_used": "in use", "perplexity": "effective (perplexity)",
    }, ("collapse",)),
    Plot("discriminator's logits", {
        "logits_real": "images", "logits_fake": "reconstructions",
    }, ("discriminator-winning",)),
    Plot("waiting for images", {"loader_wait": ""}, ("data-bound",), share=True),
)  # fmt: skip
