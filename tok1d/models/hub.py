"""Files of the Hugging Face hub, or of the mirror that `HF_ENDPOINT` names."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 5.0  # that a connection may take


def hub_file(repository: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, from the cache on this machine or fetched; `HF_HUB_OFFLINE=1` is honoured.

    Without internet it fails at once: the hub's own client would try for half a minute. Raises what
    `huggingface_hub.hf_hub_download` does.
    """
    from huggingface_hub import constants, hf_hub_download

    offline = constants.HF_HUB_OFFLINE or not can_reach(constants.ENDPOINT)
    return Path(hf_hub_download(repository, name, revision=revision, local_files_only=offline))


def can_reach(endpoint: str) -> bool:
    """Whether a connection can be made, asked until it can; where there is a proxy that is its business."""
    if endpoint not in _reached and (urlsplit(endpoint).scheme in getproxies() or reachable(endpoint)):
        _reached.add(endpoint)
    return endpoint in _reached


_reached: set[str] = set()


def reachable(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname, port), SECONDS).close()
    except OSError:
        return False
    return True
