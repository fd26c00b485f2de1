#!/bin/sh
# Restarts the nodes of nodes.yaml one after the other, each when its clients have left:
#
#   kubectl apply -f nodes.yaml   # with the new image, which changes no pod by itself
#   WITHIN=60s ./update-nodes.sh
#
# It needs kubectl and curl. Where it fails, it leaves the node that it works on drained;
# run it again, or undrain the node.
set -eu
within=${WITHIN:-60s}
port=${PORT:-9090}

token=$(kubectl get secret limpet -o 'jsonpath={.data.admin-token}' | base64 -d)
kubectl port-forward deployment/limpet "$port:9090" >/dev/null &
forward=$!
trap 'kill $forward' EXIT
until curl -fs "http://127.0.0.1:$port/livez" >/dev/null; do sleep 1; done

# api METHOD PATH [BODY] calls the gateway. curl reads the token from its input, as other
# users of this machine can read arguments.
api() {
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -fsS -K - -H 'Content-Type: application/json' -X "$1" ${3:+-d "$3"} "http://127.0.0.1:$port/api/$2"
}

for pod in $(kubectl get pods -l app=node -o name); do
  node=${pod#pod/}
  echo "$node: its clients leave within $within"
  api POST "backends/$node/drain" "{\"within\":\"$within\"}" >/dev/null
  # Requests that are under way may last longer than the drain.
  api GET "backends/$node?wait=empty&timeout=5m" >/dev/null
  echo "$node: restarts"
  kubectl delete pod "$node"
  until kubectl wait --for=condition=Ready "pod/$node" --timeout=60s; do sleep 1; done
  api POST "backends/$node/undrain" >/dev/null
  # The next one waits until the gateway has found this one well.
  until api GET "backends/$node" | grep -q '"state":"up"'; do sleep 1; done
  echo "$node: serves again"
done
