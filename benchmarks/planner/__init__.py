"""How long a plan takes and how good it is; how long a turn of the control loop takes."""
