"""Predictions of a saved model, for a whole split or for image files."""
