"""Labels without hands: what a TCL model finds in pictures by words, as a data set that detectors train from.

``footage`` reads pictures and frames of videos, ``things`` turns maps of scores into objects, ``splits`` divides frames
into what is learnt from and what is evaluated on, ``dataset`` writes COCO JSON.
"""
