"""The live policies in virtual time: what a workload would cost, and how it would be served, before it is served."""
