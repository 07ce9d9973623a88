"""A saved model to predictions, over a whole split or over image files."""
