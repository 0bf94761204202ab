"""Compact execution of a masked graph: the program that an export writes, its file, and a reference that runs it."""
