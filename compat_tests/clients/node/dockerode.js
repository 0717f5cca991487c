const Docker = require("dockerode"), { PassThrough } = require("stream"), assert = require("assert");
const tar = require("tar-fs"), fs = require("fs");
const [socketPath, name, folder] = process.argv.slice(2);
const collect = () => { const s = new PassThrough(); s.text = ""; s.on("data", (d) => (s.text += d)); return s; };
const heard = (s, text) => new Promise((done) => {
  const look = () => s.text.includes(text) && done();
  s.on("data", look);
  look();
});
(async () => {
  const docker = new Docker({ socketPath });
  assert.equal((await docker.ping()).toString(), "OK");
  assert((await docker.df()).Images.length > 0);
  const out = collect(), err = collect();
  const [result, ran] = await docker.run(
    "busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], [out, err],
    { name: name + "r", Tty: false, HostConfig: { NetworkMode: "none" } });
  await ran.remove();
  assert.deepEqual([result.StatusCode, out.text, err.text], [3, "out\n", "err\n"]);

  const made = await docker.createContainer(
    { Image: "busybox", Cmd: ["cat"], OpenStdin: true, name, HostConfig: { NetworkMode: "none" } });
  try {
    const stream = await made.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const said = collect();
    docker.modem.demuxStream(stream, said, said);
    await made.start();
    stream.write("hello\n");
    await heard(said, "hello\n");

    const exec = await made.exec({ Cmd: ["cat"], AttachStdin: true, AttachStdout: true });
    const inner = await exec.start({ hijack: true, stdin: true });
    const echoed = collect();
    docker.modem.demuxStream(inner, echoed, echoed);
    inner.end("in exec\n");
    await heard(echoed, "in exec\n");
    await new Promise((done) => inner.on("end", done));
    let inspected;
    do { inspected = await exec.inspect(); } while (inspected.Running);
    assert.equal(inspected.ExitCode, 0);

    fs.mkdirSync(folder + "/copy");
    fs.writeFileSync(folder + "/copy/file", "copied");
    await made.putArchive(tar.pack(folder + "/copy"), { path: "/tmp" });
    assert((await made.getArchive({ path: "/tmp/file" })).readable);
    assert((await made.stats({ stream: false })).memory_stats.usage > 0);
    assert.equal((await made.logs({ stdout: true })).subarray(8).toString(), "hello\n");

    const events = await docker.getEvents({ filters: { container: [name], event: ["die"] } });
    const died = new Promise((done) => events.once("data", (data) => done(JSON.parse(data))));
    await made.kill();
    assert.equal((await died).Actor.Attributes.exitCode, "137");
    events.destroy();
  } finally {
    await made.remove({ force: true });
  }

  fs.mkdirSync(folder + "/context");
  fs.writeFileSync(folder + "/context/Dockerfile", "FROM busybox\nRUN echo x > /x\n");
  const build = await docker.buildImage({ context: folder + "/context", src: ["Dockerfile"] }, { t: name });
  const lines = await new Promise((done, failed) =>
    docker.modem.followProgress(build, (error, all) => (error ? failed(error) : done(all))));
  assert.equal(lines.at(-1).stream, `Successfully tagged ${name}:latest\n`);
  await docker.getImage(name).remove();
  const kit = await docker.buildImage({ context: folder + "/context", src: ["Dockerfile"] }, { t: name, version: "2" });
  const traces = await new Promise((done, failed) =>
    docker.modem.followProgress(kit, (error, all) => (error ? failed(error) : done(all))));
  assert.equal(traces[0].id, "moby.buildkit.trace");
  assert.equal(traces.at(-1).id, "moby.image.id");
  assert.equal(traces.at(-1).aux.ID, (await docker.getImage(name).inspect()).Id);
  await docker.getImage(name).remove();
  await assert.rejects(docker.getContainer("nosuch").inspect(), { statusCode: 404, reason: "no such container" });
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
