#!/usr/bin/env bash
# RLOO with one advantage per turn: five attempts per prompt, with the verifier's feedback between them.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
DATA=${DATA:-$PWD/data/turns}
CONFIGS=${CONFIGS:-$("$PYTHON" -c 'from sftrl_ext.paths import configs_dir; print(configs_dir())')}

"$PYTHON" prepare_rows.py "$DATA" --task "${TASK:-general_points}"

exec "$PYTHON" -m verl.trainer.main_ppo --config-path "$CONFIGS" --config-name ppo \
  backend=gpu \
  algorithm=rloo_turn \
  data.train_files="$DATA/train.parquet" \
  data.val_files="[$DATA/id_unseen.parquet,$DATA/rule_ood.parquet]" \
  data.train_batch_size=128 \
  data.max_prompt_length=512 \
  data.max_response_length=3072 \
  actor_rollout_ref.model.path="${MODEL:?set MODEL to a folder or a name}" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=128 \
  actor_rollout_ref.rollout.n=8 \
  trainer.experiment_name=gp_rloo_turns \
  trainer.nnodes=1 \
  trainer.n_gpus_per_node="${GPUS:-1}" \
  trainer.total_epochs=1 \
  trainer.save_freq=50 \
  trainer.test_freq=25 \
  "$@"
