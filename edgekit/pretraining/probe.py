"""How well a linear classifier of the pooled features names pictures that nothing was learnt from."""

from __future__ import annotations

import numpy as np
import torch

from edgekit.pretraining.networks import Learner
from edgekit.pretraining.pictures import Pictures
from edgekit.pretraining.views import middle


@torch.no_grad()
def probe_accuracy(learner: Learner, pictures: Pictures, *, side: int, batch_size: int) -> float:
    """The share of ``pictures``, all labelled, that the probe names rightly from the middle of each; 0..1.

    Norms use their running statistics; the learner's mode is as before afterwards.
    """
    assert learner.probe is not None
    training, device = learner.training, next(learner.parameters()).device
    learner.eval()
    right = 0
    for start in range(0, len(pictures.items), batch_size):
        items = pictures.items[start : start + batch_size]
        views = torch.from_numpy(np.stack([middle(item.read(), side=side) for item in items])).permute(0, 3, 1, 2)
        _, pooled = learner.online(learner.normalise(views.to(device)), None)
        labels = torch.tensor([item.label for item in items], device=device)
        right += int((learner.probe(pooled).argmax(dim=1) == labels).sum())
    learner.train(training)
    return right / len(pictures.items)
