"""A model behind HTTP: contract: every answer is `inference.results.ImageResult.to_dict()`, and no image is kept."""
