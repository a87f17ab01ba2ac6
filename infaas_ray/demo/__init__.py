"""The demonstration: real models, real data, one story from training to scaling."""
