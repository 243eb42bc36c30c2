#!/usr/bin/env bash
# GRPO by verl's own trainer: one attempt per prompt, graded by a custom reward function.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
DATA=${DATA:-$PWD/data/stock}

"$PYTHON" prepare_rows.py "$DATA" --stock --task "${TASK:-general_points}"

exec "$PYTHON" -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="$DATA/train.parquet" \
  data.val_files="[$DATA/id_unseen.parquet,$DATA/rule_ood.parquet]" \
  data.train_batch_size=128 \
  data.max_prompt_length=512 \
  data.max_response_length=512 \
  reward.custom_reward_function.path=pkg://sftrl_ext.reward_fns \
  reward.custom_reward_function.name=compute_score \
  actor_rollout_ref.model.path="${MODEL:?set MODEL to a folder or a name}" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=128 \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true \
  trainer.project_name=sftrl \
  trainer.experiment_name=gp_grpo_stock \
  trainer.logger='[console,file]' \
  trainer.nnodes=1 \
  trainer.n_gpus_per_node="${GPUS:-1}" \
  trainer.total_epochs=1 \
  trainer.save_freq=50 \
  trainer.test_freq=25 \
  "$@"
