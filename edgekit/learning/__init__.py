"""What training needs beside the models: targets, losses, schedules, averaging, many processes, plots (PyTorch)."""
