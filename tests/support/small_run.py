"""A run of seconds, ready for `train(*start(folder))`: its folder, images, tokenizer and training."""

from tok1d.config.parse import parse_train
from tok1d.data.dataset import load_data
from tok1d.runs import Run

SMALL = dict(
    image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4, elastic=False
)


def start(outputs, **params):
    params = (
        SMALL
        | dict(outputs=str(outputs), toy_images=8, toy_val_images=2, batch_size=2, optimizer="adamw")
        | params
    )
    configs = parse_train(params)
    run = Run.open(*configs)
    images, _ = load_data(configs.data, 16, run.cache)
    return run, images, configs.tokenizer, configs.train
