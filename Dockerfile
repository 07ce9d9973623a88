# `hf-cxr serve` in a container: for research, not for diagnosis.
#
#   docker build -t hf-cxr .
#   docker run --rm -p 127.0.0.1:8000:8000 -v $PWD/runs/quickstart:/model:ro \
#     -e HF_CXR_SERVE_TOKEN=A_LONG_SECRET hf-cxr --name quickstart
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t hf-cxr:cuda .
#   docker run --rm --gpus all -p 8000:8000 -v /models/nih:/model:ro \
#     -e HF_CXR_SERVE_TOKEN=A_LONG_SECRET hf-cxr:cuda --name nih
#
# Without a token it does not start; --no_token at the end of the line lets everyone in. --name is what answers call the
# model, whose folder is /model for all of them.
# The model is mounted, not copied in: its folder decides what is served. No image that is sent is written anywhere.
FROM python:3.11-slim

# The CPU build of torch, unless the second command above names another.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/hf_cxr
COPY constraints.txt ./
# First what changes least, so that a change of the code rebuilds little.
RUN torch=$(grep '^torch==' constraints.txt) && pip install --index-url "$TORCH_INDEX" "$torch"
COPY pyproject.toml README.md LICENSE model_card.md ./
COPY configs configs
COPY hf_cxr hf_cxr
RUN pip install --constraint constraints.txt '.[dicom,fast,serve]'

RUN useradd --create-home service
USER service
WORKDIR /home/service
# One thread a worker by default; nothing is fetched from the Hub.
ENV HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGINT
ENTRYPOINT ["hf-cxr", "serve", "/model", "--host", "0.0.0.0"]
