#!/usr/bin/env bash
# One run in N processes on this machine, for tests.
#
#   launch/local_multiprocess.sh [--dry-run] N --config FILE.py --workdir DIR [FLAGS...]
#
# PYTHON=    the interpreter; default: .venv/bin/python if it exists, else python3
# DEVICES=n  gives each process n simulated CPU devices
# GRACE=60   seconds until the other processes are killed after one has failed
#
# Ctrl-C and SIGTERM go to every process. The exit code is that of the first failure.
set -euo pipefail

dry_run=false
if [ "${1:-}" = --dry-run ]; then dry_run=true && shift; fi
case "${1:-}" in
  '' | 0* | *[!0-9]*) echo "usage: $0 [--dry-run] N --config FILE.py --workdir DIR" >&2
    exit 2 ;;
esac
count=$1 && shift
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

# Below the range of automatic ports; a port that answers is in use.
port=$((20000 + RANDOM % 10000))
while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  port=$((20000 + RANDOM % 10000))
done

environment=()
if [ -n "${DEVICES:-}" ]; then
  flag=--xla_force_host_platform_device_count=$DEVICES
  environment=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$flag")
fi
command=(env ${environment[@]+"${environment[@]}"} "$PYTHON" -m vireid_jax.main "$@"
  --coordinator "127.0.0.1:$port" --num_processes "$count")

if $dry_run; then
  for ((i = 0; i < count; i++)); do
    printf '%q ' "${command[@]}" && echo "--process_id $i"
  done
  exit
fi

pids=()
# shellcheck disable=SC2329 # the traps call it
forward() {
  for pid in ${pids[@]+"${pids[@]}"}; do kill -s "$1" "$pid" 2>/dev/null || :; done
}
trap 'forward INT' INT
trap 'forward TERM' TERM

# With job control each process has its own group, so that it receives one Ctrl-C, from
# `forward`; otherwise bash makes background processes ignore it.
set -m
for ((i = 0; i < count; i++)); do
  if [ "$i" = 0 ]; then
    "${command[@]}" --process_id 0 </dev/null &
  else # only process 0 prints; output of the others means an error
    "${command[@]}" --process_id "$i" </dev/null > >(exec sed "s/^/[$i] /" >&2) 2>&1 &
  fi
  pids+=($!)
done
set +m

code=0 deadline=''
while [ ${#pids[@]} -gt 0 ]; do
  running=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
    elif wait "$pid"; then
      :
    else
      ended=$?
      if [ "$code" = 0 ]; then code=$ended deadline=$((SECONDS + ${GRACE:-60})); fi
    fi
  done
  pids=(${running[@]+"${running[@]}"})
  if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
    for pid in ${pids[@]+"${pids[@]}"}; do kill -s KILL -- "-$pid" 2>/dev/null || :; done
  fi
  sleep 0.2 || :
done
exit "$code"
