"""TCL (arXiv 2212.00785): segmentation by any words, learnt from pictures with captions, without a single mask.

In reading order: ``spec`` (what a model is built from), ``tokenizer``, ``clip`` (both encoders), ``clip_weights``,
``mobile`` (the image side of the small variant), ``decoder``, ``masker``, ``model`` (the whole), ``checkpoint``; and
for inference ``prompts``, ``pamr``, ``windows`` and ``segmenter``.
"""
