"""Synthetic radiographs of the thorax with the 14 NIH findings. It knows nothing of the rest of the package."""
