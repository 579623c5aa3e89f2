"""The benchmark of peers counts the operations that their networks have."""

from benchmarks.peers import measure
from tok1d.config.peers import PEERS
from tok1d.models.peers import published_config


def test_operations_grow_with_the_tokens():
    small = published_config(PEERS["titok-ll32-vae"])._replace(
        encoder_size="small", decoder_size="small", image_size=32
    )
    few, many = (measure(small._replace(num_latent_tokens=k), 2, 1) for k in (2, 64))
    for facts in (few, many):
        assert facts["encoded images/s"] > 0 and facts["decoded images/s"] > 0 and "M" in facts["parameters"]
    flops = [float(facts["decode FLOPs"].split()[0]) for facts in (few, many)]
    assert flops[1] > 4 * flops[0]
