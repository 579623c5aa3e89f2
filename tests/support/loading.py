"""Training images of a source at 16 pixels, and what is said when there are none."""

import pytest

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.data.sources import find_sources


def load(data, tmp_path, **params):
    config = DataConfig(data=data, val_data="toy-roads", toy_val_images=1, **params)
    return load_data(config, 16, tmp_path / "cache")[0]


def sentence(data, tmp_path) -> str:
    with pytest.raises(ConfigError) as caught:
        find_sources(DataConfig(data=data), 16, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    return str(caught.value)
