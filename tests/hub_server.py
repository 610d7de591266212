"""A Hub on the loopback interface: the HTTP API that the `huggingface_hub` client speaks, with faults on demand.

Repositories live in memory: branches, commits, pull requests, and large files in a store of their own, which a second
port serves as the real Hub's storage does (signed addresses, no token). Only what the client asks for is there.

    with HubServer() as hub:
        hub.fault("PUT", "/store/", status=500, times=2)
        ...  # HF_ENDPOINT=hub.endpoint
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse


#: Files of these kinds go to the store for large files, whatever their size.
LARGE = (".safetensors", ".bin", ".pt", ".parquet", ".png", ".npz")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """A file's content; `large` ones are known by SHA-256, others by their git hash."""

    data: bytes
    large: bool

    @property
    def oid(self) -> str:
        if self.large:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Commit:
    sha: str
    parent: str | None
    title: str
    description: str
    author: str
    files: dict[str, Blob]


@dataclass
class Repo:
    id: str
    type: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[dict] = field(default_factory=list)

    def commit(
        self, ref: str, title: str, files: dict[str, Blob], author="tester", parent=None, description=""
    ) -> Commit:
        parent = parent or self.refs.get(ref)
        sha = hashlib.sha1(f"{self.type}/{self.id}/{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, description, author, files)
        self.refs[ref] = sha
        return self.commits[sha]

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits from this revision back to the first."""
        found, commit = [], self.find(revision)
        while commit:
            found.append(commit)
            commit = self.commits.get(commit.parent)
        return found


@dataclass
class Fault:
    method: str
    path: str
    status: int | None
    times: int
    headers: dict[str, str]
    cut_after: int | None
    reset: bool


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        self.status, self.message, self.code, self.headers = status, message, code, headers


class HubServer:
    """The server, its state, and what was asked of it.

    Attributes:
        endpoint: for HF_ENDPOINT.
        users: token -> name.
        repos: (type, id) -> `Repo`.
        store: SHA-256 -> large file.
        log: (method, path) of every request.
        stored: SHA-256 of every large file in the order it arrived.
        ranges: every part of a file that was asked for.
    """

    def __init__(self) -> None:
        self.users = {"hf_tester": "tester", "hf_other": "other"}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.store: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.stored: list[str] = []
        self.ranges: list[str] = []
        self.faults: list[Fault] = []
        self.before_commit = lambda: None
        self._lock = threading.RLock()

    def __enter__(self) -> HubServer:
        self._servers = []
        for storage in (False, True):
            handler = type("Handler", (_Handler,), {"hub": self, "storage": storage})
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self._servers.append(server)
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        return self

    def __exit__(self, *exception) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, method, path, *, status=None, times=1, headers=None, cut_after=None, reset=True) -> None:
        """Let the next `times` requests that match fail.

        Args:
            status, headers: of the answer.
            cut_after: instead of an answer, break the connection off after so many bytes of content.
            reset: break it off by a reset and not by an orderly end.
        """
        self.faults.append(Fault(method, path, status, times, headers or {}, cut_after, reset))

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        return self.repos[kind, repo_id]

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        return {name: blob.data for name, blob in self.repo(repo_id, kind).find(revision).files.items()}

    def add(
        self,
        repo_id: str,
        files: dict[str, bytes],
        *,
        ref="main",
        kind="model",
        author="tester",
        private=False,
        parent=None,
    ):
        """Put files into a repository, made if it is not there, behind the client's back."""
        repo = self.repos.get((kind, repo_id)) or self._create(kind, repo_id, private)
        before = repo.find(parent or ref)
        blobs = {name: Blob(data, name.endswith(LARGE)) for name, data in files.items()}
        self.store |= {blob.oid: blob.data for blob in blobs.values() if blob.large}
        return repo.commit(
            ref, "added", (before.files if before else {}) | blobs, author, parent=parent and before.sha
        )

    def _create(self, kind: str, repo_id: str, private: bool) -> Repo:
        repo = self.repos[kind, repo_id] = Repo(repo_id, kind, private)
        repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
        return repo


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    storage: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    # ------------------------------------------------------------------ plumbing
    def _answer(self) -> None:
        url = urlparse(self.path)
        self.url, self.query = unquote(url.path), {k: v[0] for k, v in parse_qs(url.query).items()}
        self._unread = int(self.headers.get("Content-Length") or 0)
        with self.hub._lock:
            self.hub.log.append((self.command, self.path))
            self.cut_after, fault = None, self._fault()
        if fault:
            if fault.cut_after is None:
                said = f"simulated {fault.status}"
                return self._send(fault.status, {"error": said}, **fault.headers, X_Error_Message=said)
            self.cut_after, self.reset = fault.cut_after, fault.reset
            if self.command in ("PUT", "POST"):
                self.rfile.read(min(fault.cut_after, self._unread))
                return self._cut()
        try:
            with self.hub._lock:
                (self._storage if self.storage else self._route)()
        except Refused as refused:
            code = {"X_Error_Code": refused.code} if refused.code else {}
            self._send(
                refused.status, {"error": refused.message}, X_Error_Message=refused.message, **code, **refused.headers
            )

    def _fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, self.path):
                fault.times -= 1
                return fault
        return None

    def _cut(self) -> None:
        self.wfile.flush()
        if self.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        body, self._unread = self.rfile.read(self._unread), 0
        return body

    def _json(self):
        return json.loads(self._body() or b"{}")

    def _send(self, status: int, content=None, **headers: str) -> None:
        if self._unread:  # an answer before the content was read: as a real server does, close after it
            self.close_connection = True
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut_after is not None:
            self.wfile.write(data[: self.cut_after])
            self._cut()
        else:
            self.wfile.write(data)

    def _send_file(self, data: bytes, **headers: str) -> None:
        status, start = 200, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start:
            status, first = 206, int(start[1])
            self.hub.ranges.append(start[0])
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data = data[first:]
        self._send(status, data, Content_Type="application/octet-stream", **headers)

    # ------------------------------------------------------------------ who may do what
    @property
    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repo(self, kind: str, repo_id: str, write: bool = False) -> Repo:
        repo, user = self.hub.repos.get((kind, repo_id)), self.user
        if repo is None or (repo.private and repo_id.split("/")[0] != user):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and repo_id.split("/")[0] != user:
            raise Refused(403 if user else 401, "You don't have the rights to write to this repository")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ------------------------------------------------------------------ the API
    def _route(self) -> None:
        routes = (
            (r"/api/whoami-v2", self._whoami),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)", self._info),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/revision/(.+)", self._info),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/tree/(refs/[^/]+/[^/]+|[^/]+)/?(.*)", self._tree),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/paths-info/(.+)", self._paths),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/commits/(.+)", self._commits),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/discussions", self._discussions),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/api/(model|dataset|space)s/([^/]+/[^/]+)/commit/(.+)", self._new_commit),
            (r"/(?:(dataset|space)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._lfs_batch),
            (r"/(?:(dataset|space)s/)?([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", self._resolve),
        )
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, self.url):
                groups = match.groups()
                return answer(groups[0] or "model", *groups[1:]) if groups else answer()
        raise Refused(404, f"No such address: {self.command} {self.url}")

    def _whoami(self) -> None:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        self._send(200, {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def _create(self) -> None:
        asked = self._json()
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        owner, kind = asked.get("organization") or self.user, asked.get("type") or "model"
        if owner != self.user:
            raise Refused(403, f"You don't have the rights to create a {kind} under the namespace {owner!r}")
        repo_id = f"{owner}/{asked['name']}"
        address = f"{self.hub.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}"
        if (kind, repo_id) in self.hub.repos:
            return self._send(409, {"error": "You already created this repo", "url": address})
        self.hub._create(kind, repo_id, asked.get("visibility") == "private")
        self._send(200, {"url": address, "name": repo_id})

    def _validate(self) -> None:
        import yaml

        match = re.match(r"---\n(.*?)\n---", self._json()["content"], re.S)
        problem = None if match else "no metadata"
        if match and not isinstance(yaml.safe_load(match[1]), dict):
            problem = "metadata is no mapping"
        for entry in (yaml.safe_load(match[1]) or {}).get("model-index") or [] if match else []:
            for result in entry["results"]:
                if not all(("type" in result["task"], "type" in result["dataset"], result["metrics"])):
                    problem = "model-index is not complete"
        self._send(400 if problem else 200, {"errors": [{"message": problem}] if problem else [], "warnings": []})

    def _info(self, kind: str, repo_id: str, revision: str = "main") -> None:
        repo = self._repo(kind, repo_id)
        commit = self._commit(repo, revision)
        names = sorted(commit.files)
        content = {"_id": "1", "id": repo_id, "modelId": repo_id, "author": repo_id.split("/")[0], "sha": commit.sha}
        content |= {"lastModified": DATE, "createdAt": DATE, "private": repo.private, "gated": False, "tags": []}
        content |= {"disabled": False, "downloads": 0, "likes": 0, "siblings": [{"rfilename": name} for name in names]}
        self._send(200, content, X_Repo_Commit=commit.sha)

    def _entry(self, name: str, blob: Blob) -> dict:
        entry = {"type": "file", "oid": blob.oid[:40], "size": len(blob.data), "path": name}
        if blob.large:
            entry["lfs"] = {"oid": blob.oid, "size": len(blob.data), "pointerSize": 134}
        return entry

    def _tree(self, kind: str, repo_id: str, revision: str, folder: str) -> None:
        files = self._commit(self._repo(kind, repo_id), revision).files
        prefix = f"{folder}/" if folder else ""
        below = {name.removeprefix(prefix): blob for name, blob in files.items() if name.startswith(prefix)}
        if folder and not below:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        recursive = self.query.get("recursive", "").lower() == "true"
        folders = {"/".join(name.split("/")[:i]) for name in below for i in range(1, name.count("/") + 1)}
        entries = [self._entry(prefix + n, blob) for n, blob in below.items() if recursive or "/" not in n]
        entries += [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": prefix + n}
            for n in sorted(folders)
            if recursive or "/" not in n
        ]
        self._send(200, entries)

    def _paths(self, kind: str, repo_id: str, revision: str) -> None:
        files = self._commit(self._repo(kind, repo_id), revision).files
        body = self._body()
        asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
        entries = [self._entry(name, files[name]) for name in asked if name in files]
        for name in asked:
            if any(other.startswith(f"{name}/") for other in files):
                entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": name})
        self._send(200, entries)

    def _commits(self, kind: str, repo_id: str, revision: str) -> None:
        repo = self._repo(kind, repo_id)
        self._commit(repo, revision)
        self._send(
            200,
            [
                {
                    "id": c.sha,
                    "title": c.title,
                    "message": c.description,
                    "date": DATE,
                    "authors": [{"user": c.author}],
                }
                for c in repo.history(revision)
            ],
        )

    def _discussions(self, kind: str, repo_id: str) -> None:
        found = self._repo(kind, repo_id).discussions
        self._send(200, {"count": len(found), "start": 0, "discussions": found})

    def _preupload(self, kind: str, repo_id: str, revision: str) -> None:
        files = self._commit(self._repo(kind, repo_id, write="create_pr" not in self.query), revision).files
        self._send(
            200,
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        **({"oid": files[file["path"]].oid} if file["path"] in files else {}),
                    }
                    for file in self._json()["files"]
                ]
            },
        )

    def _lfs_batch(self, kind: str, repo_id: str) -> None:
        self._repo(kind, repo_id)
        objects = []
        for asked in self._json()["objects"]:
            entry = dict(asked)
            if asked["oid"] not in self.hub.store:
                upload = {"href": f"{self.hub.storage}/store/{asked['oid']}?signature=1"}
                entry["actions"] = {"upload": upload}
            objects.append(entry)
        self._send(200, {"transfer": "basic", "objects": objects})

    def _new_commit(self, kind: str, repo_id: str, revision: str) -> None:
        pull_request = "create_pr" in self.query
        lines = [json.loads(line) for line in self._body().splitlines()]
        self.hub.before_commit()
        repo = self._repo(kind, repo_id, write=not pull_request)
        head, header = self._commit(repo, revision), lines[0]["value"]
        parent = header.get("parentCommit")
        if parent and parent != head.sha and not pull_request:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.find(parent).files if pull_request and parent else head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = Blob(self.hub.store[value["oid"]], True)
            elif line["key"] == "deletedFile":
                if value["path"] not in files:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[value["path"]]
        ref, address = revision, None
        if pull_request:
            number = len(repo.discussions) + 1
            ref, address = f"refs/pr/{number}", f"{self.hub.endpoint}/{repo_id}/discussions/{number}"
            self._open(repo, number, header["summary"], self.user)
        commit = repo.commit(
            ref, header["summary"], files, self.user, parent=parent or head.sha, description=header["description"]
        )
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.hub.endpoint}/{prefix}{repo_id}/commit/{commit.sha}"
        self._send(200, {"success": True, "commitOid": commit.sha, "commitUrl": url, "pullRequestUrl": address})

    @staticmethod
    def _open(repo: Repo, number: int, title: str, author: str) -> None:
        repo.discussions.append(
            {
                "num": number,
                "title": title,
                "author": {"name": author},
                "createdAt": DATE,
                "status": "open",
                "isPullRequest": True,
                "repo": {"name": repo.id, "type": repo.type},
            }
        )

    def _resolve(self, kind: str, repo_id: str, revision: str, name: str) -> None:
        commit = self._commit(self._repo(kind, repo_id), revision)
        if name not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
        blob = commit.files[name]
        headers = {"X_Repo_Commit": commit.sha, "ETag": f'"{blob.oid}"', "Accept_Ranges": "bytes"}
        if blob.large:
            headers |= {"X_Linked_Etag": f'"{blob.oid}"', "X_Linked_Size": str(len(blob.data))}
            return self._send(302, b"", Location=f"{self.hub.storage}/store/{blob.oid}?signature=1", **headers)
        self._send_file(blob.data, **headers)

    # ------------------------------------------------------------------ the store
    def _storage(self) -> None:
        assert "Authorization" not in self.headers, "a token was sent to the storage, which is not the Hub's"
        oid = self.url.rsplit("/", 1)[1]
        if self.command == "PUT":
            data = self._body()
            if hashlib.sha256(data).hexdigest() != oid:
                raise Refused(400, "the content is not what was announced")
            self.hub.store[oid] = data
            self.hub.stored.append(oid)
            return self._send(200, b"", ETag=f'"{oid}"')
        if oid not in self.hub.store:
            raise Refused(404, "no such object")
        self._send_file(self.hub.store[oid], ETag=f'"{oid}"')
