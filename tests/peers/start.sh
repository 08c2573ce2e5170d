#!/bin/sh
# Becomes one contestant: gateway, fastapi or litellm. The bench sets PORT, UPSTREAM, WORK_DIR (its own, empty), SLOTS (the
# requests at once of each class) and TOKEN; run.sh BIN_DIR and VENV.
set -eu
here=$(dirname "$0")
exec >"$WORK_DIR/log" 2>&1 </dev/null
case $1 in
    gateway)
        export GATEWAY_HOST=127.0.0.1 GATEWAY_PORT="$PORT" GATEWAY_TLS=off GATEWAY_BEARER_TOKEN="$TOKEN"
        export GATEWAY_DATA_DIR="$WORK_DIR" UI_IMAGE_DIR="$WORK_DIR/pictures" BACKENDS_CONFIG="$here/gateway.yaml"
        exec "$BIN_DIR/gateway" --env-file /dev/null ;;
    fastapi)
        exec "$VENV/bin/uvicorn" --app-dir "$here" --host 127.0.0.1 --port "$PORT" fastapi_gateway:app ;;
    litellm)
        export UPSTREAM_V1="$UPSTREAM/v1" LITELLM_MASTER_KEY="$TOKEN" LITELLM_LOCAL_MODEL_COST_MAP=True
        export LITELLM_LOG=ERROR LEGACY_MULTI_INSTANCE_RATE_LIMITING=true
        sed "s/SLOTS/$SLOTS/" "$here/litellm.yaml" >"$WORK_DIR/litellm.yaml"
        exec "$VENV/bin/litellm" --config "$WORK_DIR/litellm.yaml" --host 127.0.0.1 --port "$PORT" --telemetry False ;;
    *)
        echo "no contestant: $1" >&2
        exit 64 ;;
esac
