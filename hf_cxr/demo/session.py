"""What the page does, without a page: an image in, a `PredictedImage` out; and a heat map of a finding.

What is kept of an image for its heat maps is its resized pixels and a small picture, in memory, for as long as the
caller keeps the `PredictedImage`.

H, W = height and width of the picture, S = side of the model's resized image, h, w = grid of a map.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hf_cxr.data.images.grey import resize_grey
from hf_cxr.demo.limits import Limits
from hf_cxr.demo.pictures import LONGEST
from hf_cxr.demo.uploads import GreyImage, UploadError, decode, file_name, read_upload, too_large
from hf_cxr.explain.geometry import Geometry
from hf_cxr.explain.maps import METHODS, heat_maps
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.results import ImageResult
from hf_cxr.reporting.overlay import under_map
from hf_cxr.reporting.pictures import shrunk

METHOD = "grad_cam"


@dataclass(frozen=True)
class PredictedImage:
    """What the model says of an image, and what its heat maps need.

    Attributes:
        name: of the image.
        size: width and height of the file in pixels.
        result: of `Classifier.predict`.
        picture_HW: the image as the model reads it, in grey, made smaller for the page.
        pixel_SS: resized for the model, uint8.
        remarks: what a reader should know of it, besides those of the result.
    """

    name: str
    size: tuple[int, int]
    result: ImageResult
    picture_HW: NDArray[np.uint8]
    pixel_SS: NDArray[np.uint8]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class HeatMap:
    """Where the score of a finding came from.

    Attributes:
        finding: its name.
        picture_HW3: the image under the map, uint8.
        flat: whether the map has the same value everywhere, so that it shows nothing.
        cropped: whether the model does not see the edge of the image, which is then darker.
    """

    finding: str
    picture_HW3: NDArray[np.uint8]
    flat: bool
    cropped: bool


class Session:
    """A model with the limits of a page.

    Args:
        classifier: the model.
        limits: of what a browser may send.
    """

    method_title = METHODS[METHOD].title

    def __init__(self, classifier: Classifier, limits: Limits | None = None):
        self.classifier, self.limits = classifier, limits or Limits()

    def predict_upload(self, name: object, content: object, size: object = None) -> PredictedImage:
        """What the model says of a file that a browser sent.

        Args:
            name: of the file.
            content: its bytes in base64; the page leaves them out where ``size`` is too large.
            size: in bytes, as the browser counted them.

        Raises:
            UploadError: the file is not taken; the message is for the reader.
        """
        name = file_name(name)
        if isinstance(size, int | float) and size > self.limits.bytes:
            raise too_large(name, self.limits)
        return self.predict(read_upload(decode(content, name, self.limits), name, self.limits))

    def predict(self, image: GreyImage) -> PredictedImage:
        """What the model says of an image that was read."""
        pixels = self.classifier.pixels
        # From the grey that is shown: the numbers are of the picture next to them, and the file is decoded once.
        result = replace(self.classifier.predict(image.grey_HW, name=image.name), remarks=image.doubts)
        height, width = image.grey_HW.shape
        return PredictedImage(
            name=image.name,
            size=(width, height),
            result=result,
            picture_HW=shrunk(image.grey_HW, LONGEST),
            pixel_SS=resize_grey(image.grey_HW, pixels.resize_size, pixels.resample),
            remarks=image.remarks,
        )

    def heat_map(self, predicted: PredictedImage, finding: object) -> HeatMap:
        """The heat map of a finding over an image.

        Raises:
            UploadError: the model has no such finding, or no heat maps; the message is for the reader.
        """
        names = self.classifier.label_names
        if finding not in names:
            raise UploadError("this model has no such finding")
        pixels = self.classifier.pixels
        pixel_values = pixels(torch.from_numpy(predicted.pixel_SS)[None, None].to(self.classifier.device))
        try:
            maps_11hw = heat_maps(METHOD, self.classifier.model, pixel_values, [names.index(finding)])
        except ValueError as error:
            raise UploadError(f"no heat map: {error}") from error
        raw_1hw = maps_11hw[0].numpy()
        width, height = predicted.size
        geometry = Geometry(height, width, pixels.resize_size, pixels.image_size)
        (map_HW,) = geometry.resample(raw_1hw, *predicted.picture_HW.shape)
        return HeatMap(
            str(finding), under_map(predicted.picture_HW, map_HW), bool(np.ptp(raw_1hw) == 0), geometry.start > 0
        )
