#!/usr/bin/env bash
# One node, all its GPUs: start a run, or go on with it if it has a checkpoint.
#   launch/torchrun.sh stage2 --set data.train=my_data/cache --set run.name=stage2
# GPUS=4 launch/torchrun.sh ...       uses four of them
set -euo pipefail
config=${1:?the name of a preset or a settings file}
shift
gpus=${GPUS:-$(python -c 'import torch; print(torch.cuda.device_count() or 1)')}
out=runs name=$(basename "$config" .toml)
for argument in "$@"; do
  case $argument in run.out=*) out=${argument#*=} ;; run.name=*) name=${argument#*=} ;; esac
done
if compgen -G "$out/$name/checkpoints/step-*/state.json" >/dev/null; then
  exec torchrun --standalone --nproc-per-node "$gpus" -m comfyui_comovi.training resume "$out/$name" "$@"
fi
exec torchrun --standalone --nproc-per-node "$gpus" -m comfyui_comovi.training train --config "$config" \
  --set run.name="$name" "$@"
