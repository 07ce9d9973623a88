"""A saved model behind an address: what `hf-cxr serve` runs (LitServe), and `handler.py` of an Inference Endpoint.

    from hf_cxr.serving.server import Settings, build_server

    build_server(Settings(model="runs/quickstart")).run(port=8000, generate_client_file=False)

Every answer is an `inference.ImageResult` as JSON. No image is kept: not in memory after its answer, and not on disk.
One image that cannot be read is an answer with a status of 4xx; the images next to it in its batch are predicted.
"""
