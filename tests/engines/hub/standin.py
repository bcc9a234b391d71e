"""A server that speaks what huggingface_hub asks of the Hugging Face hub, for repositories of models.

Source: the requests of huggingface_hub (hf_api.py, _commit_api.py, lfs.py, file_download.py), and the errors
that it tells by the header X-Error-Code (utils/_http.py). Large files lie at another host, as the hub's do.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

OWNER, TOKEN = "owner", "hf_of_the_owner"
LARGE = re.compile(r".*\.(onnx|safetensors|plan)")
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits, and where branches stand; `gated` repositories show themselves and give nothing."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def head(self, branch: str = "main") -> Files:
        return self.commits[self.branches[branch]]


class Refused(Exception):
    """An answer with an error of the hub's."""

    def __init__(self, status: int, code: str = "", message: str = "", **told: str):
        super().__init__(message)
        self.status, self.code = status, code
        self.told = told


class Hub:
    """The repositories, and every path that was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: Files = {}
        self.asked: list[str] = []
        self.elsewhere: set[str | None] = set()  # tokens that came to the large files' host
        self.before_commit: Callable[[], object] = lambda: None
        hub = self

        class Handler(Requests):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(
        self, name: str, files: Files, private: bool = False, gated: bool = False
    ) -> Repository:
        """A repository with one commit."""
        made = self.repositories[name] = Repository(private, gated)
        made.commit("main", {".gitattributes": b"*.onnx filter=lfs\n", **files})
        return made

    # ---- what is asked
    def whoami(self) -> dict:
        return {"type": "user", "name": OWNER, "orgs": []}

    def create(self, body: dict) -> dict:
        name = f"{body.get('organization') or OWNER}/{body['name']}"
        if name in self.repositories:
            raise Refused(409, message="You already created it", url=f"{self.address}/{name}")
        self.put(name, {}, private=body.get("visibility") == "private" or bool(body.get("private")))
        return {"url": f"{self.address}/{name}", "name": name}

    def info(self, name: str, repository: Repository, sha: str) -> dict:
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        shown = {"id": name, "sha": sha, "private": repository.private, "siblings": siblings}
        return shown | {"tags": [], "downloads": 0, "likes": 0}

    def branch(self, repository: Repository, branch: str) -> dict:
        if branch in repository.branches:
            raise Refused(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        return {}

    def tree(self, files: Files) -> list[dict]:
        return [
            {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
            | ({"lfs": large(data)} if LARGE.fullmatch(path) else {})
            for path, data in files.items()
        ]

    def preupload(self, body: dict, files: Files) -> dict:
        ignored = files.get(".gitignore", b"").decode().split()
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if LARGE.fullmatch(file["path"]) else "regular",
                    "shouldIgnore": file["path"] in ignored,
                }
                for file in body["files"]
            ]
        }

    def batch(self, body: dict) -> dict:
        def action(thing: dict) -> dict:
            if thing["oid"] in self.large:
                return thing
            return thing | {"actions": {"upload": {"href": f"{self.storage}/large/{thing['oid']}"}}}

        return {"transfer": "basic", "objects": [action(thing) for thing in body["objects"]]}

    def commit(self, name: str, repository: Repository, branch: str, lines: list[dict]) -> dict:
        self.before_commit()
        files = dict(repository.head(branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") != repository.branches[branch]:
                raise Refused(412, message="A commit has happened since")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(branch, files)
        return {
            "commitOid": sha,
            "commitUrl": f"{self.address}/{name}/commit/{sha}",
            "success": True,
        }


class Requests(BaseHTTPRequestHandler):
    """Paths of the hub to the functions above."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        self.hub.asked.append(f"{self.command} {urlsplit(self.path).path}")
        try:
            self.route(urlsplit(self.path).path, self.read())
        except Refused as e:
            code = {"X-Error-Code": e.code} if e.code else {}
            self.send(e.status, json.dumps({"error": str(e)} | e.told).encode(), code)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def route(self, path: str, body: bytes) -> None:
        hub, read = self.hub, lambda: json.loads(body)
        if large_file := re.fullmatch(r"/large/(\w+)", path):
            hub.elsewhere.add(self.headers.get("Authorization"))
            if self.command == "PUT":
                assert hashlib.sha256(body).hexdigest() == large_file[1]
                hub.large[large_file[1]] = body
            return self.send(200, b"" if self.command == "PUT" else hub.large[large_file[1]])
        if resolved := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*map(unquote, resolved.groups()))
        if path == "/api/validate-yaml":
            return self.send(200, b"{}")
        if path in ("/api/whoami-v2", "/api/repos/create"):
            self.check_owner()
            return self.json(hub.whoami() if path.endswith("v2") else hub.create(read()))
        if named := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.repository(named[1], write=True)
            return self.json(hub.batch(read()))
        called = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path)
        if called is None:
            raise Refused(404, message=path)
        name, verb = called[1], called[2] or "revision"
        revision = unquote(called[3] or "main")
        repository = self.repository(name, write=verb in ("branch", "preupload", "commit"))
        if verb == "branch":
            return self.json(hub.branch(repository, revision))
        files = repository.commits[sha := self.sha(repository, revision)]
        if verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            return self.json(hub.commit(name, repository, revision, lines))
        verbs = {
            "revision": lambda: hub.info(name, repository, sha),
            "tree": lambda: hub.tree(files),
            "preupload": lambda: hub.preupload(read(), files),
        }
        return self.json(verbs[verb]())

    def json(self, data: Any) -> None:
        self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository.gated:
            raise Refused(403, "GatedRepo", f"Access to model {name} is restricted")
        sha = self.sha(repository, revision)
        data = repository.commits[sha].get(path)
        if data is None:
            raise Refused(404, "EntryNotFound")
        told = {"X-Repo-Commit": sha, "ETag": f'"{git_oid(data)}"'}
        if not LARGE.fullmatch(path):
            return self.send(200, data, told)
        linked = large(data)
        self.hub.large[linked["oid"]] = data
        told |= {"X-Linked-Etag": f'"{linked["oid"]}"', "X-Linked-Size": str(len(data))}
        where = {"Location": f"{self.hub.storage}/large/{linked['oid']}"}
        return self.send(302, b"", told | where)

    def repository(self, name: str, write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.is_owner()):
            raise Refused(404 if self.is_owner() else 401, "RepoNotFound", "Repository not found")
        if write and not (self.is_owner() and name.startswith(f"{OWNER}/")):
            raise Refused(403, message="Forbidden: pass a token with write access")
        return found

    def sha(self, repository: Repository, revision: str) -> str:
        sha = repository.sha(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def check_owner(self) -> None:
        if not self.is_owner():
            raise Refused(401, message="Invalid username or password.")


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def large(data: bytes) -> dict:
    sha = hashlib.sha256(data).hexdigest()
    return {"oid": sha, "sha256": sha, "size": len(data), "pointerSize": 134}
