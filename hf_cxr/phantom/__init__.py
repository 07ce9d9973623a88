"""Synthetic radiographs of the thorax with the 14 NIH findings.

Contract of the family: `cases` decides who is drawn and with which findings, `thorax` builds and exposes the body,
`findings` adds each finding's signs and boxes, `render` turns one case into an 8-bit image with boxes. All depends on
the given seeds alone. No module here knows datasets, files or the rest of the package, except the label space.
"""
