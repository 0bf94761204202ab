"""Labelled pictures: readers, the letterbox, augmentation and training samples."""
