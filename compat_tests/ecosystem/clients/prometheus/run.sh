# The discovery of containers by Prometheus (docker_sd_configs).
docker run -d --name discovered -l purpose=discovery -p 127.0.0.1::8080 busybox httpd -f -p 8080 -h /
sed "s#HOST#$DOCKER_HOST#" prometheus.yml >config.yml
prometheus --config.file=config.yml --storage.tsdb.path=data --web.listen-address=127.0.0.1:19091 2>log &
trap 'kill $!; wait $!' EXIT
for _ in $(seq 60); do
  sleep 0.5
  python -c '
import json, urllib.request
with urllib.request.urlopen("http://127.0.0.1:19091/api/v1/targets") as answer:
    targets = json.load(answer)["data"]["activeTargets"]
labels = targets[0]["discoveredLabels"]
assert labels["__meta_docker_container_name"] == "/discovered", labels
assert labels["__meta_docker_container_label_purpose"] == "discovery", labels
assert labels["__meta_docker_network_name"] == "bridge" and labels["__meta_docker_port_public_ip"] == "127.0.0.1", labels
assert labels["__meta_docker_port_private"] == "8080" and labels["__meta_docker_network_ip"], labels
' 2>error && exit
done
cat error log
exit 1
