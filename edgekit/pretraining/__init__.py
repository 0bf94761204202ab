"""Pretraining without labels: SCRL (arXiv 2103.06122), and BYOL (arXiv 2006.07733), which it is held against.

Two views of a picture are cut out of it and changed in colour and sharpness. A network, the online one, learns to
predict from one view what a slowly following average of itself, the target, makes of the other. BYOL compares whole
views. SCRL compares boxes: where both views show the same place of the picture, their features there should agree, so
what is learnt keeps its place on the map, as a detector wants it.

In reading order: ``crops`` and ``box_generator`` (geometry), ``views`` (pixels), ``pictures`` and ``samples`` (data),
``roi_align``, ``backbones``, ``networks``, ``step`` (what is learnt), ``lars`` and ``schedule`` (how), ``run``.
"""
