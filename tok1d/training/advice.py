"""What to try after a diagnosis: parameters to type, chosen by what the run was trained with."""

from __future__ import annotations

from typing import Any

Params = dict[str, Any]


def advice(name: str, params: Params, part: str = "", collapsed: bool = False) -> str:
    """One phrase, as a rule "type …"; the first thing named is the first to try."""
    if name == "dead-parameters":
        return dead(params, part)
    if name == "mean-image" and collapsed:
        return "cure the collapse, which lets nothing else through"
    choices = {
        "nan": overflow, "diverging": diverging, "exploding-gradient": overflow, "collapse": collapse,
        "mean-image": mean_image, "discriminator-winning": discriminator, "gan-onset": onset,
        "data-bound": data_bound,
    }  # fmt: skip
    return "type " + ", or ".join(choices[name](params))


def slower(params: Params, factor: float = 0.3) -> str:
    """A lower learning rate, of whichever optimizer there is."""
    lr = f"lr={params['lr'] * factor:.1g}"
    return f"muon_lr={params['muon_lr'] * factor:.1g} and {lr}" if params["optimizer"] == "muon" else lr


def overflow(params: Params) -> list[str]:
    tips = [slower(params)]
    if params["mixed_precision"] != "no":
        tips.append("mixed_precision=no to see whether bf16 is too coarse")
    if params["warmup_steps"] < 100:
        tips.append("warmup_steps=100")
    if params["grad_clip"] > 1:
        tips.append("grad_clip=1")
    return tips


def diverging(params: Params) -> list[str]:
    return [slower(params), f"warmup_steps={max(100, 2 * params['warmup_steps'])}"]


def dead(params: Params, part: str) -> str:
    if part == "quantizer" and params["quantizer"] in ("vq", "simvq") and not params["quantizer_weight"]:
        return "type quantizer_weight=1: the codebook learns from the quantizer's own loss alone"
    if part.startswith("encoder") and params["quantizer"] == "fsq":
        return f"type {slower(params, 0.1)}: large inputs saturate FSQ, which then lets no gradient through"
    return (
        f"type {slower(params, 0.1)}, or if that does not help report it: a part that cannot learn is a bug"
    )


def collapse(params: Params) -> list[str]:
    quantizer, tips = params["quantizer"], []
    if quantizer == "kl":
        return [f"kl_weight={params['kl_weight'] / 100:.1g}"]
    if quantizer in ("vq", "lfq", "softvq"):
        weight, end = max(0.1, 2 * params["entropy_weight"]), max(0.01, params["entropy_weight_end"])
        tips.append(f"entropy_weight={weight:.2g} and entropy_weight_end={end:.2g}")
    if quantizer in ("vq", "vq_ema", "simvq", "lfq") and params["commitment_weight"] > 0.25:
        tips.append("commitment_weight=0.25")
    tips.append(slower(params))
    if not params["token_mixing"]:
        tips.append("token_mixing=true")
    if quantizer != "fsq":
        tips.append("quantizer=fsq, which has no codebook to lose")
    return tips


def mean_image(params: Params) -> list[str]:
    tips = []
    if params["elastic"] and params["elastic_full_share"] < 0.2:
        tips.append("elastic_full_share=0.4, to learn with all tokens first")
    if not params["token_mixing"]:
        tips.append("token_mixing=true")
    if params["quantizer"] == "kl":
        tips.append(f"kl_weight={params['kl_weight'] / 100:.1g}")
    if params["optimizer"] == "adamw":
        faster = f"lr={params['lr'] * 3:.1g}, or optimizer=muon" if params["lr"] < 1e-3 else "optimizer=muon"
        tips.append(faster)
    return tips or [slower(params)]


def discriminator(params: Params) -> list[str]:
    lr = (params["discriminator_lr"] or params["lr"]) / 5
    tips = [f"discriminator_lr={lr:.1g}", f"lecam_weight={max(0.001, 3 * params['lecam_weight']):.1g}"]
    later = max(params["discriminator_start"] * 2, params["steps"] // 4)
    return [*tips, f"discriminator_start={later}, when reconstructions are better"]


def onset(params: Params) -> list[str]:
    ramp = max(2 * params["discriminator_ramp"], params["steps"] // 10)
    return [f"discriminator_ramp={ramp}", f"adversarial_weight={params['adversarial_weight'] / 3:.1g}"]


def data_bound(params: Params) -> list[str]:
    return [
        "outputs=FOLDER on a local disk, where decoded images are cached",
        "data=FOLDER on one, for sources that are not cached",
    ]
