# Align-TI on machines with NVIDIA GPUs. No models and no data are downloaded while building.
#
#   docker build -t align-ti .
#   docker build -t align-ti --build-arg USER_ID="$(id -u)" --build-arg EXTRAS=lora,eval,flash .
#   docker run --rm -it --gpus all --ipc=host --ulimit memlock=-1 \
#       -v /path/to/data:/workspace/align-ti/playground/data -v /path/to/checkpoints:/workspace/align-ti/checkpoints \
#       -v "$HOME/.cache/huggingface:/home/align/.cache/huggingface" align-ti bash scripts/distill/align_ti.sh
#
# Processes exchange batches through shared memory: without --ipc=host, give --shm-size=16g. Another CUDA (an older
# driver): --build-arg BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-devel. The devel images have the compilers that
# DeepSpeed's operators, torch.compile and the extra `flash` need.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-devel
FROM ${BASE_IMAGE}

ARG DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# What is written into mounted folders belongs to this user. Ubuntu's own has the id that most people have.
ARG USER_ID=1000
RUN (userdel --remove ubuntu || true) \
    && useradd --no-log-init --create-home --uid "${USER_ID}" --shell /bin/bash align \
    && install --directory --owner=align /workspace/align-ti
USER ${USER_ID}
WORKDIR /workspace/align-ti
COPY --chown=align . .

# Ubuntu's Python takes no packages; an environment above it does, and sees the image's torch, which setup.sh then keeps.
ARG EXTRAS=eval,lora,serve,tables,towers
RUN python3 -m venv --system-site-packages .venv \
    && PIP_NO_CACHE_DIR=1 EXTRAS="${EXTRAS}" bash scripts/setup.sh
ENV PATH=/workspace/align-ti/.venv/bin:${PATH}

CMD ["bash"]
