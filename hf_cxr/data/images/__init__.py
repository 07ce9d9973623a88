"""Image files to 8-bit grey images.

Contract of the family: `grey` decodes one image (path or bytes) to (H, W) uint8 by one rule, with `dicom` for DICOM,
and raises `ImageError` with the file's name and the reason for whatever it cannot read. The other modules find files,
check them before training, and decode rows of a dataset by that rule.
"""
