# The command medplus in a container: docs/install.md says how to build and use it.
FROM python:3.11-slim-bookworm AS base
# torch compiles networks with a C++ compiler where that is faster. Its version is not pinned:
# Debian keeps the newest one only.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

# --- everything that medplus needs: gigabytes, built again only where the pins change -------------
FROM base AS dependencies
# cpu: torch and faiss without CUDA's libraries; cuda: with them, as the package index has them.
ARG TORCH=cpu
# A mirror of the index, for networks without internet; torch is taken from it, too, with TORCH=cuda.
ARG UV_DEFAULT_INDEX
ARG PIP_INDEX_URL
WORKDIR /build
COPY .ci/uv.txt pyproject.toml constraints.txt ./
RUN python -m pip install --no-cache-dir --requirement uv.txt \
 && python -m venv /opt/medplus
RUN set -- --constraints constraints.txt --requirements pyproject.toml --extra demo; \
    if [ "$TORCH" = cpu ]; then \
      echo 'faiss-gpu; python_version < "3"' > without.txt; \
      set -- "$@" --torch-backend cpu --overrides without.txt faiss-cpu; \
    fi; \
    uv pip install --python /opt/medplus/bin/python --no-cache --compile-bytecode "$@"

# --- medplus itself: a megabyte, built again with every change -----------------------------------
FROM base AS wheel
ARG PIP_INDEX_URL
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY medplus medplus
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# --- what is shipped -----------------------------------------------------------------------------
FROM base
LABEL org.opencontainers.image.title="medplus" \
      org.opencontainers.image.description="Prototype image models on medical data" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=dependencies /opt/medplus /opt/medplus
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/medplus/bin/python -m pip install --no-cache-dir --no-deps --no-index /dist/*.whl
# Any user may run it (--user): a home and a folder for work that all can write; torch and
# matplotlib keep their caches there, and ask for a name that an unknown user has not.
RUN useradd --uid 1000 --create-home medplus \
 && install --directory --mode 1777 /work /home/medplus
ENV PATH=/opt/medplus/bin:$PATH HOME=/home/medplus USER=medplus
# Read by NVIDIA's container runtime alone.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["medplus"]
CMD ["--help"]
