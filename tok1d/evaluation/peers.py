"""A peer's evaluations lie in a run folder, `outputs/peers/<name>/`: whatever reads runs reads them too.

| file | what |
|---|---|
| params.yaml | which peer it is, its image size and tokens |
| bridge_report.json | what became of every tensor, where it came from, its license, and a self-test |
| evaluations/ | numbers with their card, and of each image, by the images' fingerprint |
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from tok1d.config.fields import ConfigError
from tok1d.config.peers import PEER, is_file, is_peer, peer_of, peer_run
from tok1d.config.schema import RunConfig
from tok1d.data.dataset import ImageDataset, to_float
from tok1d.models.peers import load_peer
from tok1d.models.peers.report import TESTED, self_test
from tok1d.runs import PEER_RUNS, Run

REPORT = "bridge_report.json"


def open_run(name: str | Path, outputs: str = RunConfig().outputs) -> Run:
    """The folder of a run, or of a peer's evaluations (`peer:NAME`, `peer:PATH`), which is made. Raises
    `ConfigError` for a peer that cannot be had.
    """
    if not is_peer(name):
        return Run(name)
    run = Run(Path(outputs) / PEER_RUNS / peer_run(str(name)))
    if not run.done:
        keep_facts(run, str(name), load_peer(str(name)), outputs)
    return run


def load_peer_of(run: Run) -> Any:
    """The peer whose evaluations are in this folder, on the GPU if there is one."""
    name = run.params["peer"]
    peer = load_peer(name)
    keep_facts(run, name, peer, run.params["outputs"])
    return peer.to("cuda" if torch.cuda.is_available() else "cpu")


def keep_facts(run: Run, name: str, peer: Any, outputs: str) -> None:
    """Which peer this is, and its report: that it has, if it is of the same file."""
    given = peer_of(name)
    where = str(Path(given).expanduser().resolve()) if is_file(given) else given
    counts = peer.token_counts or (0,)
    params = {
        "outputs": outputs, "sweep": PEER_RUNS, "run": run.name, "peer": PEER + where,
        "image_size": peer.config.image_size, "elastic": len(counts) > 1,
    }  # fmt: skip
    if max(counts):
        params["num_latent_tokens"] = max(counts)
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_text("params.yaml", yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    if not same_report(run, peer):
        run.write_json(REPORT, peer.report)
    run.write_json("done.json", {"peer": PEER + where})


def same_report(run: Run, peer: Any) -> bool:
    with suppress(OSError, ValueError):
        kept = json.loads((run / REPORT).read_text(encoding="utf-8"))
        return {name: kept[name] for name in kept if name != "self_test"} == peer.report
    return False


def self_tested(run: Run, peer: Any, images: ImageDataset) -> list[str]:
    """Eight images through a peer, into its report; a warning if they do not come back."""
    few = images.center_crops(range(min(TESTED, len(images))))
    device = next((p.device for p in peer.parameters()), torch.device("cpu"))
    found = self_test(peer, to_float(few.to(device)))
    run.write_json(REPORT, peer.report | {"self_test": found})
    return [f"{run.name}: {found['doubt']}"] if "doubt" in found else []


def data_of(run: Run, data: str) -> str:
    """The images that a peer is measured on: `data`, or those of its newest evaluation. Raises `ConfigError`
    without any, for a peer has no validation images.
    """
    if data:
        return data
    if not run.evaluations:
        raise ConfigError(
            f"{run.params['peer']} has no validation images of its own: type "
            f"'tok1d evaluate {run.params['peer']} --data FOLDER'"
        )
    return run.on("").evaluation.get("data", "")
