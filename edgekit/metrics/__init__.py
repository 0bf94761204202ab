"""How good and how costly: average precision, mask recall, MACs, zero activations."""
