"""Features on disk, found again by what they are features of: memory does not grow with the number of images.

store = FeatureStore(folder, extractor.dim, {"data_fingerprint": …})
if not store.complete:
    with store:
        for batch in images.batches(50, count):
            store.append(extractor(batch))
features = store.features      # float32 [N, D], memory-mapped
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tok1d.system import replacing


class FeatureStore:
    """The features of one set of images by one network, in one file below `folder`.

    The file's name is a hash of `facts`: whatever decides the features must be in there, such as their
    `count`. It appears once the `with` block ends, whole, and not at all if that fails.
    """

    def __init__(self, folder: str | Path, dim: int, facts: dict[str, Any]):
        key = hashlib.sha256(json.dumps(facts | {"dim": dim}, sort_keys=True).encode()).hexdigest()[:16]
        self.path, self.dim, self.facts = Path(folder) / f"{key}.f32", dim, facts

    @property
    def complete(self) -> bool:
        return self.path.is_file()

    @property
    def features(self) -> np.ndarray:
        """float32 [N, D]; writing to it leaves the file as it is."""
        return np.memmap(self.path, np.float32, mode="c").reshape(-1, self.dim)

    def __enter__(self) -> FeatureStore:
        self._replacing = replacing(self.path)
        self._file = open(self._replacing.__enter__(), "wb")
        return self

    def append(self, features: Tensor) -> None:
        """The next images' features, [B, D]."""
        self._file.write(features.detach().float().cpu().contiguous().numpy().data)

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        if error[0] is None:
            with replacing(self.path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(self.facts, indent=1) + "\n")
        self._replacing.__exit__(*error)
