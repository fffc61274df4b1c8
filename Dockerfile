# The default sandbox image of Troop: what a repository's tests usually need, and nothing of the machine it was built on.
#
#   docker build -t troop-sandbox - < Dockerfile
#   without an image registry:  sudo harness/sandbox/base_image.sh troop-base:bookworm
#                               docker build --network host --build-arg BASE=troop-base:bookworm -t troop-sandbox - < Dockerfile
#
# It needs no build context and no BuildKit. Everything comes from the base's own apt sources; a proxy is passed as docker's
# predefined argument (--build-arg http_proxy=…), which neither the image nor its history keeps.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      bash build-essential ca-certificates git locales make patch procps \
      python3 python3-dev python3-venv python3-pip \
 # A convenience for the model's searches; some suites do not have it.
 && { apt-get install -y --no-install-recommends ripgrep || echo "ripgrep is not to be had in this suite: left out"; } \
 && sed -i 's/^# *en_US.UTF-8/en_US.UTF-8/' /etc/locale.gen && locale-gen \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt \
 && mkdir -p /testbed

ENV LANG=C.UTF-8 LC_ALL=C.UTF-8
WORKDIR /testbed
# A sandbox holds nothing worth a goodbye: whoever stops one should not wait ten seconds for it.
STOPSIGNAL SIGKILL
CMD ["bash"]
