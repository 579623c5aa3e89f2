"""The training loop: steps, optimizers, checkpoints, processes, records, and the doctor that reads them."""
