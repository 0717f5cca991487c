# Each item of the Docker plugin of Zabbix's agent.
printf 'Server=127.0.0.1\nHostname=host\nLogType=console\nPlugins.Docker.Endpoint=%s\n' "$DOCKER_HOST" >agent.conf
docker run -d --name measured busybox sleep 600
for item in docker.ping docker.info docker.containers 'docker.containers.discovery[true]' docker.images \
  docker.images.discovery docker.data_usage 'docker.container_info[measured,full]' 'docker.container_info[measured]' \
  'docker.container_stats[measured]'; do
  zabbix_agent2 -c agent.conf -t "$item" | tee answer
  grep -qF '[s|' answer
done
