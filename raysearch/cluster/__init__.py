"""Pools of replicas: one in this process, or many as Ray actors, with Ray's jobs and metrics."""
