"""What turns sources, a detector and sinks into a loop that may run for a year."""
