"""A saved model's predictions: of a whole split, to evaluate it, or of images that a user gives.

    from hf_cxr.inference import Classifier, ImageResult

    classifier = Classifier("runs/quickstart")         # a run folder or a Hub id
    result = classifier.predict("chest.png")           # an ImageResult: probabilities, calls, label sets, input check
    for result in classifier.predict_images(images):   # an ImageResult, or the ImageError of an unreadable one
        ...

The names are loaded when they are first used, so that the command-line tool prints its help quickly.
"""

from hf_cxr.late_names import late_names

_HOME = {
    "Classifier": "hf_cxr.inference.classifier",
    "FindingResult": "hf_cxr.inference.results",
    "ImageError": "hf_cxr.data.images.grey",
    "ImageResult": "hf_cxr.inference.results",
    "InputCheckResult": "hf_cxr.inference.results",
}

__all__ = sorted(_HOME)

__getattr__, __dir__ = late_names(__name__, _HOME)
