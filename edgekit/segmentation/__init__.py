"""Segmentation by words where no PyTorch is: a graph that sees, a small file of words, and numpy between them.

The graph turns a picture into a map of embeddings; what is looked for is a file beside it (``prompts``), so that other
words need another file and no other graph. In reading order: ``spec`` (what must be known about a model), ``prompts``,
``fitting`` (a picture into the graph's input), ``scores`` (embeddings to masks), ``pamr``, ``enlarging`` (masks to the
picture's size) and ``pipeline`` (the whole). The networks and their training are ``edgekit.models.tcl``.
"""
