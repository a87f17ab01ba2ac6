# What every process of the cluster needs in its environment; each node's ~/.bashrc and start command read it.
export PATH="$HOME/env/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_enable_autoscaler_v2=1
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 RAY_DEDUP_LOGS=0 RAY_worker_niceness=0
