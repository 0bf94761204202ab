"""PyTorch networks, one published system a file, and what describes them without PyTorch (anchors, registry)."""
