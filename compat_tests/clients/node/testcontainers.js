const { GenericContainer, Network, Wait } = require("testcontainers");
const assert = require("assert"), fs = require("fs"), http = require("http");
const folder = process.argv[2];
const HTTPD = ["sh", "-c", "mkdir -p /www && echo served > /www/index.html && echo ready && exec httpd -f -p 8080 -h /www"];
const read = (url) => new Promise((done, failed) =>
  http.get(url, (answer) => {
    let text = "";
    answer.on("data", (data) => (text += data)).on("end", () => done(text));
  }).on("error", failed));

(async () => {
  const network = await new Network().start();
  let server, client;
  try {
    fs.writeFileSync(folder + "/file", "copied");
    server = await new GenericContainer("busybox:latest")
      .withCommand(HTTPD)
      .withExposedPorts(8080)
      .withEnvironment({ COLOUR: "blue" })
      .withLabels({ purpose: "test" })
      .withNetwork(network)
      .withNetworkAliases("server")
      .withTmpFs({ "/scratch": "rw,size=1m" })
      .withCopyFilesToContainer([{ source: folder + "/file", target: "/copied" }])
      .withCopyContentToContainer([{ content: "written", target: "/written" }])
      .withHealthCheck({ test: ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1:8080/"], interval: 200, retries: 20 })
      .withWaitStrategy(Wait.forAll([Wait.forLogMessage("ready"), Wait.forListeningPorts(), Wait.forHealthCheck()]))
      .start();
    const url = `http://${server.getHost()}:${server.getMappedPort(8080)}/`;
    assert.equal(await read(url), "served\n");
    const result = await server.exec(["sh", "-c", "cat /copied /written; echo $COLOUR >&2; exit 3"]);
    assert.deepEqual([result.exitCode, result.stdout, result.stderr], [3, "copiedwritten", "blue\n"]);
    await server.copyContentToContainer([{ content: "later", target: "/later" }]);
    assert.equal((await server.exec(["cat", "/later"])).output, "later");
    assert((await server.copyArchiveFromContainer("/written")).readable);

    client = await new GenericContainer("busybox:latest")
      .withNetwork(network)
      .withCommand(["sh", "-c", "wget -q -O - http://server:8080/"])
      .withWaitStrategy(Wait.forOneShotStartup())
      .start();
    const lines = await client.logs();
    const text = await new Promise((done) => { let all = ""; lines.on("data", (d) => (all += d)).on("end", () => done(all)); });
    assert.match(text, /served/);

    await server.restart({ timeout: 0 });
    assert.equal(await read(`http://${server.getHost()}:${server.getMappedPort(8080)}/`), "served\n");
  } finally {
    if (client) await client.stop();
    if (server) await server.stop({ timeout: 0 });
    await network.stop();
  }

  fs.mkdirSync(folder + "/context");
  fs.writeFileSync(folder + "/context/Dockerfile", "FROM busybox\nARG TEXT\nRUN echo $TEXT > /text\nCMD [\"cat\", \"/text\"]\n");
  const image = await GenericContainer.fromDockerfile(folder + "/context").withBuildArgs({ TEXT: "built" }).build("testcontainers:built");
  const built = await image.withWaitStrategy(Wait.forLogMessage("built")).start();
  await built.stop();
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
