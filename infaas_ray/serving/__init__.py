"""RAY: the running system. The only package that imports ray; actors are plain classes, made remote in `launch`."""
