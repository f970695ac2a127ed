"""Keras beside the rules whose other oracles are in ``test_oracles.py``."""

from oracle import torch_oracle

ORACLES = [
    torch_oracle("adam", {"lr": 0.1}, "Adam", {"lr": 0.1}),
]
