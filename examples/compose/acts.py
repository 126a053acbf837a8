#!/usr/bin/env python3
"""Runs the shop of compose.yaml with a mesh in it, and shows what the mesh does: one act after another, each PASS or FAIL.

Needs an engine, docker-compose and the image that build.sh makes. What it makes is removed at the end, whatever happens.

    acts.py [--image outrigger:local] [--keep]
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 60
RETRY = "{attempts: 2, on: [connect-failure, refused-stream, reset, gateway-error], backoff: 10ms}"
SERVICE = """
kind: Service
name: api
spec:
  ports: [{port: 9000, protocol: http}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
  outlierDetection: {consecutive5xx: 3, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 50}
  timeouts: {request: 5s, connect: 1s}
  retry: %s
""" % RETRY
LEDGER = """
---
kind: Service
name: ledger
spec:
  ports: [{port: 7000, protocol: grpc}]
  timeouts: {request: 5s, connect: 1s}
  retry: %s
""" % RETRY


class Failed(Exception):
    """What an act found."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def eventually(what, found):
    """Waits until `found` gives something, and gives that."""
    end = time.monotonic() + PATIENCE
    last = None
    while time.monotonic() < end:
        try:
            result = found()
            if result:
                return result
        except (Failed, OSError) as error:
            last = error
        time.sleep(0.2)
    raise Failed(f"never: {what}" + (f" ({last})" if last else ""))


class Load:
    """A few requests a second in the background, and those that failed."""

    def __init__(self, mesh):
        self.mesh, self.count, self.failures, self.over = mesh, 0, [], threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        while not self.over.wait(0.05):
            status, headers, body = self.mesh.get()
            self.count += 1
            if status != 200:
                self.failures.append(f"{status} {headers.get('x-outrigger-reason', '')} {body[:200]}")

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def without_failure(self):
        check(self.count > 0, "no request was sent")
        check(not self.failures, f"{len(self.failures)} of {self.count} requests failed, the first: {self.failures[:1]}")
        return f"{self.count} requests, none failed"


class Mesh:
    def __init__(self, image, folder):
        self.image, self.project = image, f"outrigger-acts-{os.getpid()}"
        self.file = pathlib.Path(folder) / "compose.yaml"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {**os.environ, "SHOP_PORT": str(self.port)}

    def run(self, *command, text=None, fine=True):
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, env=self.environment, timeout=180, cwd=HERE
        )
        if fine and done.returncode != 0:
            raise Failed(f"{' '.join(command[:6])}...: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def inject(self):
        text = (HERE / "compose.yaml").read_text().replace("outrigger:local", self.image)
        arguments = ("inject", "compose", "-f", "-", "--image", self.image)
        made = self.run("docker", "run", "--rm", "-i", "--network", "none", self.image, *arguments, text=text)
        self.file.write_text(made.stdout)
        return made.stderr

    def compose(self, *arguments):
        return self.run(
            "docker-compose", "-p", self.project, "-f", str(self.file), "--project-directory", str(HERE), *arguments
        )

    def up(self, api):
        self.compose("up", "-d", "--scale", f"api={api}")

    def containers(self, service):
        found = self.run(
            "docker", "ps", "-aq", "--no-trunc",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
        )
        return found.stdout.split()

    def container(self, service):
        return self.containers(service)[0]

    def outrigger(self, *arguments, text=None, fine=True, service="outrigger-control"):
        return self.run("docker", "exec", "-i", self.container(service), "/outrigger", *arguments, text=text, fine=fine)

    def apply(self, text):
        self.outrigger("apply", "-f", "-", "--wait", "10s", text=text)

    def status(self):
        return json.loads(self.outrigger("status", "-o", "json").stdout)

    def endpoints(self, service):
        answer = json.loads(self.outrigger("endpoints", "--service", service, "-o", "json").stdout)
        return answer["items"]

    def get(self, **headers):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/orders", headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()
        except OSError as error:
            return 0, {}, str(error)

    def versions(self, count, **headers):
        versions = []
        for _ in range(count):
            status, answer, body = self.get(**headers)
            check(status == 200, f"{status}: {body[:300]}")
            versions.append(answer["x-api-version"])
        return versions

    def instances(self, count):
        found = set()
        for _ in range(count):
            status, answer, body = self.get()
            check(status == 200, f"{status}: {body[:300]}")
            found.add(answer["x-api-instance"])
        return found

    def in_sync(self, members):
        """All of them are connected, and have what is wanted in effect."""
        def look():
            status = self.status()
            good = [
                sidecar for sidecar in status["sidecars"]
                if sidecar["connected"] and sidecar.get("revision") == status["revision"]
            ]
            check(len(good) == members, f"{len(good)} sidecars of {members} in sync")
            return True
        eventually(f"{members} sidecars in sync", look)

    def switch(self, container, what):
        self.run("docker", "exec", container, "/outrigger", "healthcheck", f"http://127.0.0.1:9000{what}")

    def down(self):
        self.compose("down", "-v", "--remove-orphans", "-t", "10")
        left = []
        for kind in (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q")):
            filter_ = ("--filter", f"label=com.docker.compose.project={self.project}")
            left += self.run("docker", *kind, *filter_).stdout.split()
        check(not left, f"left behind: {left}")


def route(v1, v2):
    refs = [f"{{name: api, subset: {name}, weight: {weight}}}" for name, weight in (("v1", v1), ("v2", v2)) if weight]
    return f"""
kind: Route
name: api-canary
spec:
  hosts: [api]
  rules:
  - matches: [{{headers: [{{name: x-canary, value: "1"}}]}}]
    backendRefs: [{{name: api, subset: v2}}]
  - backendRefs: [{", ".join(refs)}]
"""


def act_up(mesh):
    mesh.inject()
    mesh.up(api=2)
    eventually("the shop answers", lambda: mesh.get()[0] == 200)
    mesh.in_sync(6)
    mesh.apply(SERVICE + LEDGER)
    _, headers, body = mesh.get()
    caller = json.loads(body)["next"]["headers"].get("x-forwarded-client-cert", "")
    check("spiffe://outrigger.local/ns/default/svc/web" in caller, f"api does not know who called: {caller!r}")
    check(headers["x-ledger-instance"], "the ledger was not reached")
    return "6 sidecars in sync; api knows its caller by certificate"


def act_canary(mesh):
    mesh.apply(route(100, 0))
    check(set(mesh.versions(20)) == {"v1"}, "with weight 0, v2 got requests")
    check(set(mesh.versions(5, x_canary="1")) == {"v2"}, "the header does not lead to v2")
    mesh.apply(route(50, 50))
    share = mesh.versions(100).count("v2")
    check(25 <= share <= 75, f"with half of the weight, v2 got {share} of 100 requests")
    mesh.apply(route(0, 100))
    check(set(mesh.versions(20)) == {"v2"}, "with weight 0, v1 got requests")
    mesh.apply(route(100, 0))
    return f"by weight ({share} of 100 at 50/50) and by header"


def act_outlier(mesh):
    bad = mesh.containers("api")[0]
    mesh.switch(bad, "/fail?rate=1")
    def ejected():
        for _ in range(5):
            mesh.get()
        return [it for it in mesh.endpoints("api") if it["health"] == "ejected"]
    found = eventually("the failing instance is ejected", ejected)
    check(len(found) == 1, f"{len(found)} instances are ejected")
    check(found[0]["instance"].startswith(bad[:12]), f"{found[0]['instance']} is ejected, {bad[:12]} fails")
    check(set(mesh.versions(20)) == {"v1"}, "the other instance does not serve")
    mesh.switch(bad, "/fail?rate=0")
    def back():
        mesh.get()
        return all(it["health"] == "healthy" for it in mesh.endpoints("api"))
    eventually("it is back when its time is over", back)
    return f"{found[0].get('ejectedBecause', 'ejected')}, and back"


def act_kill(mesh):
    victim = mesh.containers("api")[0]
    with Load(mesh) as load:
        time.sleep(0.5)
        mesh.run("docker", "kill", victim)
        eventually("it is no endpoint any more", lambda: len(mesh.endpoints("api")) == 2)
        time.sleep(0.5)
    mesh.run("docker", "start", victim)
    mesh.in_sync(6)
    eventually("it is one again", lambda: len(mesh.endpoints("api")) == 3)
    return load.without_failure()


def act_denial(mesh):
    allow = "\n---\n".join(
        f"kind: Policy\nname: {one}-may-call-{other}\nspec: {{to: [{{service: {other}}}], action: allow, from: [{{service: {one}}}]}}"
        for one, other in (("web", "api"), ("api", "ledger"))
    )
    mesh.apply(f"kind: Mesh\nname: default\nspec: {{defaultAction: deny}}\n---\n{allow}\n")
    mesh.versions(5)
    refused = mesh.outrigger("healthcheck", "http://127.0.0.1:6000/", fine=False, service="batch")
    check(refused.returncode == 3 and "403" in refused.stderr, f"batch may call api: {refused.stderr or 'yes'}")
    address = mesh.endpoints("api")[0]["address"].rsplit(":", 1)[0]
    plain = mesh.outrigger("healthcheck", f"http://{address}:15006/", fine=False, service="batch")
    check("plaintext is not served" in plain.stderr, f"plaintext: {plain.stderr}")
    mesh.apply("kind: Policy\nname: batch-may-call-api\nspec: {to: [{service: api}], action: allow, from: [{service: batch}]}\n")
    mesh.outrigger("healthcheck", "http://127.0.0.1:6000/", service="batch")
    return "batch refused, plaintext refused; one rule later batch may"


def act_control_plane_down(mesh):
    control = mesh.container("outrigger-control")
    sidecar = mesh.container("api-v2-mesh")
    with Load(mesh) as load:
        mesh.run("docker", "stop", control)
        time.sleep(1)
        mesh.run("docker", "restart", sidecar)
        eventually("the restarted sidecar serves", lambda: set(mesh.versions(3, x_canary="1")) == {"v2"})
        mesh.run("docker", "start", control)
        mesh.in_sync(6)
    return load.without_failure() + "; a sidecar started meanwhile"


def act_scale(mesh):
    with Load(mesh) as load:
        mesh.up(api=3)
        eventually("all three serve", lambda: len(mesh.instances(10)) == 3)
        mesh.up(api=1)
        eventually("one is left", lambda: len([it for it in mesh.endpoints("api") if it["labels"].get("version") == "v1"]) == 1)
        mesh.up(api=2)
        mesh.in_sync(6)
    return "2, 3, 1, 2 instances: " + load.without_failure()


def act_rolling_restart(mesh):
    with Load(mesh) as load:
        for container in mesh.containers("api"):
            mesh.run("docker", "restart", container)
            mesh.in_sync(6)
            eventually("it is an endpoint again", lambda: len(mesh.endpoints("api")) == 3)
    lossless = load.without_failure()
    for service in ("api-v2-mesh", "api-v2", "ledger-mesh", "ledger", "web-mesh", "web", "batch-mesh", "outrigger-control"):
        mesh.run("docker", "restart", mesh.container(service))
        eventually(f"the shop answers after a restart of {service}", lambda: mesh.versions(2))
    mesh.in_sync(6)
    check(set(mesh.versions(3, x_canary="1")) == {"v2"}, "v2 does not serve")
    return f"each api in turn: {lossless}; then every other one"


ACTS = [
    ("up", act_up), ("canary", act_canary), ("outlier", act_outlier), ("kill", act_kill), ("denial", act_denial),
    ("control plane down", act_control_plane_down), ("scale", act_scale), ("rolling restart", act_rolling_restart),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="outrigger:local")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="outrigger-acts-")
    mesh = Mesh(options.image, folder)
    failed = 0
    try:
        for name, act in ACTS:
            began = time.monotonic()
            try:
                verdict, told = "PASS", act(mesh)
            except (Failed, subprocess.SubprocessError, KeyError, ValueError, IndexError) as error:
                verdict, told, failed = "FAIL", f"{type(error).__name__}: {error}", failed + 1
            print(f"{verdict}  {name:20} {time.monotonic() - began:5.1f} s  {told}", flush=True)
            if failed and name == "up":
                break
    finally:
        if options.keep:
            print(f"left running: docker-compose -p {mesh.project} -f {mesh.file} ps; the shop is at http://127.0.0.1:{mesh.port}/")
        else:
            try:
                mesh.down()
            except Failed as error:
                print(f"FAIL  down: {error}")
                failed += 1
            shutil.rmtree(folder)
    print(f"{len(ACTS)} acts, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
