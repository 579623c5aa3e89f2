"""The networks: encoder, quantizer, decoder, pretrained weights. Imports only `config` and `distributed`."""
