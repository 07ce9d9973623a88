"""Backbones with a multi-label head: built, loaded, checked, and the one place that knows their parts."""
