"""A trained model in forms that other programs run: ONNX, torch.export, a page for a browser.

Contract of the family: nothing is trained or fitted here. A `Classifier` comes in, files go out, and each file is
compared with the classifier on images before it is kept: `parity` says how near they are, and a file that is further
off than its tolerance is removed. What was measured is in export.json next to the files.

    onnx_model            the model: `pixel_values` to `logits`
    preprocessing_graph   the same with its preprocessing: grey images of any size to `probabilities`
    quantize, cost        the same in 8-bit integers, and what that costs on labelled images
    program               the model as a torch.export program
    page                  a page that runs the model in a browser
    images                the images that files are compared on
    runtime               onnxruntime, in one place
    place                 a folder that may be written to
    summary               what a terminal shows
    exporter              all of it, in order

A file contains the weights, the names of the findings, thresholds and sizes, and no path and no stack trace of the
machine that wrote it.

B = images in a batch, C = findings, S = resized side, D = cropped side, H, W = height and width, in pixels.
"""
