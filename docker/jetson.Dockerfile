# Jetson with JetPack 7.2, built on the board. From the root of the checkout:
#   docker build -f docker/jetson.Dockerfile -t mmedge:jetson .
# TensorRT is JetPack's own package, for the system's Python; the driver comes from the board (--runtime nvidia).
ARG BASE=ubuntu:24.04

FROM ${BASE} AS jetpack
ARG L4T=r39.2
ADD --chmod=644 https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /etc/apt/keyrings/jetson.asc
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && echo "deb [signed-by=/etc/apt/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/common ${L4T} main" \
      >/etc/apt/sources.list.d/jetson.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends python3-libnvinfer \
 && rm -rf /var/lib/apt/lists/*

FROM jetpack AS build
ARG EXTRAS=capture,cpu,text
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python3 -m venv --system-site-packages /opt/mmedge \
 && PIP_CONSTRAINT=/src/constraints.txt /opt/mmedge/bin/pip install --no-cache-dir "/src[${EXTRAS}]"

FROM jetpack AS run
RUN apt-get update \
 && apt-get install -y --no-install-recommends gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-tools libportaudio2 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --groups video,audio mmedge \
 && install -d -o mmedge -g mmedge -m 700 /var/lib/mmedge /run/mmedge
COPY --from=build /opt/mmedge /opt/mmedge
# Engines and settings lie in the volume; everything else may be read-only (compose.json).
ENV PATH=/opt/mmedge/bin:$PATH HOME=/var/lib/mmedge MMEDGE_CACHE=/var/lib/mmedge/engines ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
VOLUME /var/lib/mmedge
WORKDIR /var/lib/mmedge
USER 10001
# The run names the socket: mmedge run ... --attach /run/mmedge/run.sock
HEALTHCHECK --interval=30s --timeout=20s --start-period=600s CMD ["mmedge", "health", "/run/mmedge/run.sock", "--within", "15"]
ENTRYPOINT ["mmedge"]
CMD ["doctor"]
