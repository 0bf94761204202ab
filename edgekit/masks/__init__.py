"""Objectness masks: where they come from, how they look at every resolution, what they keep."""
