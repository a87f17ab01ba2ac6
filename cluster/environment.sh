# What every process of the cluster needs in its environment; each node's ~/.bashrc and start command read it.
export PATH="$HOME/env/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_enable_autoscaler_v2=1
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 RAY_DEDUP_LOGS=0 RAY_worker_niceness=0
# A node whose Ray is gone counts as dead after 4 s, one that hangs after about 16 s (Ray's own: 15 s, more than 60 s).
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=4
# A machine that still boots, and is wanted no more, is ended after a minute (Ray's own: never).
export RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S=60
