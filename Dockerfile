# The same book in a container, from the exact versions of requirements.lock:
#     docker build -t mmvm . && docker run --rm -p 8000:8000 mmvm      then http://localhost:8000
#     docker run --rm -it mmvm bash                                    a shell in which make, papermill and mmvm work
# On Linux torch comes with its CUDA libraries, so the image has about 7 GB. Behind a registry of your own, name its image
# of Debian with Python 3.11 or later: --build-arg PYTHON=<image>
ARG PYTHON=python:3.12-slim
FROM ${PYTHON}

# git: rows name the commit that made them; build-essential is not needed, every pin has a wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmvm
# the environment first: it is made again only when these two change
COPY requirements.lock pyproject.toml ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check -r requirements.lock

COPY . .
RUN python -m pip install --no-cache-dir --disable-pip-version-check --quiet --no-deps -e .

# make uses the container's Python in place of .venv
ENV MMVM_ENV=current
RUN make html

EXPOSE 8000
CMD ["python", "-m", "http.server", "8000", "--directory", "_build/html"]
