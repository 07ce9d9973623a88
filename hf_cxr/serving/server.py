"""The service: LitServe with the routes, the limits and the metrics of `hf-cxr serve`.

| route                | what                                                                           |
|----------------------|--------------------------------------------------------------------------------|
| POST /predict        | JSON with the file in base64                                                   |
| POST /predict-file   | multipart/form-data with the file as ``image``                                 |
| GET /health          | 200 when the model is ready, 503 before                                        |
| GET /info            | what the model is, from its record                                             |
| GET /metrics         | Prometheus                                                                     |
| GET /openapi.json    | the description of all of these                                                |

LitServe's page at /docs loads its scripts from another host, so it is not offered. Its own /predict keeps the answer
to a request that was given up, so the route here is another (`requests.OneRequest`).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import litserve
from fastapi import Depends, File, UploadFile
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hf_cxr.inference.input_check import InputCheck
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.input_check_words import false_alarm_words, input_check_limits
from hf_cxr.reporting.training_history import training_history
from hf_cxr.saved_models import check_multi_label, check_weights, fingerprint, model_folder, public_name, read_config
from hf_cxr.serving.api import LONGEST_NAME, NO_NAME, UNREADABLE, ImageRequest, PredictAPI, Upload
from hf_cxr.serving.gate import BYTES_REPAIR, Gate, Metrics
from hf_cxr.serving.requests import OneRequest
from hf_cxr.words import NOTICE

logger = logging.getLogger(__name__)

MEGABYTE = 1_000_000
MULTIPART_OVERHEAD = 10_000  # bytes beside the file in a request
GRACE = 5  # seconds after the timeout in which LitServe may still answer; then the request is given up


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        model: run folder or Hub id.
        revision: branch, tag or commit of a Hub id.
        device: "auto", "cpu", "cuda" or "mps".
        workers: copies of the model on each device.
        batch_size: images that the model sees at once; 1 predicts one after the other.
        batch_wait: seconds that the first image of a batch waits for others.
        timeout: seconds after which a request that still waits for a worker is answered with 504; `GRACE` seconds
            later, one whose worker died or hangs.
        max_megabytes: of an image file.
        max_pixels: of an image, width times height.
        max_waiting: requests in progress from which another one is turned away with 503.
        token: that requests must bring; None for none.
        name: what answers call the model; by default its Hub id, or the folder's own name and not its place on this
            machine.

    Raises:
        ValueError: a value is out of its range.
    """

    model: str
    revision: str = "main"
    device: str = "auto"
    workers: int = 1
    batch_size: int = 16
    batch_wait: float = 0.01
    timeout: float = 30
    max_megabytes: float = 50
    max_pixels: int = 50_000_000
    max_waiting: int = 128
    token: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for key in ("workers", "batch_size", "max_pixels", "max_waiting"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("timeout", "max_megabytes"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be more than 0")
        if not 0 <= self.batch_wait < self.timeout:
            raise ValueError(f"batch_wait is {self.batch_wait}; it must be 0 or more, and less than timeout")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError("the token must be printable ASCII, and not empty")
        if self.name is not None and not (self.name.strip() and self.name.isprintable()):
            raise ValueError("name must be printable, and not empty")

    @property
    def shown_name(self) -> str:
        """What answers call the model."""
        return self.name or public_name(self.model)

    @property
    def max_bytes(self) -> int:
        """Of a request's body: base64 makes 4 bytes of 3."""
        return int(self.max_megabytes * MEGABYTE * 4 / 3) + MULTIPART_OVERHEAD


def describe_model(settings: Settings, folder: Path) -> dict[str, Any]:
    """What /info says of the model, from its config.json alone.

    Args:
        settings: of the service.
        folder: of the model, as `saved_models.model_folder` gives it.

    Raises:
        FileNotFoundError: it has no weights.
        ValueError: it is not a multi-label classifier, or its record is damaged.
    """
    check_weights(folder, settings.model)
    config = read_config(folder)
    check_multi_label(config.get("problem_type"), settings.model)
    record = ModelRecord.of(config) or ModelRecord()
    return {
        "name": settings.shown_name,
        "sha256": fingerprint(folder),
        "findings": [config["id2label"][key] for key in sorted(config["id2label"], key=int)],
        "dataset": record.dataset,
        "training": training_history(record),
        "synthetic": record.synthetic,
        "calibrated": record.calibration is not None,
        "prevalence": record.prevalence,
        "input_check": describe_input_check(InputCheck.load(folder)),
        "version": record.version,
        "licence_note": record.licence_note,
        "notice": NOTICE,
    }


def describe_input_check(check: InputCheck | None) -> dict[str, Any] | None:
    """What /info says of the input check: how often it is wrong, what it misses; None for a model without one.

    >>> describe_input_check(None) is None
    True
    """
    if check is None:
        return None
    limits = [false_alarm_words(check.measured), input_check_limits(check.measured)]
    return {"limits": limits, "target": check.target, "measured": check.measured}


def build_server(settings: Settings) -> litserve.LitServer:
    """The service, which ``run`` starts. With one HTTP process (``num_api_servers=1``) the metrics are whole.

    Raises:
        FileNotFoundError: the folder of the model does not exist or has no model.
        ValueError: see `describe_model`.
    """
    folder = model_folder(settings.model, settings.revision)
    described = describe_model(settings, folder)
    api = PredictAPI(
        folder,
        settings.max_pixels,
        {key: described[key] for key in ("name", "sha256", "synthetic")},
        max_batch_size=settings.batch_size,
        batch_timeout=settings.batch_wait,
    )
    metrics = Metrics()
    gate = {
        "metrics": metrics,
        "token": settings.token,
        "max_bytes": settings.max_bytes,
        "max_waiting": settings.max_waiting,
        "timeout": settings.timeout + GRACE,
    }
    server = litserve.LitServer(
        api,
        accelerator=settings.device,
        workers_per_device=settings.workers,
        timeout=settings.timeout,
        model_metadata=described,
        middlewares=[(Gate, gate)],
        restart_workers=True,
    )
    server.app.title, server.app.description = "hf_cxr", f"Probabilities of findings on a chest X-ray. {NOTICE}"
    add_routes(server, api, metrics, settings)
    return server


def add_routes(server: litserve.LitServer, api: PredictAPI, metrics: Metrics, settings: Settings) -> None:
    """Add the routes of this service, and take away those of LitServe that it does not offer."""
    app = server.app
    app.router.routes = [
        route for route in app.routes if getattr(route, "path", "") not in ("/docs", "/redoc", "/predict")
    ]
    allowed = [Depends(server.setup_auth(api))]  # what LitServe asks for at every route of its own
    max_file = int(settings.max_megabytes * MEGABYTE)

    @app.post("/predict", summary="Predict", dependencies=allowed)
    async def predict(request: ImageRequest) -> Response:
        return await OneRequest(api, server).handle_request(request, ImageRequest)

    @app.post("/predict-file", summary="Predict File", dependencies=allowed)
    async def predict_file(image: Annotated[UploadFile, File(description="An image or DICOM file.")]) -> Response:
        content = await image.read()
        name = (image.filename or NO_NAME)[-LONGEST_NAME:]
        if not content:
            return JSONResponse({"detail": f"{name} is empty", "image": name}, status_code=UNREADABLE)
        if len(content) > max_file:
            detail = f"{name} has more than {max_file:,} bytes; {BYTES_REPAIR}"
            return JSONResponse({"detail": detail, "image": name}, status_code=413)
        return await OneRequest(api, server).handle_request(Upload(content, name), Upload)

    @app.get("/metrics", summary="Prometheus")
    async def read_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> Response:
        # FastAPI would send the body back, and with it the image.
        wrong = [f"{' '.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"detail": "; ".join(wrong)}, status_code=UNREADABLE)
