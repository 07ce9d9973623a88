"""The contact sheet of the most confident mistakes, of predictions and the images that they are of. Local only.

Refused: data without images; images that are not those of the predictions.
"""

import datasets

from hf_cxr.data import is_streamed, with_images
from hf_cxr.data.images.decoded import grey_of
from hf_cxr.evaluation.mistakes import confident_mistakes
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.mistakes import Tile, contact_sheet, thumbnail

SIDE = 224  # pixels of a picture's longer side


def mistakes_page(title: str, predictions: Predictions, images: datasets.Dataset, *, most: int) -> str:
    """The page as HTML.

    Args:
        title: which model on which data.
        predictions: of the images, in their order.
        images: of the schema (`data.schema`), with an image column, or a stream.
        most: images in each list.

    Raises:
        ValueError: see the module's first lines; ``most`` below 1.
        ImageError: an image cannot be read.
    """
    if "image" not in images.column_names and not is_streamed(images):
        raise ValueError("--mistakes shows radiographs, and these data have none: give the source with its images")
    if tuple(images["image_id"][:]) != predictions.image_ids:
        raise ValueError("the predictions are of other images, or in another order: predict these images again")
    found = confident_mistakes(predictions.probabilities, predictions.labels, predictions.patient_ids, most=most)
    rows = sorted({row for one in found for row in (*one.high_negatives, *one.low_positives)})
    chosen = with_images(images, rows).cast_column("image", datasets.Image(decode=False))
    picture = {row: thumbnail(grey_of(example), SIDE) for row, example in zip(rows, chosen, strict=True)}
    return contact_sheet(
        title,
        {
            name: tuple(
                [_tile(predictions, row, column, picture[row]) for row in rows_of_list]
                for rows_of_list in (one.high_negatives, one.low_positives)
            )
            for column, (name, one) in enumerate(zip(predictions.label_names, found, strict=True))
        },
    )


def _tile(predictions: Predictions, row: int, column: int, png: str) -> Tile:
    known = []
    if predictions.view is not None and predictions.view[row]:
        known.append(predictions.view[row])
    if predictions.sex is not None and predictions.sex[row]:
        known.append(predictions.sex[row])
    if predictions.age is not None and predictions.age[row] == predictions.age[row]:
        known.append(f"{predictions.age[row]:.0f} years")
    present = [
        name for name, label in zip(predictions.label_names, predictions.labels[row], strict=True) if label == 1
    ]
    return Tile(
        image_id=predictions.image_ids[row],
        score=f"{predictions.probabilities[row, column]:.3f}",
        facts=", ".join(known) or "view, sex and age unknown",
        labels=f"label: {', '.join(present)}" if present else "no finding labelled present",
        png=png,
    )
