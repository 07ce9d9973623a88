"""Where a model looks: heat maps of findings, and the way from a map back to the original pixels.

- `maps`: Grad-CAM and Grad-CAM++ of any backbone, by way of `models.map_layer`; the table `METHODS`.
- `occlusion`: a method of captum, an optional extra, that needs no gradient.
- `geometry`: a map on the model's grid to the pixels of the file: resize and crop inverted.
- `controls`: maps that have not seen the image, and the same method on a model of random weights.

A map says which pixels the score came from. It does not say that the finding is there, nor that the score is right.
How good maps are is measured in `evaluation.localization`; pictures of them are in `reporting.overlay`.
"""
