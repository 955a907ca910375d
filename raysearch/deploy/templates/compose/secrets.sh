#!/usr/bin/env bash
# Prints random secrets for compose.yaml, as an .env file. Only you should be able to read it: (umask 077; ./secrets.sh > .env)
set -euo pipefail
for name in RAY_AUTH_TOKEN MLFLOW_PASSWORD MLFLOW_SECRET_KEY POSTGRES_PASSWORD GRAFANA_PASSWORD; do
  printf '%s=%s\n' "$name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
done
