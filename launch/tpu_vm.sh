#!/usr/bin/env bash
# One run on a Cloud TPU slice: request it, wait, install, and run on every worker.
#
#   launch/tpu_vm.sh [--dry-run] NAME --config FILE.py --workdir DIR [FLAGS...]
#
# ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite   the slice
# SPOT=1     request a preemptible slice, at a lower price
# BUCKET=    mounted at ~/bucket on every worker: use --workdir ../bucket/runs/mine and
#            --config.data.dir=../bucket/data (all workers must see the workdir)
# SOURCE=    the repository to clone; REVISION= its branch or tag
#
# The same command resumes, on the same slice or on a new one. The slice costs money until
# it is deleted; the last line of the output is the command for that.
set -euo pipefail

dry_run=false
if [ "${1:-}" = --dry-run ]; then dry_run=true && shift; fi
case "${1:-}" in
  '' | -*) echo "usage: $0 [--dry-run] NAME --config FILE.py --workdir DIR" >&2
    exit 2 ;;
esac
name=$1 && shift
zone=${ZONE:-us-west4-a}
source=${SOURCE:-https://github.com/vireid-jax/vireid_jax}

say() { printf '%q ' "$@" && echo; }
run() { if $dry_run; then say "$@"; else "$@"; fi; }
on_every_worker() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"
}
state() {
  gcloud compute tpus queued-resources describe "$name" --zone "$zone" \
    --format='value(state.state)' 2>/dev/null || echo NONE
}

if $dry_run || [ "$(state)" = NONE ]; then
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" \
    --zone "$zone" --accelerator-type "${TYPE:-v5litepod-16}" \
    --runtime-version "${VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot}
fi
until $dry_run || [ "$(state)" = ACTIVE ]; do
  case $(state) in
    FAILED | SUSPENDED) echo "$name is $(state): delete it and run this script again" >&2 && exit 1 ;;
    *) echo "$name is $(state); waiting" && sleep 30 ;;
  esac
done

# The image's Python is older than 3.11; uv installs a newer one.
on_every_worker "test -d vireid_jax || git clone --depth 1 \
--branch ${REVISION:-main} $source vireid_jax"
on_every_worker "cd vireid_jax && python3 -m pip install --quiet uv && \
python3 -m uv venv --quiet --allow-existing --python 3.11 .venv && \
python3 -m uv pip install --quiet --python .venv/bin/python \
-c constraints/py311.txt -e '.[tpu]'"
if [ -n "${BUCKET:-}" ]; then
  on_every_worker "mkdir -p bucket && { mountpoint -q bucket || \
gcsfuse --implicit-dirs $BUCKET bucket; }"
fi

code=0
on_every_worker "cd vireid_jax && exec .venv/bin/python -m vireid_jax.main$(
  printf ' %q' "$@"
)" || code=$?
echo "To delete the slice:" >&2
say gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force >&2
exit "$code"
