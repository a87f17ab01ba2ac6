"""The beat of the loops around the decisions, the same in the live system and in the simulator. All in seconds."""

TURN_S = 0.5  # the controller takes a turn at least so often, and at once when something happened
REPORT_S = 0.5  # a router reports its traffic
MONITOR_S = 1.0  # a worker's monitor reports
PUBLISHED_S = 0.2  # routers have taken over a new table after this; only then is a replica told to drain
SAME_LOAD_S = 0.25  # a load that was asked for is not asked for again within this time
DRAIN_LIMIT_S = 60.0  # a replica that has not drained by then is ended
