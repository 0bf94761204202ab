"""How fast: latency percentiles, the stages of a frame, the machine and its peak."""
